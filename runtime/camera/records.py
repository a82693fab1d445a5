"""What flows out of a camera: frames, and events that say how it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from boardfit.errors import RecipeError

LIVE = "live"
"""Good frames come."""
UNPLUGGED = "unplugged"
"""The camera or its server is gone: opening or reading fails."""
STALLED = "stalled"
"""The camera is open, but no frame comes."""
FROZEN = "frozen"
"""The same frame comes over and over, bit for bit."""
GARBAGE = "garbage"
"""What comes is no picture, or is all of one colour after pictures that were not."""
WRONG_SIZE = "wrong-size"
"""Frames come in another size than before, or than was asked for."""
STUCK = "stuck"
"""The driver does not come back from a call: its thread was given up, and another one opens the camera."""
ENDED = "ended"
"""The file is over."""

LONGEST_S = 100 * 365 * 86400.0
"""A century: in the place of infinity, which no clock can wait for."""
LEAST_FPS = 1.0 / 86400.0
"""One frame a day."""
_SILENT_GAPS = 2.5
"""Between frames, for which a slow camera may be silent."""

FAULTS = (UNPLUGGED, STALLED, FROZEN, GARBAGE, WRONG_SIZE)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        image: HxWx3 uint8 BGR.
        time_s: When it arrived, in seconds of ``time.monotonic``.
        index: Number among the source's good frames, from 0; dropped ones count.
        source: Name of the source, without any password.
    """

    image: np.ndarray
    time_s: float
    index: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A change that somebody may want to know of.

    Attributes:
        kind: One of a camera's states (``live``, ``unplugged``, ``stalled``, ``frozen``, ``garbage``,
            ``wrong-size``, ``ended``), ``stuck``, or what a loop tells of itself: ``size-limit``,
            ``sink-failed``, ``sink-works``, ``frame-failed``.
        time_s: Of ``time.monotonic``.
        source: Name of the source or sink.
        detail: A sentence for people.
    """

    kind: str
    time_s: float
    source: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """When a camera counts as faulty, and how it is opened again.

    Attributes:
        stall_s: Seconds without a frame; None for a source that has its own pace. A slow camera has time
            for two and a half of its usual gaps.
        frozen_s: Seconds of the same frame, likewise; None where still pictures, and those of one colour,
            are in order. Frames of a frozen camera are held back.
        first_frame_s: Seconds that an opened camera has for its first frame.
        patience_s: Seconds that an open camera may go on being faulty before it is opened again; None for
            a file, which would begin anew.
        retry_s: First and longest pause between two attempts to open; each is doubled and shaken by a
            quarter, so that many devices do not come back in step.
        stuck_s: Seconds after which a driver that does not return from reading is given up with its thread;
            a slow camera's likewise.
        open_s: The same for opening, and for reading the first frame.
        size_wh: The only size in pixels to take; None for that of the first frame.
        one_size: Whether all frames must be of one size.
    """

    stall_s: float | None = 0.7
    frozen_s: float | None = 0.7
    first_frame_s: float = 3.0
    patience_s: float | None = 0.8
    retry_s: tuple[float, float] = (0.1, 0.5)
    stuck_s: float = 3.5
    open_s: float = 8.0
    size_wh: tuple[int, int] | None = None
    one_size: bool = True

    def __post_init__(self) -> None:
        seconds = {"stall_s": self.stall_s, "frozen_s": self.frozen_s, "first_frame_s": self.first_frame_s}
        seconds |= {"patience_s": self.patience_s, "stuck_s": self.stuck_s}
        seconds |= {"open_s": self.open_s, "retry_s": min(self.retry_s), "retry_s[1]": max(self.retry_s)}
        for name, value in seconds.items():
            if value is not None and not 0.0 < value <= LONGEST_S:
                raise RecipeError(
                    f"{name} is {value!r}: expected more than 0 and at most {LONGEST_S:g} seconds (a century)"
                )
        if self.retry_s[0] > self.retry_s[1]:
            raise RecipeError(f"retry_s is {self.retry_s!r}: expected the shorter pause first")
        if self.size_wh is not None and min(self.size_wh) < 1:
            raise RecipeError(f"size_wh is {self.size_wh!r}: expected width and height in pixels")

    def for_rate(self, fps: float | None) -> WatchSettings:
        """Return the same for a camera of so many frames a second: one that is slow is given longer.

        Args:
            fps: None where nobody knows.

        Raises:
            RecipeError: It is less than one frame a day, or not finite.
        """
        require_rate(fps)
        silent_s = silence_s(fps)
        return replace(
            self,
            stall_s=None if self.stall_s is None else max(self.stall_s, silent_s),
            frozen_s=None if self.frozen_s is None else max(self.frozen_s, silent_s),
            first_frame_s=max(self.first_frame_s, silent_s),
            stuck_s=max(self.stuck_s, 1.5 * silent_s),
            open_s=max(self.open_s, 2.0 * silent_s),
        )


def require_rate(fps: float | None) -> None:
    """Check the frames per second of a camera or folder.

    Raises:
        RecipeError: They are less than one a day, or not finite.
    """
    if fps is not None and not LEAST_FPS <= fps < math.inf:
        raise RecipeError(f"fps is {fps!r}: expected frames per second, at least 1/86400 (one a day)")


def silence_s(fps: float | None) -> float:
    """Return for how long a camera of so many frames a second may be silent; 0 where nobody knows."""
    return _SILENT_GAPS / fps if fps else 0.0
