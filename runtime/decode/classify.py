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


def average(first: Classes, second: Classes) -> Classes:
    """Return the mean of two looks' scores.

    Args:
        first: (C,) scores of one look.
        second: (C,) scores of another look, of the same activation.
    """
    return Classes(scores=(first.scores + second.scores) / 2.0, activation=second.activation)


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
