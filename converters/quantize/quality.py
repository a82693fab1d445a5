"""How far a quantized artifact answers from its float twin, and how sure that can be known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from boardfit.specs import TensorSpec

_Z95 = 1.959964
_FLOOR = 1e-12


def output_error(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], outputs: Sequence[TensorSpec]
) -> float:
    """Return how much the outputs of a quantized artifact tell against the float ones.

    For probabilities and logits the mean over images of KL(float || quantized) in nats; for numbers that
    are no probabilities the squared error over the variance. Several outputs add up.

    Args:
        actual: Outputs of N rows each.
        expected: The float artifact's, of the same shapes.
        outputs: What the numbers are.

    Returns:
        0 for equal outputs; infinity where ``actual`` is not finite.
    """
    if not all(np.isfinite(array).all() for array in actual):
        return math.inf
    return sum(_error(a, b, spec.activation) for a, b, spec in zip(actual, expected, outputs, strict=True))


def _error(actual: np.ndarray, expected: np.ndarray, activation: str) -> float:
    a = actual.reshape(len(actual), -1).astype(np.float64)
    b = expected.reshape(len(expected), -1).astype(np.float64)
    if activation == "none" or (activation != "sigmoid" and a.shape[1] < 2):
        return float(np.mean((a - b) ** 2) / max(float(b.var()), _FLOOR))
    if activation == "sigmoid":
        return float((_divergence(b, a) + _divergence(1.0 - b, 1.0 - a)).sum(axis=1).mean())
    if activation == "logits":
        a, b = _softmax(a), _softmax(b)
    return float(_divergence(b, a).sum(axis=1).mean())


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    # Quantized probabilities are exactly 0 below a step: floored, they cost much but not everything.
    p, q = np.clip(p, 0.0, 1.0), np.clip(q, _FLOOR, 1.0)
    return np.asarray(np.where(p > 0.0, p * np.log(np.maximum(p, _FLOOR) / q), 0.0))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def wilson_interval(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (E. B. Wilson, 1927).

    Args:
        count: How often it was seen.
        of: Among how many, at least 1.
    """
    share, z2 = count / of, _Z95**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_interval(lost: int, won: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares on the same images.

    A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24 (2005): Wald's interval after half an image is added to each of the four cells.

    Args:
        lost: Images that only the first answers rightly.
        won: Images that only the second answers rightly.
        of: All images, at least 1.
    """
    n, b, c = of + 2.0, lost + 0.5, won + 0.5
    middle = (b - c) / n
    half = _Z95 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def noise_share(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the sums of squares of the error and of the signal of one tensor."""
    with np.errstate(invalid="ignore", over="ignore"):  # a net that int8 broke answers NaN
        a, b = actual.astype(np.float64), expected.astype(np.float64)
        return float(((a - b) ** 2).sum()), float((b**2).sum())


def noise_to_signal(noise: float, signal: float) -> float:
    """Return the noise as a share of the signal: 0 where there is no signal, 1e12 where it is not finite."""
    if not math.isfinite(noise):
        return 1.0 / _FLOOR
    return noise / signal if signal > 0.0 else 0.0


def decibels(noise: float, signal: float) -> float:
    """Return the signal-to-quantisation-noise ratio in dB: 200 without noise, -120 where it is not finite."""
    if not math.isfinite(noise):
        return 10.0 * math.log10(_FLOOR)
    if noise <= signal * 1e-20:
        return 200.0
    return 10.0 * math.log10(max(signal, _FLOOR * noise) / noise)


def sums_by_tensor(
    runs: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
) -> dict[str, tuple[float, float]]:
    """Return error and signal by tensor, over pairs of a quantized and a float run.

    A tensor that only one of them has, or has in another shape, is left out.
    """
    sums: dict[str, tuple[float, float]] = {}
    for actual, expected in runs:
        for name in actual.keys() & expected.keys():
            if actual[name].shape == expected[name].shape:
                noise, signal = noise_share(actual[name], expected[name])
                known = sums.get(name, (0.0, 0.0))
                sums[name] = known[0] + noise, known[1] + signal
    return sums
