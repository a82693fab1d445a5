"""One size for every frame."""

from __future__ import annotations

from boardfit.runtime.results import Result
from boardfit.specs import PolicySpec


class FixedPolicy:
    """Always the largest of the spec's sizes; no entropy is computed."""

    needs_entropy = False

    def __init__(self, spec: PolicySpec, stream: bool) -> None:  # noqa: ARG002 - every policy's signature
        self._size = spec.sizes[-1]

    def first(self, bits: float | None) -> int:  # noqa: ARG002
        """Return the one size."""
        return self._size

    def next(self, size: int, result: Result) -> int | None:  # noqa: ARG002
        """Return None: the answer stands."""
        return None
