"""What a bundle's names, JSON and checksum list may look like. Opens no file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from boardfit.errors import BundleError

MANIFEST = "manifest.json"
MEASUREMENTS = "measurements.json"
SUMS = "SHA256SUMS"
SIGNATURES = "signatures.json"
OPTIONAL = (MEASUREMENTS, SIGNATURES)
"""Outside the content id, and in SHA256SUMS: a bundle may lack either."""
RESERVED = (MANIFEST, *OPTIONAL, SUMS)

MAX_TEXT_BYTES = 1 << 20
"""Upper bound of each of the RESERVED files."""
MAX_DEPTH = 32
"""Of objects and lists within each other in their JSON."""
MAX_DIGITS = 18
"""Of an integer in their JSON: it fits into 64 bits anywhere."""

MAX_FILES = 4096
MAX_PATH = 200

FETCH_AGAIN = "fetch or build the bundle again"

# ASCII without spaces: the same name in every zip tool, file system and checksum list. A part starts with
# a letter, a digit or an underscore, which leaves out "..", hidden files and options of commands, and ends
# with no dot, which Windows drops.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]*[A-Za-z0-9_+-])?"
_PATH = re.compile(f"{_PART}(?:/{_PART})*", re.ASCII)
_DEVICE = re.compile(r"(?:\A|/)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|/|\Z)", re.ASCII | re.IGNORECASE)
_FAULTS = (
    (re.compile(r"\A/"), "it is absolute"),
    (re.compile(r"\0"), "it has a NUL"),
    (re.compile(r"\\"), "it has a backslash"),
    (re.compile(r"\A[A-Za-z]:"), "it begins with a drive letter"),
    (re.compile(r"(?:\A|/)\.\.(?:/|\Z)"), "it leads out of its folder"),
    (_DEVICE, "it names a device on Windows"),
    (re.compile(r"[^\x00-\x7f]"), "it has characters beyond ASCII"),
    (re.compile(r"\.(?:/|\Z)"), "a part of it ends with a dot"),
)
"""What is wrong with a path, first match first; what matches none has another character or form."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal obeys, and halves of characters, which nothing can print: but no tab and no line end."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")


def check_path(path: object) -> str:
    """Return a file's path inside a bundle if it is safe.

    Raises:
        BundleError: The path is absolute, leads out of the bundle, is too long, or has characters that
            not every system takes.
    """
    fault = _path_fault(path) if isinstance(path, str) else "it is no text"
    if fault:
        raise BundleError(
            f"{path!r:.300} cannot be the name of a file in a bundle, {fault}: expected parts of letters, "
            f"digits, '_', '.', '+' and '-', joined by '/', at most {MAX_PATH} characters"
        )
    assert isinstance(path, str)
    return path


def check_paths(paths: Iterable[object]) -> tuple[str, ...]:
    """Return paths that can stand together in one tree, also where letters' case does not count.

    Raises:
        BundleError: A path is unsafe, stands twice, is the folder of another one, or differs from another
            one only by case.
    """
    known = tuple(check_path(path) for path in paths)
    if len(known) > MAX_FILES:
        raise BundleError(f"{len(known)} files are too many for a bundle: expected at most {MAX_FILES}")
    seen: set[str] = set()
    folders: set[str] = set()
    spelled: dict[str, str] = {}
    for path in known:
        if path in seen:
            raise BundleError(f"{path!r} stands twice in the bundle: {FETCH_AGAIN}")
        seen.add(path)
        parts = path.split("/")
        own = ["/".join(parts[:i]) for i in range(1, len(parts))]
        folders.update(own)
        for prefix in (*own, path):
            other = spelled.setdefault(prefix.lower(), prefix)
            if other != prefix:
                raise BundleError(f"{prefix!r} and {other!r} differ only by case: {FETCH_AGAIN}")
    if seen & folders:
        raise BundleError(f"{min(seen & folders)!r} is both a file and a folder of the bundle: {FETCH_AGAIN}")
    return known


