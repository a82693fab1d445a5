"""Names and addresses that may be shown to anybody: without passwords."""

from __future__ import annotations

import re

_KEY = r"[\w-]*(?:pas|psw|pwd|pw|token|secret|key|auth|sig)[\w-]*"
# To the last @ of an element of a pipeline: an @, a slash or a space inside a password must not end it.
_REST = r"(?:(?! ! ).)*"
_USER_INFO = re.compile(rf"(//){_REST}@")
# me:secret@camera/stream, without a scheme.
_BARE = re.compile(
    rf"^(?!synthetic:|gst:|\w[\w+.-]*://)[^\s:/@]+:{_REST}@|(?<=[\s\"'=])[^\s:/@\"'=]+:(?!//)\S*@"
)
_IN_QUERY = re.compile(rf"(?i)([?&;]{_KEY}=)(?:(?! ! )[^&])*")
_QUOTED = re.compile(rf"(?i)([\"'])({_KEY}\s*=)(?:(?!\1).)*")
_SECRET = re.compile(rf"(?i)(?<![?&;\w\"'-])({_KEY}\s*=\s*)(?:\"[^\"]*(?:\"|$)|'[^']*(?:'|$)|\\.|\S)+")


def without_password(text: str) -> str:
    """Return a URL or pipeline whose users, passwords, and values named like secrets are replaced by ``***``.

    Args:
        text: Any text; what has none of these comes back as it is.
    """
    text = _BARE.sub("***@", _USER_INFO.sub(r"\1***@", text))
    return _SECRET.sub(r"\1***", _QUOTED.sub(r"\1\2***", _IN_QUERY.sub(r"\1***", text)))
