"""Masks of a segmenter's output, and how far two of them overlap."""

from __future__ import annotations

import numpy as np


def masks(scores: np.ndarray, activation: str) -> np.ndarray:
    """Return which class each pixel has.

    Args:
        scores: (N, C, H, W) or (N, H, W, C) float32 with square images, or without the axis of classes.
        activation: Of the output; it says where a single class begins.

    Returns:
        (N, H, W) int64: the best class, or 0 and 1 where there is one class.
    """
    if scores.ndim == 4:
        axis = 1 if scores.shape[2] == scores.shape[3] else 3
        if scores.shape[axis] > 1:
            return np.asarray(scores.argmax(axis=axis))
        scores = scores.squeeze(axis)
    return (scores > (0.5 if activation == "sigmoid" else 0.0)).astype(np.int64)


def mean_iou(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the intersection over union of two stacks of masks, averaged over the classes that occur.

    Args:
        actual: (N, H, W) integers.
        expected: The same shape.

    Returns:
        1.0 where the masks are the same, 0.0 where no class overlaps.
    """
    ratios = []
    for kind in np.union1d(actual, expected):
        both = np.count_nonzero((actual == kind) & (expected == kind))
        either = np.count_nonzero((actual == kind) | (expected == kind))
        ratios.append(both / either)
    return float(np.mean(ratios))