def check_sha256(value: object, what: str) -> str:
    """Return a SHA-256 in lower-case hex, or raise BundleError."""
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise BundleError(f"sha256 of {what} is {value!r}: expected 64 lower-case hex digits")
    return value


def canonical_order(paths: Iterable[str]) -> list[str]:
    """Return paths in the one order of a bundle: the manifest first, the rest sorted."""
    return sorted(paths, key=lambda path: (path != MANIFEST, path))


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of some bytes in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def dump_json(data: Mapping[str, Any], what: str) -> bytes:
    """Return JSON in its one canonical form: sorted keys, two spaces, UTF-8, a line end.

    Raises:
        BundleError: A value is not JSON, or what ``parse_json`` would refuse.
    """
    try:
        text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        encoded = f"{text}\n".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{what} cannot be written as JSON: {error}") from error
    parse_json(encoded, what)
    return encoded


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object from untrusted bytes.

    Raises:
        BundleError: The bytes are over MAX_TEXT_BYTES, are no UTF-8, no JSON or no object, have a key
            twice, hold NaN, an infinite number or an integer of more than MAX_DIGITS, nest deeper than
            MAX_DEPTH, or have a control character other than tab and line end in a text.
    """
    check_text_size(len(data), what)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        _check_values(value)
    except (ValueError, RecursionError) as error:
        # BundleError is a ValueError too: the reason that the hooks name is kept in the sentence.
        raise BundleError(f"{what} is not valid JSON ({error}): {FETCH_AGAIN}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{what} holds a {type(value).__name__}: expected an object; {FETCH_AGAIN}")
    return value


def check_text_size(size_bytes: int, what: str) -> None:
    """Raise BundleError if a text file of a bundle is larger than any honest one."""
    if size_bytes > MAX_TEXT_BYTES:
        raise BundleError(f"{what} has {size_bytes} bytes: expected at most {MAX_TEXT_BYTES}")


def sums_text(digests: Mapping[str, str]) -> bytes:
    """Return the checksum list in coreutils' format, in the canonical order.

    Args:
        digests: SHA-256 in hex by path; the list itself is left out.
    """
    order = canonical_order(path for path in digests if path != SUMS)
    return "".join(f"{digests[path]}  {path}\n" for path in order).encode("ascii")


def parse_sums(data: bytes) -> dict[str, str]:
    """Return SHA-256 by path from an untrusted checksum list.

    Raises:
        BundleError: A line is not in coreutils' format, or a path is unsafe or stands twice.
    """
    check_text_size(len(data), SUMS)
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"{SUMS} is not plain text: {FETCH_AGAIN}") from error
    matches = [_SUMS_LINE.fullmatch(line) for line in lines[:-1]]
    if lines[-1] != "" or not all(matches):
        raise BundleError(f"{SUMS} is not a list of checksums and names: {FETCH_AGAIN}")
    pairs = [(match[2], match[1]) for match in matches if match is not None]
    check_paths(path for path, _ in pairs)
    return dict(pairs)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return fields


def _path_fault(path: str) -> str:
    """Return what is wrong with a path; empty where nothing is."""
    if len(path) > MAX_PATH:
        return f"it has {len(path)} characters"
    if _PATH.fullmatch(path) is not None and _DEVICE.search(path) is None:
        return ""
    return next((fault for pattern, fault in _FAULTS if pattern.search(path)), "it has other characters")


def _check_values(value: object) -> None:
    """Raise ValueError where values nest too deep, or a text has control characters."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if not item.isprintable() and CONTROL.search(item):
                raise ValueError(f"the text {item!r:.60} has a control character")
        elif isinstance(item, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"it nests deeper than {MAX_DEPTH}")
            pending.extend((inner, depth + 1) for inner in item)
            if isinstance(item, dict):
                pending.extend((inner, depth + 1) for inner in item.values())


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"the number {text[:40]} has more than {MAX_DIGITS} digits")
    return int(text)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
