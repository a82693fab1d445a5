"""Resizing a batch inside a training step: two products with a matrix of areas."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops


def resize_batch(images: Any, size: int) -> Any:
    """Return square images at another side: the mean over each output pixel's area.

    The same as ``boardfit.runtime.resize``'s ``area`` where that reduces, but for its rounding to bytes.

    Args:
        images: (N, S, S, C) float32 tensor; S is known.
        size: Side of the result in pixels, at most S.
    """
    side = images.shape[1]
    if side == size:
        return images
    matrix = area_matrix(side, size)
    rows = ops.einsum("ts,nswc->ntwc", matrix, images)
    return ops.einsum("ts,nwsc->nwtc", matrix, rows)


@lru_cache(maxsize=32)
def area_matrix(side: int, size: int) -> np.ndarray:
    """Return the (size, side) float32 matrix that means over areas: each row adds up to 1.

    Args:
        side: Of the source in pixels.
        size: Of the result in pixels.
    """
    scale = side / size
    begins = np.arange(size)[:, None] * scale
    pixels = np.arange(side)[None]
    overlap = np.minimum(begins + scale, pixels + 1.0) - np.maximum(begins, pixels)
    return np.asarray(np.clip(overlap, 0.0, None) / scale, np.float32)
