"""Answers as a film: pictures with whatever is drawn on them."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from boardfit.errors import SinkError
from boardfit.runtime.camera.records import Event
from boardfit.runtime.camera.sinks import Answer
from boardfit.runtime.camera.sinks.rotate import numbered, rotate

_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_MOST_REPEATED = 50
_LOOK_S = 1.0
_STILL_PIXELS = 300_000_000
"""After which a film must have grown. FFmpeg writes every 256 KiB; of plain pictures, the shortest ones,
200 million pixels fill them (measured with mp4v, 640x480 and 1280x720, OpenCV 5.0)."""
_LATE_S = 10.0
"""For what was removed to be told as free; meanwhile it counts, while half of what must stay free is."""
_HOLD_S, _LONGEST_HOLD_S = 60.0, 3600.0
"""Before another part goes although the last one brought nothing."""
_HEAD_BYTES = 256
"""What is shorter has no picture."""


@dataclass(frozen=True, slots=True)
class _Removed:
    """Parts that went for room.

    Attributes:
        time_s: When.
        free_bytes: What was free before.
        bytes: Their length together.
        awaited_bytes: What is free and what the film holds, together, once the disk has told.
    """

    time_s: float
    free_bytes: int
    bytes: int
    awaited_bytes: float


class Recording:
    """Writes a film; a new one every ``part_s`` seconds, since a power cut costs an MP4 file as a whole.

    A .mkv or .avi file can be read to where the power went.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        real_time: bool = True,
        draw: Callable[[Answer], np.ndarray] | None = None,
        part_s: float = 600.0,
        keep: int = 4,
        min_free_bytes: int = 64_000_000,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Check the place; the file is made with the first answer, whose size it takes.

        Args:
            path: Of the film: .mp4, .mkv or .avi.
            fps: Frames per second at which it is played.
            real_time: Whether it plays at the speed of life, pictures being repeated or left out; else it has
                each answer once.
            draw: Makes the picture of an answer, HxWx3 uint8 BGR; None for the frame as it is.
            part_s: Seconds after which a new file is begun, earlier where it takes half of what the disk has
                for the film; ``math.inf`` for one file, a new one after an outage, and no older one is ever
                removed.
            keep: How many old files stay; with ``part_s=math.inf`` all.
            min_free_bytes: What must stay free on the disk: the oldest files of the film go for it, never the
                newest one.
            free_bytes: Tells what is free in a folder.

        Raises:
            SinkError: The name or the folder will not do.
        """
        self._path = Path(path)
        check_place(self._path)
        self._fps = fps
        self._real_time = real_time
        self._draw = draw
        self._part_s = part_s
        self._keep = keep
        self._min_free_bytes = min_free_bytes
        self._little_bytes = min_free_bytes // 64
        self._free_bytes = free_bytes
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._began_s = 0.0
        self._zero_s = 0.0  # when the first picture would have come, had there been no gaps
        self._count = 0
        self._removed: _Removed | None = None
        self._hold_s = _HOLD_S
        self._looked_at = 0.0
        self._length = self._pixels = 0

    def write(self, item: Answer | Event) -> None:
        """Append an answer's picture; see ``Sink.write``."""
        if isinstance(item, Event):
            return
        self._check_disk()
        picture = self._draw(item) if self._draw is not None else item.frame.image
        if self._writer is not None and item.frame.time_s - self._began_s >= self._part_s:
            self.close()
        if self._writer is None:
            self._begin(picture, item.frame.time_s)
        assert self._writer is not None
        if (picture.shape[1], picture.shape[0]) != self._size_wh:
            picture = np.asarray(cv2.resize(picture, self._size_wh, interpolation=cv2.INTER_AREA))
        for _ in range(self._repeats(item.frame.time_s)):
            self._writer.write(picture)
            self._pixels += picture.shape[0] * picture.shape[1]

    def close(self) -> None:
        """Finish the file.

        Raises:
            SinkError: Its end could not be written.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        before, there = _length(self._path), self._path.exists()  # it may be moved while it is written
        writer.release()
        # Every film ends with an index of its pictures.
        if there and _length(self._path) <= max(before, _HEAD_BYTES):
            self._remove_if_empty()
            raise SinkError(f"{self._path} does not grow any more: is the disk, or its quota, full?")

    def _begin(self, picture: np.ndarray, time_s: float) -> None:
        keep = self._keep
        if self._part_s == math.inf:  # to the first number that is free
            keep = next(number for number in count(1) if not numbered(self._path, number).exists())
        try:
            rotate(self._path, keep)
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written: {error.strerror}") from error
        self._size_wh = (picture.shape[1], picture.shape[0])
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._path), codec, self._fps, self._size_wh)
        if not writer.isOpened():
            writer.release()
            self._remove_if_empty()
            raise SinkError(f"{self._path} cannot be written: may this user write there?")
        self._writer = writer
        self._began_s = self._zero_s = time_s
        self._count = self._length = self._pixels = 0

    def _repeats(self, time_s: float) -> int:
        """Return how often a picture must be written to keep the time of day; after a gap, once."""
        if not self._real_time:
            return 1
        due = round((time_s - self._zero_s) * self._fps) + 1
        missing = due - self._count
        if missing > _MOST_REPEATED:  # an outage: it is not filmed
            self._zero_s += (missing - 1) / self._fps
            missing = 1
        missing = max(0, missing)
        self._count += missing
        return missing

    def _check_disk(self) -> None:
        """Finish the file while there is room to: OpenCV does not say when a disk is full."""
        now = time.monotonic()
        if self._writer is not None and now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        self._check_growth()
        free = self._make_room()
        if free < self._min_free_bytes:
            self.close()
            raise SinkError(
                f"the disk of {self._path} has {free / 1e6:.0f} MB left, and "
                f"{self._min_free_bytes / 1e6:.0f} MB stay free, so that other programs live"
            )
        room = free - self._min_free_bytes + self._held_bytes()
        if self._part_s < math.inf and _length(self._path) > max(room / 2, self._little_bytes):
            self.close()  # later, no older part would be left to make room

    def _make_room(self) -> int:
        """Remove the film's oldest parts where that brings enough room; return the bytes that are free.

        A disk may report late what became free, or never, where others have a part open or in a snapshot, or
        a quota is full. So the lengths count as free for a while. No other part goes before the disk has
        told, or a longer while is over, which doubles each time.
        """
        free = self._free_bytes(self._path.absolute().parent)
        room = free + self._held_bytes()  # the same however the film grows
        removed, now = self._removed, time.monotonic()
        if removed is not None:
            since_s = now - removed.time_s
            told = free != removed.free_bytes and room >= removed.awaited_bytes
            if told or removed.bytes < self._little_bytes:  # others write as much between two looks
                self._hold_s = _HOLD_S
            elif since_s < _LATE_S and 2 * free >= self._min_free_bytes:
                return free + removed.bytes
            elif since_s < self._hold_s:
                return free
            elif free < self._min_free_bytes:
                self._hold_s = min(2.0 * self._hold_s, _LONGEST_HOLD_S)
            self._removed = None
        if self._part_s == math.inf:
            return free
        lengths = self._old_parts()
        if free + sum(lengths.values()) < self._min_free_bytes:
            return free
        gone = 0
        for part, length in lengths.items():
            if free + gone >= self._min_free_bytes:
                break
            part.unlink()
            gone += length
            self._removed = _Removed(now, free, gone, room - gone / 2)  # others write too
        return free + gone

    def _held_bytes(self) -> int:
        """Return the length of the film's newest file, and of the old ones that can be removed for room."""
        return _length(self._path) + sum(self._old_parts().values())

    def _old_parts(self) -> dict[Path, int]:
        """Return the lengths of the old files, oldest first, but for those that have another name too."""
        parts = [numbered(self._path, number) for number in range(self._keep, 0, -1)]
        return {part: _length(part) for part in parts if part.exists() and part.stat().st_nlink == 1}

    def _check_growth(self) -> None:
        """Finish a file that does not grow: OpenCV does not say either that it cannot be written any more."""
        length = _length(self._path)
        if length > self._length:
            self._length, self._pixels = length, 0
        elif self._pixels > _STILL_PIXELS or not os.access(self._path, os.W_OK):
            self.close()

    def _remove_if_empty(self) -> None:
        """Remove a film without pictures: it would push an old part out, at each new attempt another one."""
        if _length(self._path) < _HEAD_BYTES:
            self._path.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Check where a film is to be written, which a command does before it opens any camera.

    Raises:
        SinkError: The name or the folder will not do.
    """
    if path.suffix.lower() not in _CODECS:
        raise SinkError(f"{path}: a film's name ends in {', '.join(_CODECS)}")
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV takes the process down
        raise SinkError(f"{str(path)!r} is not in UTF-8: give the film another name") from None
    if not path.absolute().parent.is_dir():
        raise SinkError(f"the folder of {path} does not exist: make it first")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
