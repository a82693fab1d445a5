"""Answers and events as JSON lines, in files that do not grow for ever."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from boardfit.errors import SinkError
from boardfit.runtime.camera.records import Event
from boardfit.runtime.camera.sinks import Answer
from boardfit.runtime.camera.sinks.rotate import rotate

_TAIL_BYTES = 1 << 20
_HEAD_BYTES = 4096


class JsonLines:
    """Writes one line per answer or event, flushed line by line, and to the disk every few seconds."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        top: int = 5,
        max_bytes: int = 64_000_000,
        keep: int = 4,
        sync_s: float = 5.0,
    ) -> None:
        """Open the file and mend its end: a line that a power cut tore is cut off.

        Args:
            path: Of the file; it is appended to. A pipe or device is written as it is, and never rotated.
            top: Classes per answer.
            max_bytes: Size at which a new file is begun.
            keep: How many old files stay.
            sync_s: Seconds between two writes to the disk itself.

        Raises:
            SinkError: The file cannot be written, or holds something else than JSON lines.
        """
        self._path = Path(path)
        if self._path.is_symlink() and self._path.is_file():
            self._path = self._path.resolve()  # /dev/stdout stays where it is when files are rotated
        self._top = top
        self._max_bytes = max_bytes
        self._keep = keep
        self._sync_s = sync_s
        self._synced_at = time.monotonic()
        self._file: IO[bytes] | None = None
        try:
            self._open()
        except OSError as error:
            raise SinkError(
                f"{self._path} cannot be written ({error.strerror}): choose another place"
            ) from error

    def write(self, item: Answer | Event) -> None:
        """Append a line; see ``Sink.write``."""
        line = _json(record(item, self._top)).encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            if self._regular and self._end and self._end + len(line) > self._max_bytes:
                self._rotate()
            self._append(line)
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Write everything to the disk and close."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # a pipe or a full disk: what could be written is
                os.fsync(file.fileno())
            file.close()

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        written = 0
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(28, "the disk is full")
        except OSError:
            # Half a line must not stand before the next whole one.
            if written:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._file.tell() - written)
            self.close()
            raise
        self._end += len(line)
        now = time.monotonic()
        if now - self._synced_at >= self._sync_s:
            self._synced_at = now
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())

    def _open(self) -> None:
        file = self._path.open("ab", buffering=0)
        try:
            # A pipe has no end to look up, and a device is not rotated.
            self._regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            self._end = file.tell() if self._regular else 0
            if self._end:
                self._mend_end(file)
        except BaseException:
            file.close()
            raise
        self._file = file

    def _mend_end(self, file: IO[bytes]) -> None:
        """Cut a torn last line off, and end one that lacks nothing but its end."""
        with self._path.open("rb") as old:
            head = old.read(_HEAD_BYTES)
            start = max(0, self._end - _TAIL_BYTES)
            old.seek(start)
            tail = old.read()
        if _is_own_output(file):  # what else the program says may stand there too
            if not tail.endswith(b"\n"):
                self._end += file.write(b"\n")
            return
        first = head.lstrip(b"\0\n").partition(b"\n")[0]  # zeros are what a power cut may leave
        if first and not (first.startswith(b'{"') or _is_record(first)):
            raise FileExistsError(errno.EEXIST, "it holds something else than JSON lines")
        last = tail.rfind(b"\n") + 1
        if (last == 0 and start > 0) or _is_record(tail[last:]):  # no line of ours is that long
            file.write(b"\n")
            self._end += 1
        elif start + last < self._end:
            self._end = start + last
            file.truncate(self._end)

    def _rotate(self) -> None:
        self.close()
        rotate(self._path, self._keep)
        self._open()


def _json(values: dict[str, Any]) -> str:
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False)
    except ValueError:  # NaN and infinity are no JSON: null
        strict = json.loads(json.dumps(values), parse_constant=lambda _: None)
        return json.dumps(strict, ensure_ascii=False)


def _is_own_output(file: IO[bytes]) -> bool:
    here = os.fstat(file.fileno())
    for number in (1, 2):
        with contextlib.suppress(OSError):  # it may be closed
            if os.path.samestat(here, os.fstat(number)):
                return True
    return False


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def record(item: Answer | Event, top: int) -> dict[str, Any]:
    """Return an answer or an event as JSON values, with the time of day at which it came."""
    monotonic = item.time_s if isinstance(item, Event) else item.frame.time_s
    when = {"time": round(time.time() - (time.monotonic() - monotonic), 3)}
    if isinstance(item, Event):
        return {**when, "event": item.kind, "source": item.source, "detail": item.detail}
    result = item.result
    return {
        **when,
        "source": item.frame.source,
        "frame": item.frame.index,
        "age_s": round(item.age_s, 6),
        "reused": item.reused,
        "top": [asdict(best) for best in result.top(top)],
        "outputs": {key: list(array.shape) for key, array in result.named.items()},
        "size": result.size,
        "looks": list(result.looks),
        "entropy_bits": result.entropy_bits,
        "timings": asdict(result.timings),
    }
