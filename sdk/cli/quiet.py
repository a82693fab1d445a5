"""Engine libraries write their start-up notes past Python, on the process's own stderr: not here."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TextIO


@contextmanager
def quiet_engines() -> Iterator[None]:
    """Keep what libraries write on stderr from it; an error inside brings it back, as BOARDFIT_DEBUG does.

    What Python writes on ``sys.stderr`` appears as ever; what libraries write as the process exits does not.
    """
    if os.environ.get("BOARDFIT_DEBUG", "") not in ("", "0"):
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # closed, as a daemon's may be
        yield
        return
    _leave_quietly()
    before = sys.stderr
    with tempfile.TemporaryFile() as notes, os.fdopen(kept, "w", closefd=True) as still_here:
        if _is_on_2(before):
            sys.stderr = still_here
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            _bring_back(notes.fileno(), still_here)
            raise
        finally:
            still_here.flush()
            os.dup2(kept, 2)
            sys.stderr = before


def _is_on_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):  # it is none of the system's, such as a test's
        return False


@cache
def _leave_quietly() -> None:
    """Close stderr after all that Python has to say: LiteRT writes about its end as well."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def _bring_back(notes: int, there: TextIO) -> None:
    os.lseek(notes, 0, os.SEEK_SET)
    with os.fdopen(os.dup(notes), errors="replace") as lines:
        shutil.copyfileobj(lines, there)
