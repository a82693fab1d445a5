"""How long a read may wait for a picture."""

from __future__ import annotations

import time

from boardfit.runtime.camera.records import silence_s

_LEAST_S = 1.0
_UNKNOWN_S = 2.0


class Pace:
    """Follows a camera's gaps: two seconds until one is known, then a second or what that gap allows."""

    def __init__(self, fps: float | None) -> None:
        """Begin with a camera that gave nothing yet.

        Args:
            fps: Frames per second, where they are known; slow ones are given longer.
        """
        self._least_s = max(_LEAST_S, silence_s(fps))
        self._came_s: float | None = None
        self._gap_s: float | None = None

    def wait_s(self) -> float:
        """Return for how many seconds to wait for the next picture."""
        known = _UNKNOWN_S if self._gap_s is None else silence_s(1.0 / self._gap_s)
        return max(self._least_s, known)

    def came(self) -> None:
        """Note that a picture came."""
        now = time.monotonic()
        if self._came_s is not None:
            self._gap_s = max(1e-3, now - self._came_s)
        self._came_s = now
