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
RESERVED = (MANIFEST, MEASUREMENTS, SUMS)

MAX_TEXT_BYTES = 1 << 20
"""Upper bound of manifest.json, measurements.json and SHA256SUMS."""

MAX_FILES = 4096

FETCH_AGAIN = "fetch or build the bundle again"

# ASCII without spaces: the same name in every zip tool, file system and checksum list. A part starts with
# a letter, a digit or an underscore, which leaves out "..", hidden files and options of commands.
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUMS_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")


def check_path(path: object) -> str:
    """Return a file's path inside a bundle if it is safe.

    Raises:
        BundleError: The path is absolute, leads out of the bundle, is too long, or has characters that
            not every system takes.
    """
    if not isinstance(path, str) or len(path) > 200 or _PATH.fullmatch(path) is None:
        raise BundleError(
            f"{path!r} cannot be the name of a file in a bundle: expected parts of letters, digits, "
            "'_', '.', '+' and '-', joined by '/', at most 200 characters"
        )
    return path


def check_paths(paths: Iterable[object]) -> tuple[str, ...]:
    """Return paths that can stand together in one tree.

    Raises:
        BundleError: A path is unsafe, stands twice, or is the folder of another one.
    """
    known = tuple(check_path(path) for path in paths)
    if len(known) > MAX_FILES:
        raise BundleError(f"{len(known)} files are too many for a bundle: expected at most {MAX_FILES}")
    seen: set[str] = set()
    folders: set[str] = set()
    for path in known:
        if path in seen:
            raise BundleError(f"{path!r} stands twice in the bundle: {FETCH_AGAIN}")
        seen.add(path)
        parts = path.split("/")
        folders.update("/".join(parts[:i]) for i in range(1, len(parts)))
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
        BundleError: A value is not JSON, is NaN or infinite, or the text is over MAX_TEXT_BYTES.
    """
    try:
        text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        encoded = f"{text}\n".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"{what} cannot be written as JSON: {error}") from error
    if len(encoded) > MAX_TEXT_BYTES:
        raise BundleError(f"{what} has {len(encoded)} bytes: expected at most {MAX_TEXT_BYTES}")
    return encoded


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object from untrusted bytes.

    Raises:
        BundleError: The bytes are over MAX_TEXT_BYTES, are no UTF-8, no JSON or no object, have a key
            twice, or hold NaN or an infinite number.
    """
    check_text_size(len(data), what)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
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


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
