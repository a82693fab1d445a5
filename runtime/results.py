"""What a session answers: records of arrays, in the terms of the frame."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import numpy as np

from boardfit.runtime.preprocess import Placement

_TINY = np.float32(1e-30)
"""Keeps log2 off zero, and is lost in the rounding of every other probability."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class of an answer: its label, its index in the output and its score."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one frame went, in seconds.

    A second look adds to its stages. In a batch each frame is charged an equal share of the inference
    that it took part in, and ``total_s`` is the sum of its stages.
    """

    entropy_s: float
    preprocess_s: float
    inference_s: float
    postprocess_s: float
    total_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The scores of one image.

    Attributes:
        scores: (C,) float32; probabilities, or the raw output where its activation is ``none``.
        activation: Of the output that the scores come from: ``logits``, ``softmax``, ``sigmoid`` or
            ``none``.
    """

    scores: np.ndarray
    activation: str

    @property
    def entropy_bits(self) -> float | None:
        """Return how uncertain the answer is, in bits: 0.0 for a sure one.

        -sum p_i log2 p_i over the scores, scaled to a sum of one where they come from sigmoids (a
        single sigmoid counts with its complement); None where the activation is ``none``.
        """
        if self.activation == "none":
            return None
        p = self.scores
        if self.activation == "sigmoid":
            p = np.array([p[0], 1.0 - p[0]]) if p.size == 1 else p / max(float(p.sum()), _TINY)
        return max(0.0, -float((p * np.log2(p + _TINY)).sum()))

    @property
    def doubt_bits(self) -> float | None:
        """Return how hard the two best classes contend, in bits: 0.0 certain, 1.0 equal; ``contest_bits``.

        A single sigmoid counts with its complement; None where the activation is ``none``.
        """
        if self.activation == "none":
            return None
        p = self.scores
        if p.size == 1:
            p = np.array([p[0], 1.0 - p[0]]) if self.activation == "sigmoid" else np.append(p, 0.0)
        # As contest_bits, but one array operation: between two looks each is cold, and costs ten times its
        # time in a loop.
        second, best = (float(score) for score in np.partition(p, -2)[-2:])
        if second <= 0.0:
            return 0.0
        q = second / (best + second)
        return -q * log2(q) - (1.0 - q) * log2(1.0 - q)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to one frame.

    Attributes:
        classes: Scores of all classes; of no class where the bundle's task is not ``classify``.
        outputs: Raw arrays of the engine for this frame, each with a batch axis of one.
        size: Input side in pixels of the look that answered.
        looks: Input sides in pixels of every look, in order.
        entropy_bits: Image entropy of the frame; None where the policy needs none, and in a stream for most.
        timings: Seconds per stage.
        placement: Where the tensor's pixels come from.
        labels: Class names; empty where none are known.
        names: Of ``outputs``.
    """

    classes: Classes
    outputs: tuple[np.ndarray, ...]
    size: int
    looks: tuple[int, ...]
    entropy_bits: float | None
    timings: Timings
    placement: Placement
    labels: tuple[str, ...]
    names: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, np.ndarray]:
        """Return the raw arrays by name: what a detector, a segmenter or an embedding net answers."""
        return dict(zip(self.names, self.outputs, strict=True))

    @property
    def scores(self) -> np.ndarray:
        """Return the (C,) float32 scores."""
        return self.classes.scores

    @property
    def answer_entropy_bits(self) -> float | None:
        """Return how uncertain the answer is, in bits; see ``Classes.entropy_bits``."""
        return self.classes.entropy_bits

    @property
    def doubt_bits(self) -> float | None:
        """Return how hard the two best classes contend, in bits; see ``Classes.doubt_bits``."""
        return self.classes.doubt_bits

    def top(self, k: int = 5) -> list[Prediction]:
        """Return the best classes, best first; equal scores in the order of their index.

        Args:
            k: How many at most.
        """
        scores = self.classes.scores
        k = min(max(k, 0), scores.size)
        if 4 * k < scores.size:
            # Every index that ties with the k-th best must take part in the sort.
            border = np.partition(scores, scores.size - k)[scores.size - k] if k else np.inf
            chosen = np.flatnonzero(scores >= border)
        else:
            chosen = np.arange(scores.size)
        order = chosen[np.argsort(-scores[chosen], kind="stable")][:k]
        return [Prediction(self._label(int(i)), int(i), float(scores[i])) for i in order]

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)


def contest_bits(scores: np.ndarray) -> np.ndarray:
    """Return the entropy of the choice between the two best classes, in bits: 0 certain, 1 equal.

    -q log2 q - (1-q) log2 (1-q) with q = second / (first + second): it grows with the ratio of the two, as
    their margin falls. What other classes share between them is left out: it does not decide.

    Args:
        scores: (..., C) scores, none negative, of two classes or more.

    Returns:
        (...) values, 0.0 to 1.0; 0.0 where all scores are 0.
    """
    best = np.partition(scores, -2, axis=-1)[..., -2:]
    q = best / np.maximum(best.sum(axis=-1, keepdims=True), _TINY)
    return np.asarray(-(q * np.log2(q + _TINY)).sum(axis=-1)) + 0.0
