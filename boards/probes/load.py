"""How busy is the machine, and how much of that is others' work?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from boardfit.boards.system import read_text


def read_load(root: Path) -> float | None:
    """Return the runnable tasks, averaged over a minute.

    Args:
        root: Folder that holds ``proc``.
    """
    first = (read_text(root / "proc/loadavg") or "").partition(" ")[0]
    return float(first) if re.fullmatch(r"\d{1,9}\.\d{1,9}", first) else None


class BusyShare:
    """Remembers the processor times of the read before."""

    def __init__(self, root: Path, own_cpu_s: Callable[[], float]) -> None:
        """Begin; the first read tells nothing.

        Args:
            root: Folder that holds ``proc``.
            own_cpu_s: Processor time of this process in seconds.
        """
        self._file = root / "proc/stat"
        self._own_cpu_s = own_cpu_s
        self._before: tuple[float, float, float] | None = None

    def read(self) -> float | None:
        """Return the share of all cores' time, 0 to 1, that others took since the read before."""
        before, now = self._before, self._times_s()
        self._before = now
        if before is None or now is None:
            return None
        all_s, busy_s, own_s = (new - old for new, old in zip(now, before, strict=True))
        return min(max((busy_s - own_s) / all_s, 0.0), 1.0) if all_s > 0.0 else None

    def _times_s(self) -> tuple[float, float, float] | None:
        """Return the time of all cores since the boot, what of it was busy, and this process' own.

        Source: proc_stat(5). A guest's time is in its host's user time already.
        """
        name, *words = (read_text(self._file) or "-").partition("\n")[0].split()
        if name != "cpu" or len(words) < 4 or not all(re.fullmatch(r"\d{1,20}", word) for word in words):
            return None
        ticks = [int(word) for word in words[:8]]
        user_hz = os.sysconf("SC_CLK_TCK")
        idle = sum(ticks[3:5])
        return sum(ticks) / user_hz, (sum(ticks) - idle) / user_hz, self._own_cpu_s()
