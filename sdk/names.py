"""Names and addresses that may be shown to anybody: without passwords."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Whole words as far as they would be met in others: compass, bypass, author, signal, design, keyframe.
_KEY = (
    r"[\w-]*(?:(?<!com)(?<!by)pass?\d*|pass?(?:w|ph|code|key)[\w-]*|psw|pwd?\d*|key\d*|token[\w-]*|secret[\w-]*"
    r"|auth(?!or(?!iz|is))[\w-]*|sig(?!n(?!ature))[\w-]*"
    r"|jwt[\w-]*|credentials?)"
)
_VALUE = r"(?:\"[^\"]*(?:\"|$)|'[^']*(?:'|$)|\\\"(?:(?!\\\").)*\\\"|\\.|\S)+"
_SECRET = re.compile(rf"(?i)(?<![?&;\w\"'-])({_KEY}(?:\]|%5D)?\s*=\s*){_VALUE}")
_QUOTED = re.compile(rf"(?i)([\"'])({_KEY}\s*=)(?:(?!\1).)*")
_IS_KEY = re.compile(rf"(?i){_KEY}")
_IN_QUERY = re.compile(r"[?&;#]([^?&;#=\s]+)=")

# A user, or user:password, in front of an @. The user may be DOMAIN/user; of http, where that may be a path
# as well, only if nothing but these two stands there. No user begins in a query. {0} are characters that no
# user has, {1} is what a password may be, {2} the same without a slash.
_LOGIN = (
    r"(?<!/)(//+)(?!/)(?:[^/{0}:]*:{1}|[^/{0}:]*|(?<!http://)(?<!https://)[^{0}:@?#]+:{1}"
    r"|[^/{0}:@?#]+/[^/{0}:@?#]+:{2})@"
)
_BARE = r"(?:[^\s:/@.~{0}][^\s:/@{0}]*/)?[^\s:/{0}]+:(?!//)"
_URL = re.compile(r"\s*[a-zA-Z][\w+.-]*://")
# Of an address to the last @: an @, a slash or a space inside a password must not end it.
_IN_URL = re.compile("(?is)" + _LOGIN.format("", ".*", "[^/]*"))
_AT_START = re.compile(r"(?s)^(\s*)(?!synthetic:|gst:)" + _BARE.format("") + ".*@")
# Of a pipeline to the last @ of an element, or of a property.
_ELEMENT = re.compile(r"""(?s)(?:"(?:\\.|[^"\\])*"|'[^']*'|(?! ! ).)+| ! """)
_IN_ELEMENT = re.compile("(?is)" + _LOGIN.format(r"\s", ".*", r"[^/]*"))
_PROPERTY = re.compile(r"""(?s)(=\s*["']?)""" + _BARE.format(r"""=("'""") + r"(?:(?!\s[\w-]+\s*=).)*@")
# In a sentence, no further than to a space, but in quotation marks.
_IN_TEXT = re.compile("(?i)" + _LOGIN.format(r"\s", r"\S*", r"[^/\s]*"))
_BARE_IN_TEXT = re.compile(
    r"""(?<=["'])""" + _BARE.format(r"""=("'""") + r"""[^"']*@"""
    r"""|(?<![^\s=(\[{<,;|])""" + _BARE.format(r"""="'(\[{<,;|""") + r"\S+@"
)


_MOST_TEXT = 4000
"""Looking for a password takes a time that grows with the square of a text's length."""


def without_password(address: str) -> str:
    """Return an address or pipeline with ``***`` for its user, password, and values named like secrets.

    Args:
        address: As it was given; what has none of these comes back as it is, but for more than 4000
            characters.
    """
    address = _cut(address)
    if _URL.match(address):
        return _without_secrets(_without_values(_IN_URL.sub(r"\1***@", address), r"[^&]*"))
    shown = _AT_START.sub(r"\1***@", address)
    return _without_secrets("".join(_element(each) for each in _ELEMENT.findall(shown)))


def text_without_password(text: str) -> str:
    """Return a sentence, such as a driver's error, with addresses shown as ``without_password`` does.

    A password with a space is found there in quotation marks only.

    Args:
        text: Any text; what lies beyond 4000 characters is cut off.
    """
    shown = _BARE_IN_TEXT.sub("***@", _IN_TEXT.sub(r"\1***@", _cut(text)))
    return _without_secrets(_without_values(shown, r"[^&\s]*"))


def _cut(text: str) -> str:
    """Cut a long text off, and so much before that no login is left without its @."""
    if len(text) <= _MOST_TEXT:
        return text
    kept = text[:_MOST_TEXT]
    return f"{kept[: max(kept.rfind('//'), kept.rfind(' '), 0)]}***"


def _element(text: str) -> str:
    shown = _PROPERTY.sub(r"\1***@", _IN_ELEMENT.sub(r"\1***@", text))
    return _without_values(shown, r"[^&]*")


def _without_values(text: str, value: str) -> str:
    """Hide what is named like a secret in a query, as far as it matches ``value``."""
    shown, end = "", 0
    for pair in _IN_QUERY.finditer(text):
        found = re.compile(value).match(text, pair.end())
        if found and pair.start() >= end and _is_secret(pair[1]):
            shown += f"{text[end : pair.end()]}***"
            end = found.end()
    return shown + text[end:]


def _is_secret(key: str) -> bool:
    """Return whether a query's key, such as ``user%5Bpassword%5D``, has a part named like a secret."""
    return any(_IS_KEY.fullmatch(part) for part in re.split(r"[^\w-]+", unquote(key)))


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1***", _QUOTED.sub(r"\1\2***", text))
