"""Has a bundle been signed by whom the caller trusts? Joins key files, the clock and ``signing``'s rules."""

from __future__ import annotations

import os
from collections.abc import Sequence

from boardfit.bundle.keys import read_public
from boardfit.bundle.reader import Bundle
from boardfit.bundle.signing import Signature, check_signatures


def require_trusted(
    bundle: Bundle,
    keys: Sequence[str | os.PathLike[str] | bytes],
    *,
    threshold: int = 1,
    installing: bool,
) -> tuple[Signature, ...]:
    """Return the signatures of trusted keys, if they are enough.

    Args:
        bundle: Open bundle.
        keys: Public keys, each a path or the bytes of a PEM file.
        threshold: How many of them must have signed.
        installing: Whether the bundle is new here, so that an expired signature counts for nothing. One
            that is installed goes on running.

    Raises:
        UntrustedBundle: Too few signatures of trusted keys.
        RecipeError: A key cannot be read, or the threshold makes no sense.
        ToolMissing: cryptography is not installed.
    """
    from datetime import datetime, timezone

    return check_signatures(
        bundle.content_id,
        bundle.signatures,
        read_public(keys),
        threshold=threshold,
        installing_at=datetime.now(timezone.utc) if installing else None,
    )
