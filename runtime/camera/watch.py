"""Tells a healthy camera from an unplugged, stalled, frozen or garbled one. Pure: the clock is passed in."""

from __future__ import annotations

import random
from collections import Counter
from zlib import crc32

import numpy as np

from boardfit.runtime.camera.devices.pace import Gaps
from boardfit.runtime.camera.records import (
    ENDED,
    FAULTS,
    FROZEN,
    GARBAGE,
    LIVE,
    STALLED,
    UNPLUGGED,
    WRONG_SIZE,
    Event,
    WatchSettings,
)

_OPENING = "opening"
_REFUSED_S = 30.0
"""The longest pause where the login is refused: servers lock out who asks twice a second."""
_TELL_AGAIN_S = 60.0
"""Before another reason for the same state is an event."""
_ROWS = 16
"""Rows of a frame that are compared first: a camera's noise is in all of them."""


class Watch:
    """The state of one camera. Its owner tells it what happens, and asks what to do.

    Attributes:
        state: ``opening``, ``live``, ``ended``, or one of FAULTS.
        counters: How often each state was entered.
        detail: Of the last event.
        events: Changes of state that the owner has not fetched yet.
    """

    def __init__(
        self, settings: WatchSettings, *, source: str, now: float, dice: random.Random | None = None
    ) -> None:
        """Begin with a camera that is not open.

        Args:
            settings: When a camera counts as faulty.
            source: Name for the events.
            now: Seconds of the owner's clock, as in every method.
            dice: Shakes the pauses; a fresh one if None.
        """
        self.state = _OPENING
        self.counters: Counter[str] = Counter()
        self.detail = ""
        self.events: list[Event] = []
        self._settings = settings
        self._source = source
        self._dice = dice or random.Random()
        self._is_open = False
        self._since = now
        self._opened_at = now
        self._last_frame: float | None = None
        self._gaps = Gaps()
        self._changed_at = now
        self._failures = self._refusals = 0
        self._told_at = now
        self._size_wh = settings.size_wh
        self._textured = False
        self._print = _Print()

    def opened(self, now: float) -> None:
        """Note that the camera was opened."""
        self._is_open = True
        self._opened_at = self._changed_at = now
        self._size_wh = self._settings.size_wh

    def failed(self, now: float, detail: str, *, refused: bool = False) -> None:
        """Note that opening or reading failed. What read nothing after a stall stays stalled.

        Args:
            now: Seconds.
            detail: Why, for people.
            refused: Whether the user and password were refused: the pauses get long.
        """
        self._refusals = self._refusals + 1 if refused else 0
        if not (self.state == STALLED and self._is_open):
            self._enter(UNPLUGGED, now, detail)
        self.closed()

    def closed(self) -> None:
        """Note that the camera was closed."""
        self._is_open = False
        self._last_frame = None
        self._failures += 1

    def saw(self, image: object, now: float) -> bool:
        """Judge what was read.

        Args:
            image: Anything; good is HxW, HxWx1, HxWx3 or HxWx4 uint8.
            now: Seconds.

        Returns:
            Whether to hand it on.
        """
        if self._last_frame is not None:
            self._gaps.add(now - self._last_frame)
        self._last_frame = now
        fault = self._fault_in(image)
        if fault:
            self._enter(GARBAGE, now, fault)
            return False
        assert isinstance(image, np.ndarray)
        size_wh = (image.shape[1], image.shape[0])
        self._size_wh = self._size_wh or size_wh
        if size_wh != self._size_wh and self._settings.one_size:
            expected = "x".join(map(str, self._size_wh))
            self._enter(
                WRONG_SIZE, now, f"a frame of {size_wh[0]}x{size_wh[1]} pixels where {expected} are due"
            )
            return False
        if self._is_frozen(image, now):
            self._enter(FROZEN, now, "the same frame over and over")
            return False
        if self.state == LIVE:  # the frame before was taken in, too
            self._failures = 0
        self._enter(
            LIVE, now, "" if self.state == _OPENING else f"after {now - self._since:.1f} s {self.state}"
        )
        return True

    def tick(self, now: float) -> None:
        """Notice what does not happen; to be called several times a second."""
        stall_s = self._settings.stall_s
        if not self._is_open or stall_s is None or self.state == STALLED:
            return
        last = self._last_frame
        silent_s = now - (self._opened_at if last is None else last)
        if silent_s >= (self._settings.first_frame_s if last is None else max(stall_s, self.silence_s())):
            self._enter(STALLED, now, f"no frame for {silent_s:.1f} s")

    def silence_s(self) -> float:
        """Return for how long nothing may come, by the usual gap between the last frames; 0 if unknown."""
        return self._gaps.silence_s()

    def should_reopen(self, now: float) -> bool:
        """Return whether an open camera has been faulty for so long that it is to be opened again."""
        patience_s = self._settings.patience_s
        if self.state not in FAULTS or patience_s is None:
            return False
        return now - max(self._since, self._opened_at) >= patience_s

    @property
    def has_frames(self) -> bool:
        """Whether the camera is open, and anything came since."""
        return self._last_frame is not None

    def pause_s(self) -> float:
        """Return how long to wait before the next attempt to open."""
        first, longest = self._settings.retry_s
        if self._refusals:
            longest = max(longest, _REFUSED_S)
        failures = self._refusals or self._failures
        doubled = min(longest, first * 2.0 ** min(max(failures - 1, 0), 20))
        return doubled * self._dice.uniform(0.75, 1.25)

    def ended(self, now: float) -> None:
        """Note that the source is over."""
        self._is_open = False
        self._enter(ENDED, now, "")

    def _fault_in(self, image: object) -> str:
        """Return why something is no picture; empty if it is one."""
        if not isinstance(image, np.ndarray):
            return f"a {type(image).__name__} instead of a picture"
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
            return f"an array of {image.dtype} with the shape {image.shape} instead of a picture"
        if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
            return f"a picture of {image.shape[2]} channels"
        sample = image[:: max(1, image.shape[0] // 32), :: max(1, image.shape[1] // 32)]
        if bool((sample != sample[0, 0]).any()):
            self._textured = True
        elif self._textured and self._settings.frozen_s is not None:
            # No sensor does this, with its lens covered either; a dead bridge and a lost key frame do.
            return "a picture of one colour only"
        return ""

    def _is_frozen(self, image: np.ndarray, now: float) -> bool:
        if self._settings.frozen_s is None:
            return False
        if not self._print.is_same(image):
            self._changed_at = now
            return False
        # Opened again and still the same picture: nothing is better yet.
        frozen_s = max(self._settings.frozen_s, self.silence_s())
        return self.state == FROZEN or now - self._changed_at >= frozen_s

    def _enter(self, state: str, now: float, detail: str) -> None:
        if state == self.state:
            if state not in FAULTS or detail == self.detail or now - self._told_at < _TELL_AGAIN_S:
                return
        else:
            self.state, self._since = state, now
            self.counters[state] += 1
        self._told_at, self.detail = now, detail
        self.events.append(Event(state, now, self._source, detail))


class _Print:
    """Remembers the last picture by two checksums: one of a few rows, and one of all where those agree."""

    def __init__(self) -> None:
        self._few: int | None = None
        self._all: int | None = None

    def is_same(self, image: np.ndarray) -> bool:
        """Return whether a picture is the one before, and remember it."""
        few = crc32(np.ascontiguousarray(image[:: max(1, image.shape[0] // _ROWS)]).data)
        if few != self._few:
            self._few, self._all = few, None
            return False
        before, self._all = self._all, crc32(np.ascontiguousarray(image).data)
        return before is None or before == self._all
