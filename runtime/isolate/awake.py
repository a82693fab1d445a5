"""Waiting for the other process without sleeping, where what is awaited is near.

A core that slept is slow at first, and a thread that slept waits for the kernel to wake it: together
0.1 to 0.6 ms where it was measured (decision 0022).
"""

from __future__ import annotations

import os
import select
from time import monotonic


def comes_soon(poll: select.poll, until_s: float) -> bool:
    """Wait awake for something to read; return whether it came.

    Others that want this core get it, as far as the kernel's ``sched_yield`` does that. At real-time priority
    it would keep them from it: there nothing is waited for.

    Args:
        poll: What is awaited.
        until_s: When to stop, in seconds of ``time.monotonic``.
    """
    while not poll.poll(0):
        if monotonic() >= until_s or os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        os.sched_yield()
    return True
