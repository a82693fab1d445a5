"""Successive halving: give every candidate a little time, and more only to those that look good.

K. Jamieson and A. Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization (AISTATS
2016). Measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from boardfit.timing import Samples

FINALISTS = 2
"""So many candidates are never halved."""
TAIL_RUNS = 40
"""Fewer runs know no 95th percentile: they are ranked by their median."""

_Item = TypeVar("_Item", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Runs:
    """What was timed of one candidate.

    Attributes:
        values_s: Seconds of each run.
        energies_j: Joules per run, one figure for each time that it was metered.
    """

    values_s: tuple[float, ...]
    energies_j: tuple[float, ...] = ()

    def plus(self, other: Runs | None) -> Runs:
        """Return these runs and others of the same candidate together."""
        if other is None:
            return self
        return Runs(self.values_s + other.values_s, self.energies_j + other.energies_j)

    @property
    def energy_j(self) -> float | None:
        """Joules per run; None where it was not metered."""
        return sum(self.energies_j) / len(self.energies_j) if self.energies_j else None

    @property
    def cost(self) -> float:
        """Joules where it was metered; else seconds: the 95th percentile, or of few runs the median."""
        if self.energy_j is not None:
            return self.energy_j
        samples = Samples(values_s=self.values_s)
        return samples.p95_s if len(self.values_s) >= TAIL_RUNS else samples.p50_s


def rungs(whole: int, count: int) -> tuple[int, ...]:
    """Return how many rounds each rung adds, so that each doubles what a candidate has had.

    Args:
        whole: Rounds of a candidate that is never given up.
        count: Rungs at most; fewer where there are not rounds enough.
    """
    ends = [max(1, whole >> (count - 1 - rung)) for rung in range(count)]
    return tuple(end - start for start, end in pairwise([0, *ends]) if end > start)


def survivors(candidates: int) -> int:
    """Return how many of so many candidates see the next rung."""
    return min(candidates, max(FINALISTS, -(-candidates // 2)))


def halve(
    candidates: Sequence[_Item],
    rounds: Sequence[int],
    measure: Callable[[int, Sequence[_Item], int], Mapping[_Item, Runs]],
) -> dict[_Item, Runs]:
    """Return all runs of each candidate.

    Args:
        candidates: Distinct.
        rounds: That each rung adds.
        measure: Takes the number of the rung, its candidates and rounds, and returns their runs; a candidate
            that failed is not among them, and is given up.
    """
    had: dict[_Item, Runs] = {}
    left = list(candidates)
    for rung, more in enumerate(rounds):
        if not left:
            break
        found = measure(rung, left, more)
        for item, runs in found.items():
            had[item] = runs.plus(had.get(item))
        for item in left:
            if item not in found:
                had.pop(item, None)
        left = sorted(found, key=lambda item: had[item].cost)[: survivors(len(found))]
    return had
