"""A camera that needs none: a square wanders over noise. For tests, demonstrations, soaks."""

from __future__ import annotations

import time

import numpy as np


class SyntheticDevice:
    """Makes pictures at a steady rate."""

    def __init__(self, *, size_wh: tuple[int, int] = (640, 480), fps: float = 30.0) -> None:
        """Draw the background.

        Args:
            size_wh: Width and height in pixels.
            fps: Pictures per second; 0 for as many as are taken.
        """
        width, height = size_wh
        noise = np.random.RandomState(0).randint(0, 64, (height + 16, width + 16, 3))
        slope = np.linspace(32, 160, width + 16)[None, :, None]
        self._ground = (noise + slope).astype(np.uint8)
        self._size_wh = size_wh
        self._interval_s = 1.0 / fps if fps > 0.0 else 0.0
        self._due = time.monotonic()
        self._count = 0

    def read(self) -> object:
        """Return the next picture, when it is due; see ``Device.read``."""
        self._due = max(self._due + self._interval_s, time.monotonic() - 1.0)
        time.sleep(max(0.0, self._due - time.monotonic()))
        image = picture(self._ground, self._size_wh, self._count)
        self._count += 1
        return image

    def close(self) -> None:
        """Nothing is held."""


def picture(ground: np.ndarray, size_wh: tuple[int, int], index: int) -> np.ndarray:
    """Return one picture.

    Args:
        ground: (H+16)x(W+16)x3 uint8, of which each picture shows another part.
        size_wh: W and H in pixels.
        index: Which picture.

    Returns:
        HxWx3 uint8 BGR, in memory of its own.
    """
    width, height = size_wh
    dy, dx = (7 * index) % 16, (11 * index) % 16
    image = ground[dy : dy + height, dx : dx + width].copy()
    side = max(1, min(width, height) // 6)
    left, top = 3 * index % max(1, width - side), 2 * index % max(1, height - side)
    image[top : top + side, left : left + side] = (40, 200, 250)
    return image
