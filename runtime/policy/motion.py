"""Motion reuse: where nothing moved, the last answer stands, for a while."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from boardfit.errors import RecipeError
from boardfit.runtime.preprocess import as_bgr
from boardfit.runtime.results import Result

_SIDE = 96
"""Frames are compared as grey pictures of at most so many pixels a side; averaged, so that noise cancels."""


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """When the last answer is reused.

    Attributes:
        moved_share: Share of the picture that must have changed for a new answer, 0.0 to 1.0.
        changed_grey: By how many grey levels a spot must differ to count as changed.
        max_age_s: How old the reused answer's frame may be.
    """

    moved_share: float = 0.02
    changed_grey: float = 12.0
    max_age_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.moved_share <= 1.0 or not 0.0 < self.changed_grey < 256.0:
            raise RecipeError(
                f"moved_share is {self.moved_share}, changed_grey {self.changed_grey}: expected more than 0, "
                "at most 1 and 255"
            )
        if not self.max_age_s > 0.0:
            raise RecipeError(f"max_age_s is {self.max_age_s}: expected more than 0 seconds")


class Motion:
    """Remembers the last frame that was answered, small and grey, with its answer."""

    def __init__(self, settings: MotionSettings | None = None) -> None:
        """Begin without an answer.

        Args:
            settings: When to reuse; the defaults if None.
        """
        self._settings = settings or MotionSettings()
        self._last: tuple[np.ndarray, float, Result] | None = None

    def reusable(self, image: np.ndarray, time_s: float) -> Result | None:
        """Return the last answer where it still stands, else None.

        Args:
            image: HxWx3 uint8 BGR.
            time_s: When it came.
        """
        if self._last is None:
            return None
        before, answered_s, result = self._last
        if time_s - answered_s > self._settings.max_age_s:
            return None
        now = small_grey(image)
        if now.shape != before.shape:
            return None
        share = moved_share(before, now, self._settings.changed_grey)
        return result if share < self._settings.moved_share else None

    def answered(self, image: np.ndarray, time_s: float, result: Result) -> None:
        """Remember a frame and its answer."""
        self._last = (small_grey(image), time_s, result)


def small_grey(image: np.ndarray) -> np.ndarray:
    """Return a frame as a small grey picture.

    Args:
        image: HxWx3 uint8 BGR.

    Returns:
        hxw uint8, the longer side 96 pixels at most.
    """
    bgr = as_bgr(image)
    height, width = bgr.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(
        cv2.cvtColor(cv2.resize(bgr, size_wh, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    )


def moved_share(before: np.ndarray, after: np.ndarray, changed_grey: float) -> float:
    """Return which share of a picture changed.

    The median change is taken off first: a cloud, or the camera's exposure, is no motion.

    Args:
        before: hxw uint8.
        after: hxw uint8.
        changed_grey: By how much a pixel must differ.
    """
    change = after.astype(np.int16) - before
    change -= np.int16(np.median(change))
    return float((np.abs(change) >= changed_grey).mean())
