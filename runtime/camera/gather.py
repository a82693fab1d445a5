"""Takes frames from one source, or from several in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boardfit.runtime.camera.records import Frame

if TYPE_CHECKING:
    from boardfit.runtime.camera.source import Source


class Gather:
    """The newest frames of some sources, fairly."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Take the sources; they share one signal from now on.

        Args:
            sources: At least one.
        """
        self._sources = list(sources)
        self._news = sources[0].slot.news
        for source in sources:
            source.slot.news = self._news
        self._next = 0

    @property
    def ended(self) -> bool:
        """Whether no source will give a frame any more."""
        return all(source.ended for source in self._sources)

    def take(self, most: int, timeout_s: float, newer_within_s: float) -> list[Frame]:
        """Return the newest frames that are there, at most one of each source.

        Args:
            most: How many frames at most.
            timeout_s: How long to wait where there is none.
            newer_within_s: How long to wait, for all of them together, where there are some but newer ones
                are due within that time.
        """
        self._news.clear()
        frames = self._there(most, newer_within_s)
        if not frames and not self.ended and self._news.wait(timeout_s):
            frames = self._there(most, 0.0)
        return frames

    def _there(self, most: int, newer_within_s: float) -> list[Frame]:
        until = time.monotonic() + newer_within_s
        count = len(self._sources)
        frames: list[Frame] = []
        begin = self._next
        for step in range(count):
            index = (begin + step) % count
            frame = self._sources[index].slot.take(0.0, until - time.monotonic())
            if frame is not None:
                frames.append(frame)
                self._next = (index + 1) % count
                if len(frames) == most:
                    break
        return frames
