"""Names and addresses that may be shown to anybody: without passwords."""

from __future__ import annotations

import re

# To the last @: an @ or a slash inside a password must not end it.
_USER_INFO = re.compile(r"(//)\S*@")
_SECRET = re.compile(r"(?i)([\w-]*(?:pass|pwd|pw|token|secret|key|auth|sig)[\w-]*=)[^&;\s]+")


def without_password(text: str) -> str:
    """Return a URL or pipeline whose users, passwords, and values named like secrets are replaced by ``***``.

    Args:
        text: Any text; what has none of these comes back as it is.
    """
    return _SECRET.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))
