"""The resizes of an ImageSpec, each with one definition that calibration and runtime share.

``area``
    Reducing: the mean over each output pixel's area (``cv2.INTER_AREA``). Enlarging: ``linear``,
    since what OpenCV does under the name of area when it enlarges is close to nearest neighbour.
``linear``, ``cubic``
    ``cv2.INTER_LINEAR`` and ``cv2.INTER_CUBIC`` (a = -0.75). Neither antialiases.
``pil-bicubic``
    Pillow's ``Image.resize(..., BICUBIC)``: a = -0.5, support widened by the reduction, columns first,
    8-bit rounding between the passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

# OpenBLAS starts its threads above about this many multiplications of one product. They would fight
# with the engine's threads for the cores: 64 ms instead of 0.6 ms was seen on a busy 2-core machine.
_PRODUCT_SIZE = 1 << 18


def resize_square(square: np.ndarray, size: int, *, resize: str) -> np.ndarray:
    """Resize a square image.

    Args:
        square: NxNx3 uint8, rows may be strided.
        size: Side of the result in pixels.
        resize: ``area``, ``linear``, ``cubic`` or ``pil-bicubic``.

    Returns:
        size x size x 3 uint8; the input itself where the sides are equal.
    """
    if square.shape[0] == size:
        return square
    return _RESIZES[resize](square, size)


def _area(square: np.ndarray, size: int) -> np.ndarray:
    reduces = square.shape[0] > size
    return _by_opencv(square, size, cv2.INTER_AREA if reduces else cv2.INTER_LINEAR)


def _linear(square: np.ndarray, size: int) -> np.ndarray:
    return _by_opencv(square, size, cv2.INTER_LINEAR)


def _cubic(square: np.ndarray, size: int) -> np.ndarray:
    return _by_opencv(square, size, cv2.INTER_CUBIC)


def _by_opencv(square: np.ndarray, size: int, flag: int) -> np.ndarray:
    resized: np.ndarray = cv2.resize(square, (size, size), interpolation=flag)
    return resized


def _pil_bicubic(square: np.ndarray, size: int) -> np.ndarray:
    """Run Pillow's two passes as products with a banded matrix, columns first.

    Each pass runs over the rows of a matrix, where memory is contiguous, hence the transposes.
    """
    side = square.shape[0]
    bands = _bands(side, size)
    columns = cv2.transpose(square).reshape(side, side * 3)
    narrow = cv2.transpose(_reduce_rows(columns, bands, size).reshape(size, side, 3))
    return _reduce_rows(narrow.reshape(side, size * 3), bands, size).reshape(size, size, 3)


_RESIZES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "area": _area,
    "linear": _linear,
    "cubic": _cubic,
    "pil-bicubic": _pil_bicubic,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Band:
    """A few neighbouring output rows: ``out[top:bottom] = weights @ rows[first:last]``."""

    top: int
    bottom: int
    first: int
    last: int
    weights: np.ndarray


def _reduce_rows(rows: np.ndarray, bands: tuple[_Band, ...], size: int) -> np.ndarray:
    """Return the (size, M) uint8 rows made of (N, M) uint8 rows, rounded and clipped like Pillow."""
    width = rows.shape[1]
    out = np.empty((size, width), np.uint8)
    for band in bands:
        chunk = max(1, _PRODUCT_SIZE // band.weights.size)
        pieces = -(-width // chunk)
        chunk = -(-width // pieces)
        for left in range(0, width, chunk):
            source = rows[band.first : band.last, left : left + chunk].astype(np.float32)
            mixed = band.weights @ source
            mixed += np.float32(0.5)
            np.clip(mixed, 0.0, 255.0, out=mixed)
            out[band.top : band.bottom, left : left + chunk] = mixed
    return out


@lru_cache(maxsize=64)
def _bands(side: int, size: int) -> tuple[_Band, ...]:
    """Cut the (size, side) matrix of weights into blocks of rows without its zeros."""
    matrix, first, last = _weights(side, size)
    height = 16
    while height > 4 and height * (last[min(height, size) - 1] - first[0]) * side * 3 > _PRODUCT_SIZE:
        height //= 2
    bands = []
    for top in range(0, size, height):
        bottom = min(top + height, size)
        begin, end = first[top], last[bottom - 1]
        block = np.ascontiguousarray(matrix[top:bottom, begin:end], dtype=np.float32)
        bands.append(_Band(top=top, bottom=bottom, first=begin, last=end, weights=block))
    return tuple(bands)


def _weights(side: int, size: int) -> tuple[np.ndarray, list[int], list[int]]:
    """Compute Pillow's weights (its ``precompute_coeffs`` in ``libImaging/Resample.c``).

    Returns:
        (size, side) float64 whose rows sum to one, and per row the first and one past the last
        source pixel that it reads.
    """
    scale = side / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    matrix = np.zeros((size, side), np.float64)
    firsts, lasts = [], []
    for row in range(size):
        centre = (row + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), side)
        taps = _cubic_kernel((np.arange(first, last) - centre + 0.5) / stretch)
        matrix[row, first:last] = taps / taps.sum()
        firsts.append(first)
        lasts.append(last)
    return matrix, firsts, lasts


def _cubic_kernel(x: np.ndarray) -> np.ndarray:
    """Return Keys' cubic convolution kernel with a = -0.5 (IEEE TASSP 29(6), 1981)."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
