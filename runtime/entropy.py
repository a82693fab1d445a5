"""Image entropy: how much there is to see in a frame, in bits.

H = -sum p_i log2 p_i over the 256 bins of the grey histogram (C. E. Shannon, "A Mathematical Theory
of Communication", 1948). Grey is an integer formula of our own, since OpenCV's BGR2GRAY changed its
constants between versions and differs between builds, and the bits decide the input size:

    grey = (29 B + 150 G + 77 R + 128) >> 8

``entropy_bits`` looks at the pixels ``frame[::step, ::step]``, where ``step`` is the smallest whole
number that leaves at most 26,000 of them (9 at 1920x1080, 4 at 640x480).
"""

from __future__ import annotations

from math import isqrt

import cv2
import numpy as np

GRID_PIXELS = 26_000
_BLOCK_PIXELS = 1 << 23  # calcHist counts in float32, which is exact below 2**24


def entropy_bits(frame: np.ndarray) -> float:
    """Return the entropy of a frame on the fixed grid.

    Args:
        frame: HxWx3 uint8 BGR.

    Returns:
        Bits, 0.0 (one grey) to 8.0.
    """
    step = grid_step(frame.shape[0], frame.shape[1])
    return _shannon_bits(grey_histogram(frame[::step, ::step]))


def exact_entropy_bits(frame: np.ndarray) -> float:
    """Return the entropy over every pixel of a frame.

    Args:
        frame: HxWx3 uint8 BGR.

    Returns:
        Bits, 0.0 (one grey) to 8.0.
    """
    return _shannon_bits(grey_histogram(frame))


def grid_step(height: int, width: int) -> int:
    """Return the smallest step whose grid has at most GRID_PIXELS pixels.

    Args:
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
    """
    # ceil(h/s) * ceil(w/s) >= h * w / s**2, so that no smaller step can do.
    step = max(1, isqrt(max(height * width - 1, 0) // GRID_PIXELS))
    while -(-height // step) * -(-width // step) > GRID_PIXELS:
        step += 1
    return step


def grey_histogram(frame: np.ndarray) -> np.ndarray:
    """Count the grey values of a frame.

    Args:
        frame: HxWx3 uint8 BGR, any strides.

    Returns:
        256 counts, float64 (whole numbers).
    """
    rows = max(1, _BLOCK_PIXELS // max(1, frame.shape[1]))
    counts = np.zeros(256, np.float64)
    for top in range(0, frame.shape[0], rows):
        grey = _grey(frame[top : top + rows])
        counts += cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel()
    return counts


def _grey(bgr: np.ndarray) -> np.ndarray:
    """Return (29 B + 150 G + 77 R + 128) >> 8 as a contiguous uint8 array; the sum fits 16 bits."""
    total = np.multiply(bgr[..., 0], 29, dtype=np.uint16)
    total += np.multiply(bgr[..., 1], 150, dtype=np.uint16)
    total += np.multiply(bgr[..., 2], 77, dtype=np.uint16)
    total += np.uint16(128)
    total >>= np.uint16(8)
    grey: np.ndarray = total.astype(np.uint8)
    return grey


def _shannon_bits(counts: np.ndarray) -> float:
    total = float(counts.sum())
    # An empty bin counts 0 * log2(1). Adding 0.0 turns the -0.0 of a frame of one grey into 0.0.
    return max(0.0, float(np.log2(total) - (counts * np.log2(np.maximum(counts, 1.0))).sum() / total)) + 0.0
