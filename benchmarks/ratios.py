"""How two sets of runs differ: a ratio with its interval, from the variance between runs.

The unit is the run, not the frame: frames of one run share its luck (where memory came to lie, what else the
machine did), so thousands of them are no more evidence than the run is. Of every run one number enters, such
as its median. This, and telling an interval of the ratio where others tell a p-value, follows Kalibera and
Jones, "Rigorous benchmarking in reasonable time" (ISMM 2013).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean, variance

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """A change with the ends of its interval.

    Attributes:
        middle: The estimate.
        low: Lower end.
        high: Upper end.
    """

    middle: float
    low: float
    high: float


def ratio_of(before: Sequence[float], after: Sequence[float], *, confidence: float) -> Interval:
    """Return by which factor the runs of ``after`` differ from those of ``before``.

    Welch's interval (Biometrika 34, 1947) for the difference of two means, on the logarithms: the ratio of
    the geometric means, for variances that differ. Times are positive and skewed, and what disturbs them
    multiplies; their logarithms are nearer to what the interval assumes. What it cannot see is what all runs
    of one side share, such as another temperature of the room or another state of the machine.

    Args:
        before: One positive number per run, at least two.
        after: Likewise.
        confidence: Of the interval, such as 0.95.
    """
    logs = [[math.log(value) for value in side] for side in (before, after)]
    shift = fmean(logs[1]) - fmean(logs[0])
    parts = [variance(side) / len(side) for side in logs]
    error = sum(parts)
    if error <= 0.0:  # Every run alike, to the last bit: counts of bytes are.
        return Interval(math.exp(shift), math.exp(shift), math.exp(shift))
    freedom = error**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, logs, strict=True))
    half = t_quantile(0.5 + confidence / 2.0, freedom) * math.sqrt(error)
    return Interval(math.exp(shift), math.exp(shift - half), math.exp(shift + half))


def points_of(before: tuple[float, int], after: tuple[float, int], *, confidence: float) -> Interval:
    """Return by how many percentage points the second share is above the first.

    Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10). The images are taken for
    two independent sets: where they are the same ones, the truth is narrower.

    Args:
        before: (share of right answers, 0 to 1; images).
        after: Likewise.
        confidence: Of the interval, such as 0.95.
    """
    one, two = (wilson(*side, confidence=confidence) for side in (before, after))
    shift = after[0] - before[0]
    below = math.hypot(after[0] - two[0], one[1] - before[0])
    above = math.hypot(two[1] - after[0], before[0] - one[0])
    return Interval(100.0 * shift, 100.0 * (shift - below), 100.0 * (shift + above))


def wilson(share: float, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share, after Wilson (1927), JASA 22(158).

    Args:
        share: Of ``count``, 0 to 1.
        count: At least 1.
        confidence: Of the interval.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def t_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's distribution.

    With t = sqrt(freedom) tan(angle) its density is a power of the cosine, which Gauss' rule integrates to
    the last digits; the angle is found by halving.

    Args:
        probability: Above 0.5, below 1.
        freedom: Degrees, at least 1.
    """
    nodes, weights = _gauss()
    whole = math.exp(
        math.lgamma(freedom / 2.0) - math.lgamma((freedom + 1.0) / 2.0) + 0.5 * math.log(math.pi)
    )

    def share_below(angle: float) -> float:
        angles = angle * (nodes + 1.0) / 2.0
        return 0.5 + angle / 2.0 * float(weights @ np.cos(angles) ** (freedom - 1.0)) / whole

    low, high = 0.0, math.pi / 2.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if share_below(middle) < probability else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2.0)


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes from -1 to 1 and their weights; finding them takes milliseconds."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    return nodes, weights


def paired_points(lost: int, gained: int, *, images: int) -> Interval:
    """Return by how many points the share of right answers changed, with its 95 % interval.

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions" (Statistics in
    Medicine 24, 2005): Wald's interval after half an image was added to each of the four cells.

    Args:
        lost: Images that were right before alone.
        gained: Images that are right after alone.
        images: How many were answered twice, at least one.
    """
    one, other, count = lost + 0.5, gained + 0.5, images + 2.0
    middle = (other - one) / count
    reach = NormalDist().inv_cdf(0.975) * math.sqrt(one + other - (other - one) ** 2 / count) / count
    return Interval(
        middle=100.0 * (gained - lost) / images, low=100.0 * (middle - reach), high=100.0 * (middle + reach)
    )
