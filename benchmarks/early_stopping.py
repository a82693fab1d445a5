"""Percentiles that hold: LoadGen's early stopping, in terms of the binomial distribution."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, log, log1p

from boardfit.errors import RecipeError

CONFIDENCE = 0.99
"""LoadGen's."""


def percentile_bound(
    values_s: Sequence[float], percent: float, *, confidence: float = CONFIDENCE
) -> float | None:
    """Return a latency that the percentile does not exceed, by LoadGen's rule for single-stream.

    With t frames above the percentile allowed of n, the t-th highest latency stands for it, where t is the
    largest number for which t or fewer of n frames lie above the true percentile in less than
    1 - ``confidence`` of all experiments: P(X <= t) < 1 - confidence, X binomial with n and
    1 - percent / 100. So n frames answer with what more of them could only lower. See EarlyStopping in
    https://github.com/mlcommons/inference/blob/master/loadgen/results.cc and early_stopping.cc beside it.

    Args:
        values_s: Latencies in any order.
        percent: Above 0, below 100.
        confidence: Above 0, below 1.

    Returns:
        Seconds; None where the frames are too few (64 are needed for 90 %, 662 for 99 %).

    Raises:
        RecipeError: ``percent`` or ``confidence`` make no sense.
    """
    if not 0.0 < percent < 100.0 or not 0.0 < confidence < 1.0:
        raise RecipeError(
            f"percentile {percent} at confidence {confidence}: expected more than 0, less than all"
        )
    above = allowed_above(len(values_s), percent, confidence=confidence)
    return sorted(values_s)[len(values_s) - above] if above else None


def allowed_above(count: int, percent: float, *, confidence: float = CONFIDENCE) -> int:
    """Return how many of so many frames may lie at or above the answer; 0 where they are too few."""
    share = 1.0 - percent / 100.0
    below, allowed = 0.0, 0
    for above in range(count + 1):
        below += _binomial(count, above, share)
        if below >= 1.0 - confidence:
            break
        allowed = above
    return allowed


def _binomial(count: int, above: int, share: float) -> float:
    """Return the probability that exactly so many of ``count`` are above, each with probability ``share``."""
    ways = lgamma(count + 1) - lgamma(above + 1) - lgamma(count - above + 1)
    return exp(ways + above * log(share) + (count - above) * log1p(-share))
