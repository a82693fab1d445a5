"""A training's log as TensorBoard reads it: an event file of scalars, written without TensorBoard.

The file is a row of TFRecords (https://www.tensorflow.org/tutorials/load_data/tfrecord): length, its
checksum, a message, its checksum. The messages are ``Event`` of tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from boardfit.converters.compress.checkpoint import EpochRecord

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
_CASTAGNOLI = 0x82F63B78


def write_events(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Bring the event file of a folder up to date; a file that agrees so far is continued.

    A TensorBoard that shows the folder reads on where it was: what lies in the file stays where it is.

    Args:
        folder: Of the log; it exists.
        history: The epochs so far.

    Raises:
        OSError: The file cannot be written.
    """
    if not history:
        return
    found = sorted(folder.glob("events.out.tfevents.*.boardfit"))
    began = int(time.time() - sum(record.seconds for record in history))
    path = found[-1] if found else folder / f"events.out.tfevents.{began}.boardfit"
    wanted = b"".join(_records(float(path.name.split(".")[-2]), history))
    held = path.read_bytes() if found else b""
    # After a kill the file may be ahead of the checkpoint, or end inside a record.
    same = held if wanted.startswith(held) else b""
    with path.open("r+b" if found else "xb") as file:
        file.truncate(len(same))
        file.seek(len(same))
        file.write(wanted[len(same) :])


def _records(began: float, history: Sequence[EpochRecord]) -> Iterator[bytes]:
    yield _record(_field(1, _DOUBLE, struct.pack("<d", began)) + _text(3, b"brain.Event:2"))
    seconds = 0.0
    for epoch in history:
        seconds += epoch.seconds
        values = {**epoch.metrics, "images_per_s": epoch.images_per_s}
        summary = b"".join(
            _text(1, _text(1, name.encode()) + _field(2, _FLOAT, struct.pack("<f", value)))
            for name, value in sorted(values.items())
        )
        wall_time = _field(1, _DOUBLE, struct.pack("<d", began + seconds))
        yield _record(wall_time + _field(2, _VARINT, _varint(epoch.epoch)) + _text(5, summary))


def _record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return length + _masked_crc(length) + message + _masked_crc(message)


def _text(number: int, data: bytes) -> bytes:
    return _field(number, _BYTES, _varint(len(data)) + data)


def _field(number: int, kind: int, data: bytes) -> bytes:
    """Return a field of a protocol buffer (https://protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | kind) + data


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _masked_crc(data: bytes) -> bytes:
    """Return the CRC-32C (RFC 3720) of bytes, masked as TFRecords want it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
