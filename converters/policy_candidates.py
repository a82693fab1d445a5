"""Every policy that a fit considers; thresholds are quantiles of the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from boardfit.converters.policy_answers import Answers
from boardfit.specs import PolicySpec

ENTROPY_STEPS = 12
DOUBT_STEPS = 48
THIRD_STEPS = (12, 24)
FAMILIES = ("fixed", "entropy", "two-look", "three-look")
ALWAYS_SMALL_BITS = 9.0
"""A threshold that no image entropy (at most 8 bits) reaches: the first look is the smallest size."""


def candidates(answers: Answers) -> Iterator[PolicySpec]:
    """Yield every policy that is considered; thresholds are quantiles of the evidence given."""
    sizes = answers.sizes
    for size in sizes:
        yield PolicySpec(kind="fixed", sizes=(size,))
    bits = _quantiles(answers.bits, ENTROPY_STEPS)
    for count in (2, 3):
        for subset in combinations(sizes, count):
            for thresholds in combinations(bits, count - 1):
                yield PolicySpec(kind="entropy", sizes=subset, thresholds_bits=thresholds)
    for small, large in combinations(range(len(sizes)), 2):
        for bound in _quantiles(answers.doubt_bits[(small,)], DOUBT_STEPS):
            for average in (False, True):
                yield PolicySpec(
                    kind="two-look",
                    sizes=(sizes[small], sizes[large]),
                    # An infinite threshold would not be JSON: 9 bits lie above every image's entropy.
                    thresholds_bits=(ALWAYS_SMALL_BITS,),
                    second_look_bits=bound,
                    average=average,
                )
    yield from _entropy_first(answers, bits)
    yield from _three_looks(answers)


def family_of(spec: PolicySpec) -> str:
    """Return which of FAMILIES a policy belongs to."""
    return "three-look" if spec.third_look_bits is not None else spec.kind


def _entropy_first(answers: Answers, bits: Sequence[float]) -> Iterator[PolicySpec]:
    """Yield two-look policies whose first look depends on the image entropy."""
    for small, middle, large in combinations(range(len(answers.sizes)), 3):
        for threshold in bits[::3]:
            for bound in _quantiles(answers.doubt_bits[(middle,)], DOUBT_STEPS // 2):
                yield PolicySpec(
                    kind="two-look",
                    sizes=tuple(answers.sizes[column] for column in (small, middle, large)),
                    thresholds_bits=(threshold, ALWAYS_SMALL_BITS),
                    second_look_bits=bound,
                    second_size=answers.sizes[large],
                )


def _three_looks(answers: Answers) -> Iterator[PolicySpec]:
    """Yield two-look policies with a third look; its bounds are quantiles of the second answers in doubt."""
    for small, middle, large in combinations(range(len(answers.sizes)), 3):
        first = answers.doubt_bits[(small,)]
        for bound in _quantiles(first, THIRD_STEPS[0]):
            again = first > bound
            for average in (False, True):
                second = answers.doubt_bits[(small, middle) if average else (middle,)]
                for further in _quantiles(second[again], THIRD_STEPS[1]):
                    yield PolicySpec(
                        kind="two-look",
                        sizes=tuple(answers.sizes[column] for column in (small, middle, large)),
                        thresholds_bits=(ALWAYS_SMALL_BITS, ALWAYS_SMALL_BITS),
                        second_look_bits=bound,
                        average=average,
                        third_look_bits=further,
                    )


def _quantiles(values: np.ndarray, steps: int) -> list[float]:
    """Return distinct inner quantiles, rounded so that a manifest stays readable."""
    if not len(values):
        return []
    inner = np.quantile(values, np.linspace(0, 1, steps + 2)[1:-1])
    return sorted({round(float(value), 4) for value in inner})
