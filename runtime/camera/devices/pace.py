"""How long a camera may be silent, by the gaps between its pictures."""

from __future__ import annotations

import time
from collections import deque
from statistics import median_low

from boardfit.runtime.camera.records import silence_s

_LEAST_S = 1.0
_UNKNOWN_S = 2.0
_GAPS_KEPT = 7
"""Their median is no outage's, nor is it that of a camera that was faster a while ago."""


class Gaps:
    """The last gaps between a camera's pictures."""

    def __init__(self) -> None:
        """Begin with none."""
        self._seconds: deque[float] = deque(maxlen=_GAPS_KEPT)

    def add(self, seconds: float) -> None:
        """Note a gap."""
        self._seconds.append(seconds)

    def silence_s(self) -> float:
        """Return for how long nothing may come, by the usual gap; 0 if unknown."""
        gap_s = median_low(self._seconds) if len(self._seconds) > 1 else 0.0
        return silence_s(1.0 / gap_s) if gap_s > 0.0 else 0.0


class Pace:
    """Lets a read wait: two seconds until the usual gap is known, then a second or what that gap allows."""

    def __init__(self, fps: float | None) -> None:
        """Begin with a camera that gave nothing yet.

        Args:
            fps: Frames per second, where they are known; slow ones are given longer.
        """
        self._least_s = max(_LEAST_S, silence_s(fps))
        self._came_s: float | None = None
        self._gaps = Gaps()

    def wait_s(self) -> float:
        """Return for how many seconds to wait for the next picture."""
        return max(self._least_s, self._gaps.silence_s() or _UNKNOWN_S)

    def came(self) -> None:
        """Note that a picture came."""
        now = time.monotonic()
        if self._came_s is not None:
            self._gaps.add(now - self._came_s)
        self._came_s = now
