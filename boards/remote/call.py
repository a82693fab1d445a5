"""One program on this side: fed, read and watched until it ends."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO

_CHUNK = 1 << 16


class Overdue(Exception):
    """The program was stopped at its deadline."""


def call(
    words: Sequence[str],
    *,
    feed: Iterable[bytes] | None = None,
    on_out: Callable[[bytes], None],
    on_err: Callable[[bytes], None],
    timeout_s: float | None = None,
    given_up: Callable[[], bool] = lambda: False,
    abandon: Callable[[], None] = lambda: None,
) -> int:
    """Run a program to its end.

    Args:
        words: The program and its arguments.
        feed: What it gets on standard input; nothing if None. It may stop reading early.
        on_out: Gets pieces of standard output, in a thread of its own.
        on_err: The same for standard error, in another one.
        timeout_s: After so many seconds it is killed; None for never.
        given_up: Asked ten times a second; once it says true the program is killed.
        abandon: Called before the program is killed at its deadline or because of an exception here.

    Returns:
        Its exit status; negative if a signal ended it.

    Raises:
        Overdue: ``timeout_s`` was over.
    """
    # A session of its own: Ctrl-C in the terminal must reach us, who tidy up, and not the link.
    process = subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    threads = [
        threading.Thread(target=_drain, args=(process.stdout, on_out), daemon=True),
        threading.Thread(target=_drain, args=(process.stderr, on_err), daemon=True),
    ]
    if feed is not None:
        assert process.stdin is not None
        threads.append(threading.Thread(target=_feed, args=(process.stdin, feed), daemon=True))
    for thread in threads:
        thread.start()
    try:
        status = _wait(process, timeout_s, given_up)
    except BaseException:
        abandon()
        raise
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            # A grandchild may hold the pipe open after its parent's end.
            thread.join(timeout=5.0)
    return status


def _wait(process: subprocess.Popen[bytes], timeout_s: float | None, given_up: Callable[[], bool]) -> int:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            return process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            pass
        if deadline is not None and time.monotonic() > deadline:
            raise Overdue
        if given_up():
            process.kill()


def _drain(stream: IO[bytes], on_bytes: Callable[[bytes], None]) -> None:
    # read1 gives what is there; a board's lines come one by one.
    while piece := stream.read1(_CHUNK):  # type: ignore[attr-defined]
        on_bytes(piece)
    stream.close()


def _feed(stream: IO[bytes], pieces: Iterable[bytes]) -> None:
    # It went away, or the file cannot be read: the exit status, or the hash, says so.
    with contextlib.suppress(OSError):
        for piece in pieces:
            stream.write(piece)
    with contextlib.suppress(OSError):
        stream.close()


class Lines:
    """Puts pieces of a stream together to lines."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line = on_line
        self._all = bytearray()
        self._told = 0

    def __call__(self, piece: bytes) -> None:
        """Take the next piece."""
        self._all += piece
        while self._on_line is not None and (end := self._all.find(b"\n", self._told)) >= 0:
            line = self._all[self._told : end].decode("utf-8", "replace")
            self._told = end + 1
            self._on_line(line)

    @property
    def text(self) -> str:
        """All that came, as UTF-8; what is none is replaced."""
        return self._all.decode("utf-8", "replace")
