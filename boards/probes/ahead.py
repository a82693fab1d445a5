"""Asks a slow probe ahead of time, so that nobody waits for its answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Answer = TypeVar("_Answer")


def asked_ahead(probe: Callable[[], _Answer]) -> Callable[[], _Answer]:
    """Return a function that returns a probe's last answer at once, and then has it asked anew.

    Each answer is as old as the call before. Only the first one is waited for, here.

    Args:
        probe: Must raise nothing; it is called in a thread of its own, never twice at a time.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="boardfit-probe")
    last = probe()
    asked = worker.submit(probe)

    def latest() -> _Answer:
        nonlocal last, asked
        if asked.done():
            last = asked.result()
            asked = worker.submit(probe)
        return last

    return latest
