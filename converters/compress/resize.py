"""What a net takes, made inside a training step: resized by matrices of areas, and normalised."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops

from boardfit.specs import ImageSpec


def input_tensor(pixels: Any, image: ImageSpec, size: int) -> Any:
    """Return the (B, size, size, 3) float32 input of a net.

    Args:
        pixels: (B, S, S, 3) uint8, in the channel order of the image spec.
        image: Mean and deviation, in pixel units.
        size: Side of the result in pixels, at most S.
    """
    mean, std = (np.asarray(value, np.float32) for value in (image.mean, image.std))
    return (resize_batch(ops.cast(pixels, "float32"), size) - mean) / std


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
