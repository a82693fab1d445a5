"""Class scores from the first output of a classifier."""

from __future__ import annotations

import numpy as np

from boardfit.runtime.results import Classes


def decode_classes(output: np.ndarray, activation: str) -> Classes:
    """Make the scores of one image.

    Args:
        output: float32 with C numbers, whatever its axes ((1, C) or (1, C, 1, 1)).
        activation: What the numbers are: ``logits`` get a softmax, here and only here; ``softmax``,
            ``sigmoid`` and ``none`` are taken as they are.
    """
    numbers = output.reshape(-1)
    return Classes(scores=softmax(numbers) if activation == "logits" else numbers, activation=activation)


LARGER_SHARE = 2 / 3
"""Share of the larger look in an average: with a half, a weak small look drags the answer down
(docs/decisions/0010)."""


def average(first: Classes, second: Classes) -> Classes:
    """Return the answer of two looks together.

    Args:
        first: (C,) scores of one look, or of several together.
        second: (C,) scores of a larger look, of the same activation.
    """
    return Classes(scores=averaged_scores(first.scores, second.scores), activation=second.activation)


def averaged_scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the scores of two looks together; the second, larger one counts twice.

    Args:
        first: (..., C) scores.
        second: (..., C) scores.
    """
    merged: np.ndarray = first + LARGER_SHARE * (second - first)
    return merged


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return exp(x - max) / sum, which no large logit overflows.

    Args:
        logits: (C,) float32.

    Returns:
        (C,) float32 that sum to one.
    """
    powers: np.ndarray = np.exp(logits - logits.max())
    powers /= powers.sum()
    return powers
