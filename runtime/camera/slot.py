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
        self._newest_s: float | None = None
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

    def take(self, timeout_s: float, newer_within_s: float = 0.0) -> Frame | None:
        """Return the next frame, or None if none comes in time or the slot is closed and empty.

        Args:
            timeout_s: How long to wait where there is none.
            newer_within_s: How long to wait where there is one, but a newer one is due within that time.
        """
        with self._changed:
            if not self._closed:
                if not self._frames and timeout_s > 0.0:
                    self._changed.wait(timeout_s)
                elif self._frames and self._is_due(newer_within_s):
                    self._changed.wait(newer_within_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

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
        if self._newest_s is not None:
            gap_s = came_s - self._newest_s
            before_s = gap_s if self._gap_s is None else self._gap_s
            self._gap_s = before_s + _WEIGHT * (gap_s - before_s)
        self._newest_s = came_s

    def _is_due(self, within_s: float) -> bool:
        """Return whether a newer frame should come within some time; never of frames that all count."""
        if within_s <= 0.0 or self._lossless or self._newest_s is None or self._gap_s is None:
            return False
        return self._newest_s + self._gap_s <= time.monotonic() + within_s
