"""The hand-over from the capture thread: the newest frame, or every one."""

from __future__ import annotations

import threading
import time
from collections import deque

from boardfit.runtime.camera.records import Frame

_TICK_S = 0.1
_WEIGHT = 0.2
"""Of the newest gap between two frames in their running mean."""


class Slot:
    """Holds one frame, the newest: an older one gives way and is counted. Or, lossless, a few, and waits.

    Attributes:
        dropped: Frames that gave way.
        news: Set whenever a frame comes or the slot is closed, for one who waits for several slots.
    """

    def __init__(self, *, lossless: bool = False) -> None:
        """Make an empty slot.

        Args:
            lossless: Whether ``put`` waits for room instead of dropping.
        """
        self.dropped = 0
        self.news = threading.Event()
        self._lossless = lossless
        self._capacity = 4 if lossless else 1
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._newest_came_s: float | None = None
        self._gap_s: float | None = None

    def put(self, frame: Frame) -> None:
        """Hand over a frame; after ``close`` it is dropped."""
        with self._changed:
            while self._lossless and len(self._frames) >= self._capacity and not self._closed:
                self._changed.wait(_TICK_S)
            if self._closed:
                return
            if len(self._frames) >= self._capacity:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
            self._note_gap(frame.time_s)
            self._changed.notify_all()
        self.news.set()

    def take(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None if none comes in time or the slot is closed and empty."""
        with self._changed:
            if not self._frames and not self._closed and timeout_s > 0.0:
                self._changed.wait(timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def await_newer(self, within_s: float) -> None:
        """Where there is a frame, but a newer one is due, wait for that.

        When one is due is taken from the gaps between the last ones. One that is late by more than a gap is
        not waited for, nor is any where every frame counts.

        Args:
            within_s: For how long at most, in seconds.
        """
        with self._changed:
            if self._frames and not self._closed and self._is_due(within_s):
                self._changed.wait(within_s)

    def is_empty(self) -> bool:
        """Return whether no frame is waiting."""
        return not self._frames

    def close(self) -> None:
        """Let nobody wait any more; frames that are there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.news.set()

    def _note_gap(self, came_s: float) -> None:
        if self._newest_came_s is not None:
            gap_s = came_s - self._newest_came_s
            before_s = gap_s if self._gap_s is None else self._gap_s
            self._gap_s = before_s + _WEIGHT * (gap_s - before_s)
        self._newest_came_s = came_s

    def _is_due(self, within_s: float) -> bool:
        if self._lossless or self._newest_came_s is None or self._gap_s is None:
            return False
        since_s = time.monotonic() - self._newest_came_s
        return self._gap_s - within_s <= since_s <= 2.0 * self._gap_s
