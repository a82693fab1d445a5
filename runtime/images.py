"""Image files: found, checked before they are decoded, decoded with their EXIF rotation."""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from boardfit.errors import InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 1 << 29


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a JPEG, PNG, WebP or BMP file.

    Args:
        path: Of the file.

    Returns:
        HxWx3 uint8 BGR, turned as its EXIF orientation says.

    Raises:
        InputError: If the file is missing, no such image, damaged, cut short, or has more than 100
            million pixels (which is seen in its header, before anything is decoded).
    """
    return decode_image(_read(Path(path)), name=str(path))


def decode_image(data: bytes, *, name: str = "what was given") -> np.ndarray:
    """Decode a JPEG, PNG, WebP or BMP file that is in memory, such as one that came over HTTP.

    Args:
        data: The whole file.
        name: What it is called in errors.

    Returns:
        HxWx3 uint8 BGR, turned as its EXIF orientation says.

    Raises:
        InputError: As for ``read_image``.
    """
    size_wh = image_size_wh(data)
    if size_wh is None:
        raise InputError(f"{name} is not an image: expected a JPEG, PNG, WebP or BMP file, whatever its name")
    width, height = size_wh
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InputError(
            f"{name} has {width}x{height} pixels: expected at least one and at most {MAX_PIXELS // 10**6} "
            f"million. Make it smaller first"
        )
    frame = None
    if not _cut_short(data):
        try:
            frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise InputError(f"{name} cannot be decoded: {error}. Expected a whole image file") from error
    if frame is None:
        raise InputError(f"{name} is damaged or cut short: expected a whole image file. Copy it again")
    return np.asarray(frame)


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the image files behind files, folders and patterns.

    Args:
        paths: Each a file, which is taken as it is; a folder, searched with its subfolders for names
            that end in .jpg, .jpeg, .png, .webp or .bmp; or a pattern such as ``photos/*.jpg``.

    Returns:
        Each file once, in the order of the arguments and sorted within each.

    Raises:
        InputError: If one of the arguments leads to no file.
    """
    found: dict[Path, None] = {}
    for path in paths:
        files = _expand(Path(path))
        if not files:
            raise InputError(
                f"no images at {path}: expected a file, a pattern, or a folder with files that end in "
                f"{', '.join(SUFFIXES)}"
            )
        found.update(dict.fromkeys(files))
    if not found:
        raise InputError("no images: expected at least one file, folder or pattern")
    return list(found)


def image_size_wh(data: bytes) -> tuple[int, int] | None:
    """Read width and height from a file's header.

    Args:
        data: The whole file, or its beginning.

    Returns:
        Width and height in pixels, before any EXIF rotation; None if the header is not that of a JPEG,
        PNG, WebP or BMP file.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg_size_wh(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size_wh(data)
        if data[:2] == b"BM":
            return _bmp_size_wh(data)
    except (struct.error, IndexError):
        return None
    return None


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file: expected an image file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB: expected an image file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        return sorted(file for file in files if file.is_file() and not file.name.startswith("."))
    if path.exists():
        return [path]
    # Path.glob takes no absolute pattern.
    matches = (Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
    return sorted(match for match in matches if match.is_file())


def _jpeg_size_wh(data: bytes) -> tuple[int, int] | None:
    """Walk the segments to the first start of frame (ITU T.81, B.2.2)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp_size_wh(data: bytes) -> tuple[int, int] | None:
    """Read the first chunk: lossy, lossless or extended (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp_size_wh(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height means rows from the top


def _cut_short(data: bytes) -> bool:
    """Return whether a JPEG ends before its end-of-image marker.

    OpenCV 4 only warns of this and fills the rest with grey. The search begins behind the header, since
    an EXIF thumbnail has an end of its own.
    """
    if data[:2] != b"\xff\xd8":
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return data.find(b"\xff\xd9", at) < 0
