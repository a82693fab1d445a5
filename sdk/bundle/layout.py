"""The one zip layout of a bundle. Opens no file.

Stored entries without gaps, 1980-01-01, mode 0644, ASCII names, no extra fields, no comments, no zip64:
a pure function of names and contents. Written and read here rather than with ``zipfile``, whose choice of
flags and versions is its own, and whose import alone costs more than the runtime may.

Format: PKWARE, ".ZIP File Format Specification" (APPNOTE.TXT) 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from boardfit.bundle.rules import MAX_FILES, canonical_order, check_paths
from boardfit.errors import BundleError

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_VERSION = 20
_MADE_BY = (3 << 8) | _VERSION
"""Unix, so that the attributes below are read as a file mode."""
_TIME, _DATE = 0, (0 << 9) | (1 << 5) | 1
_ATTRIBUTES = 0o100644 << 16

MAX_ZIP_BYTES = (1 << 32) - 1
END_BYTES = _END.size
MAX_DIRECTORY_BYTES = MAX_FILES * (_CENTRAL.size + 200)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a zip: its name, CRC-32, byte count, and where its local header starts."""

    path: str
    crc32: int
    size_bytes: int
    offset: int

    @property
    def data_offset(self) -> int:
        """Where the contents start."""
        return self.offset + _LOCAL.size + len(self.path)


@dataclass(frozen=True, slots=True)
class End:
    """The end record: how many entries, and where their directory lies."""

    count: int
    directory_offset: int
    directory_bytes: int


def place(files: Sequence[tuple[str, int, int]]) -> list[Entry]:
    """Return entries that lie one after the other.

    Args:
        files: (path, crc32, size in bytes), in the order of the zip.

    Raises:
        BundleError: The zip would be over MAX_ZIP_BYTES.
    """
    entries: list[Entry] = []
    offset = 0
    for path, crc32, size_bytes in files:
        entry = Entry(path, crc32, size_bytes, offset)
        entries.append(entry)
        offset = entry.data_offset + size_bytes
    if offset + len(entries) * (_CENTRAL.size + 200) > MAX_ZIP_BYTES:
        raise BundleError(
            f"the bundle would have {offset} bytes: expected less than 4 GiB; leave formats out"
        )
    return entries


def local_header(entry: Entry) -> bytes:
    """Return what stands before an entry's contents."""
    name = entry.path.encode("ascii")
    header = _LOCAL.pack(
        _LOCAL_MAGIC,
        _VERSION,
        0,
        0,
        _TIME,
        _DATE,
        entry.crc32,
        entry.size_bytes,
        entry.size_bytes,
        len(name),
        0,
    )
    return header + name


def directory(entries: Sequence[Entry]) -> bytes:
    """Return the central directory and the end record."""
    records = [_central(entry) for entry in entries]
    packed = b"".join(records)
    last = entries[-1]
    start = last.data_offset + last.size_bytes
    count = len(entries)
    return packed + _END.pack(_END_MAGIC, 0, 0, count, count, len(packed), start, 0)


def parse_end(tail: bytes, zip_bytes: int) -> End:
    """Return the end record.

    Args:
        tail: The last END_BYTES of the file.
        zip_bytes: Size of the file.

    Raises:
        BundleError: There is none, or it contradicts the file's size.
    """
    if len(tail) != _END.size or tail[:4] != _END_MAGIC:
        raise BundleError("it does not end like a bundle (cut short, damaged, or another kind of file)")
    _, disk, start_disk, count, total, size, offset, comment = _END.unpack(tail)
    if (disk, start_disk, comment) != (0, 0, 0) or count != total or not 0 < count <= MAX_FILES:
        raise BundleError("its end record is damaged")
    if offset + size + _END.size != zip_bytes or size > MAX_DIRECTORY_BYTES:
        raise BundleError("its end record does not match its size (cut short or damaged)")
    return End(count, offset, size)


def parse_directory(data: bytes, end: End) -> list[Entry]:
    """Return the entries of an untrusted central directory.

    Raises:
        BundleError: It is not what ``directory`` would have written for entries without gaps.
    """
    files = []
    position = 0
    for _ in range(end.count):
        record = data[position : position + _CENTRAL.size]
        if len(record) != _CENTRAL.size:
            raise BundleError("its directory is cut short")
        fields = _CENTRAL.unpack(record)
        crc32, size_bytes, name_bytes = fields[7], fields[8], fields[10]
        name = data[position + _CENTRAL.size : position + _CENTRAL.size + name_bytes]
        files.append((name.decode("utf-8", "replace"), crc32, size_bytes))
        position += _CENTRAL.size + name_bytes
    names = list(check_paths(path for path, _, _ in files))
    if names != canonical_order(names):
        raise BundleError("its files are not in the canonical order")
    entries = place(files)
    # What the parser does not look at (attributes, flags, times, offsets) is compared here at once.
    if directory(entries)[: -_END.size] != data or entries[-1].data_offset + entries[-1].size_bytes != (
        end.directory_offset
    ):
        raise BundleError("its directory is not in the canonical layout (damaged, or made by another tool)")
    return entries


def check_local(entry: Entry, header: bytes) -> None:
    """Raise BundleError unless what stands before an entry's contents is what the directory says.

    Two readers of a zip may each trust another one of the two; they must see the same file.

    Args:
        entry: From the directory.
        header: The bytes from ``entry.offset`` to ``entry.data_offset``.
    """
    if header != local_header(entry):
        raise BundleError(f"the header of {entry.path} contradicts the directory")


def _central(entry: Entry) -> bytes:
    name = entry.path.encode("ascii")
    header = _CENTRAL.pack(
        _CENTRAL_MAGIC,
        _MADE_BY,
        _VERSION,
        0,
        0,
        _TIME,
        _DATE,
        entry.crc32,
        entry.size_bytes,
        entry.size_bytes,
        len(name),
        0,
        0,
        0,
        0,
        _ATTRIBUTES,
        entry.offset,
    )
    return header + name
