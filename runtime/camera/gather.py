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

    def take(self, most: int, timeout_s: float, *, newer_within_s: float = 0.0) -> list[Frame]:
        """Return the newest frames that are there, at most one of each source.

        Args:
            most: How many frames at most.
            timeout_s: How long to wait where there is none.
            newer_within_s: How long to wait, for all of them together, where there are some but newer ones
                are due within that time.
        """
        self._news.clear()
        self._await_newer(most, newer_within_s)
        frames = self._there(most)
        if not frames and not self.ended and self._news.wait(timeout_s):
            frames = self._there(most)
        return frames

    def _await_newer(self, most: int, within_s: float) -> None:
        """Wait where those that will be taken have newer frames to come in a moment."""
        until = time.monotonic() + within_s
        slots = [self._sources[index].slot for index in self._in_turn()]
        for slot in [slot for slot in slots if not slot.is_empty()][:most]:
            slot.await_newer(max(0.0, until - time.monotonic()))

    def _there(self, most: int) -> list[Frame]:
        frames: list[Frame] = []
        for index in self._in_turn():
            frame = self._sources[index].take(0.0)
            if frame is not None:
                frames.append(frame)
                self._next = (index + 1) % len(self._sources)
                if len(frames) == most:
                    break
        return frames

    def _in_turn(self) -> list[int]:
        count = len(self._sources)
        return [(self._next + step) % count for step in range(count)]
