"""Names and addresses that may be shown to anybody: without passwords."""

from __future__ import annotations

import re

# Whole words as far as they would be met in others: compass, bypass, author, signal, design, keyframe.
_KEY = (
    r"[\w-]*(?:(?<!com)(?<!by)pass?\d*|pass?(?:w|ph|code|key)[\w-]*|psw|pwd?\d*|key\d*|token[\w-]*|secret[\w-]*"
    r"|auth(?!or(?!iz|is))[\w-]*|sig(?!n(?!ature))[\w-]*)"
)
_VALUE = r"(?:\"[^\"]*(?:\"|$)|'[^']*(?:'|$)|\\\"(?:(?!\\\").)*\\\"|\\.|\S)+"
_SECRET = re.compile(rf"(?i)(?<![?&;\w\"'-])({_KEY}\s*=\s*){_VALUE}")
_QUOTED = re.compile(rf"(?i)([\"'])({_KEY}\s*=)(?:(?!\1).)*")
# To the last @ of an element of a pipeline: an @, a slash or a space inside a password must not end it.
_REST = r"(?:(?! ! ).)*"
_USER_INFO = re.compile(rf"(//)(?:[^/\s:]*|[^/\s:@]*:{_REST})@")
_BARE = re.compile(rf"^(?!\s*synthetic:|gst:|\w[\w+.-]*://)[^\s:/@]+:{_REST}@")
_IN_QUERY = re.compile(rf"(?i)([?&;]{_KEY}=)(?:(?! ! )[^&])*")
# In a sentence, no further than to a space, but in quotation marks.
_USER_INFO_IN_TEXT = re.compile(r"(//)(?:[^/\s:]*|[^/\s:@]*:\S*)@")
_BARE_IN_TEXT = re.compile(r"(?<=[\"'])[^\s:/@\"'=]+:(?!//)[^\"']*@|(?<=[\s=])[^\s:/@\"'=]+:(?!//)\S+@")
_IN_QUERY_IN_TEXT = re.compile(rf"(?i)([?&;]{_KEY}=)[^&\s]*")


def without_password(address: str) -> str:
    """Return an address or pipeline with ``***`` for its user, password, and values named like secrets.

    Args:
        address: As it was given; what has none of these comes back as it is.
    """
    shown = _BARE.sub("***@", _USER_INFO.sub(r"\1***@", address))
    return _without_secrets(_IN_QUERY.sub(r"\1***", shown))


def text_without_password(text: str) -> str:
    """Return a sentence, such as a driver's error, with addresses shown as ``without_password`` does.

    A password with a space is found there in quotation marks only.

    Args:
        text: Any text.
    """
    shown = _BARE_IN_TEXT.sub("***@", _USER_INFO_IN_TEXT.sub(r"\1***@", text))
    return _without_secrets(_IN_QUERY_IN_TEXT.sub(r"\1***", shown))


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1***", _QUOTED.sub(r"\1\2***", text))
