"""Choose a policy on evidence: candidates are scored on one part of the images and reported on the other.

Pure numpy on recorded answers: no image, no engine. A board's own times are enough to solve again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from boardfit.errors import RecipeError
from boardfit.specs import POLICY_KINDS, PolicySpec

ENTROPY_STEPS = 12
CERTAINTY_STEPS = 48
BOOTSTRAPS = 1000
SURE = 1.645
"""Standard errors by which a drop must stay below what is allowed: one-sided 95 % of a normal estimate."""
FOLDS = 5
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the allowed drop under which a kind of policy is tried."""
LEVELS_POINTS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)
"""Allowed drops, in points, at which each family of policies is shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What every size answered to every image.

    Attributes:
        sizes: S input sides in pixels, ascending.
        bits: (N,) image entropies.
        top1: (S, N) class indices.
        certainty_bits: (S, N) entropies of the answers; 0 is certain.
        averaged: (S, S, N) class indices of the mean of two sizes' probabilities; [i, j] with i < j.
        truth: (N,) class indices, or None: then the largest size's answers are taken for right.
    """

    sizes: tuple[int, ...]
    bits: np.ndarray
    top1: np.ndarray
    certainty_bits: np.ndarray
    averaged: np.ndarray
    truth: np.ndarray | None = None

    @property
    def target(self) -> np.ndarray:
        """Return the (N,) class indices that count as right."""
        return self.top1[-1] if self.truth is None else self.truth

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.bits)

    def take(self, rows: np.ndarray) -> Answers:
        """Return the evidence of some of the images."""
        return Answers(
            sizes=self.sizes,
            bits=self.bits[rows],
            top1=self.top1[:, rows],
            certainty_bits=self.certainty_bits[:, rows],
            averaged=self.averaged[:, :, rows],
            truth=None if self.truth is None else self.truth[rows],
        )


@dataclass(frozen=True, slots=True)
class Times:
    """What a look costs.

    Attributes:
        look_s: Seconds of one look at each size, in the order of ``Answers.sizes``: preprocessing,
            inference and decoding.
        switch_s: Seconds that a change of size costs on top.
        entropy_s: Seconds of one image entropy.
        two_look_switch_s: The same as ``switch_s`` under a two-look policy, for which some engines keep both
            sizes ready; None where that is no other number.
    """

    look_s: tuple[float, ...]
    switch_s: float = 0.0
    entropy_s: float = 0.0
    two_look_switch_s: float | None = None

    def __post_init__(self) -> None:
        extra = (self.switch_s, self.entropy_s, self.two_look_switch_s or 0.0)
        numbers = (*self.look_s, *extra)
        if not self.look_s or not np.isfinite(numbers).all() or min(self.look_s) <= 0.0 or min(extra) < 0.0:
            raise RecipeError(f"the times {self} make no sense: expected seconds, one look per size")

    def change_s(self, kind: str) -> float:
        """Return the seconds that a change of size costs under a kind of policy."""
        if kind == "two-look" and self.two_look_switch_s is not None:
            return self.two_look_switch_s
        return self.switch_s


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a policy would have done on some images.

    Attributes:
        spec: The policy.
        hits: (N,) bool: right answers.
        looks: (S,) share of images whose answer came from each size.
        times_s: (N,) seconds per image, switches and entropy included.
    """

    spec: PolicySpec
    hits: np.ndarray
    looks: np.ndarray
    times_s: np.ndarray

    @property
    def score(self) -> float:
        """Right answers in per cent."""
        return float(100.0 * self.hits.mean())

    @property
    def time_s(self) -> float:
        """Mean seconds per image."""
        return float(self.times_s.mean())


def replay(spec: PolicySpec, answers: Answers, times: Times) -> Outcome:
    """Return what a policy would have done on recorded images, in their order.

    Args:
        spec: The policy; its sizes are among the evidence's.
        answers: The evidence.
        times: What a look costs.
    """
    columns = np.array([answers.sizes.index(size) for size in spec.sizes])
    rows = np.arange(answers.count)
    if spec.kind == "fixed":
        first = np.full(answers.count, columns[-1])
    else:
        first = columns[np.searchsorted(np.asarray(spec.thresholds_bits), answers.bits, side="right")]
    top1 = answers.top1[first, rows]
    again = np.zeros(answers.count, bool)
    last = first
    if spec.kind == "two-look":
        second = _second(spec, answers, first)
        again = (answers.certainty_bits[first, rows] > spec.second_look_bits) & (second > first)
        last = np.where(again, second, first)
        larger = answers.averaged[first, second, rows] if spec.average else answers.top1[second, rows]
        top1 = np.where(again, larger, top1)
    look_s = np.asarray(times.look_s)
    changed = np.concatenate([[False], first[1:] != last[:-1]])
    times_s = look_s[first] + again * look_s[last] + times.change_s(spec.kind) * (again.astype(int) + changed)
    if spec.needs_entropy:
        times_s += times.entropy_s
    return Outcome(
        spec=spec,
        hits=top1 == answers.target,
        looks=np.bincount(last, minlength=len(answers.sizes)) / answers.count,
        times_s=times_s,
    )


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
        for bound in _quantiles(answers.certainty_bits[small], CERTAINTY_STEPS):
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


ALWAYS_SMALL_BITS = 9.0
"""A threshold that no image entropy (at most 8 bits) reaches: the first look is the smallest size."""


def choose(answers: Answers, times: Times, *, max_drop: float | None, max_time: float | None) -> PolicySpec:
    """Return the fastest policy that loses at most ``max_drop`` points, or the best within a time.

    What may be lost is a promise: a policy holds it only if the drop on these images plus 1.645 of its
    standard errors does. Few images promise little, and then the largest size alone is what is left.

    The best of thousands of policies on some images looks better than it is. So each kind of policy is
    judged by cross-validation: it is chosen on four fifths and counted on the last, five times, under
    allowed drops up to ``max_drop``. A kind that changes size must so beat the mix of two fixed sizes of
    equal time. The kind and the drop that hold what was asked, in the least time, are then used to choose
    on all images.

    Args:
        answers: The evidence to choose on.
        times: What a look costs.
        max_drop: Points below the largest size; None where ``max_time`` is given.
        max_time: Fraction of the largest size's time.

    Raises:
        RecipeError: No policy is within the time.
    """
    field = _Field.of([replay(spec, answers, times) for spec in candidates(answers)])
    drops = [0.0] if max_drop is None else [max_drop * share for share in SHARES]
    best: tuple[tuple[float, float], str, float] | None = None
    for kind in POLICY_KINDS:
        for drop in drops:
            found = field.cross_validated(kind, drop, max_time)
            if found is None:
                continue
            score, time_s = found
            if max_drop is not None and field.base.score - score > max_drop + 1e-9:
                continue
            if kind != "fixed" and score <= best_mix(field.fixed, time_s)[0]:
                continue
            rank = (-score, time_s) if max_drop is None else (time_s, -score)
            if best is None or rank < best[0]:
                best = rank, kind, drop
    if best is None and max_drop is not None:
        return field.base.spec
    if best is None:
        fastest = min(item.time_s for item in field.outcomes) / field.base.time_s
        raise RecipeError(
            f"no policy takes at most {max_time} of the largest size's time: the fastest takes "
            f"{fastest:.2f}; allow more, or build with smaller sizes"
        )
    chosen = field.pick(best[1], np.arange(answers.count), best[2], max_time)
    assert chosen is not None
    return field.outcomes[chosen].spec


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """All candidates on the same images, and their (C, N) hits and seconds side by side."""

    outcomes: tuple[Outcome, ...]
    kinds: np.ndarray
    hits: np.ndarray
    times_s: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> _Field:
        return cls(
            outcomes=tuple(outcomes),
            kinds=np.array([item.spec.kind for item in outcomes]),
            hits=np.stack([item.hits for item in outcomes]),
            times_s=np.stack([item.times_s for item in outcomes]),
        )

    @property
    def base(self) -> Outcome:
        """The largest size alone."""
        return largest(self.outcomes)

    @property
    def fixed(self) -> list[Outcome]:
        """Each size alone."""
        return [item for item in self.outcomes if item.spec.kind == "fixed"]

    def pick(self, kind: str, rows: np.ndarray, drop: float, max_time: float | None) -> int | None:
        """Return the best candidate of a kind on some images, or None if none holds the limits."""
        base = self.base
        members = np.flatnonzero(self.kinds == kind)
        scores = self.hits[np.ix_(members, rows)].mean(axis=1)
        seconds = self.times_s[np.ix_(members, rows)].mean(axis=1)
        if max_time is not None:
            allowed = seconds <= max_time * base.times_s[rows].mean()
            order = np.lexsort((seconds, -scores))
        else:
            allowed = self.largest_drop(members, rows) <= drop + 1e-9
            order = np.lexsort((-scores, seconds))
        order = order[allowed[order]]
        return int(members[order[0]]) if len(order) else None

    def largest_drop(self, members: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the upper 95 % bounds of the drops, in points, of some candidates on some images."""
        base, hits = self.base.hits[rows], self.hits[np.ix_(members, rows)]
        drops = base.mean() - hits.mean(axis=1)
        # A difference of two right-or-wrong answers is -1, 0 or 1: its square's mean is the share of unlike.
        variances = (hits != base).mean(axis=1) - drops**2
        return np.asarray(100.0 * (drops + SURE * np.sqrt(variances / len(rows))))

    def cross_validated(self, kind: str, drop: float, max_time: float | None) -> tuple[float, float] | None:
        """Return score in per cent and mean seconds of picking a kind on four fifths, on the last one."""
        count = self.hits.shape[1]
        hits, seconds = [], []
        for fold in np.array_split(np.random.default_rng(1).permutation(count), FOLDS):
            picked = self.pick(kind, np.setdiff1d(np.arange(count), fold), drop, max_time)
            if picked is None:
                return None
            hits.append(self.hits[picked, fold])
            seconds.append(self.times_s[picked, fold])
        return float(100.0 * np.concatenate(hits).mean()), float(np.concatenate(seconds).mean())


def largest(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of the largest size alone."""
    fixed = [item for item in outcomes if item.spec.kind == "fixed"]
    return max(fixed, key=lambda item: item.spec.sizes[-1])


def split(answers: Answers, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of two halves: to fit on, and to score on."""
    order = np.random.default_rng(seed).permutation(answers.count)
    half = answers.count // 2
    return np.sort(order[:half]), np.sort(order[half:])


def best_mix(fixed: Sequence[Outcome], time_s: float) -> tuple[float, np.ndarray]:
    """Return the score and (N,) expected hits of the best mix of two fixed sizes that takes a time.

    A mix runs one size on a random share of the images and another on the rest; it is the line between
    the two in a plot of score over time. Without a pair around the time, the nearest single size.
    """
    best: tuple[float, np.ndarray] | None = None
    for item in fixed:
        if item.time_s <= time_s * (1 + 1e-9):
            expected = item.hits.astype(float)
            if best is None or item.score > best[0]:
                best = item.score, expected
    for low, high in combinations(sorted(fixed, key=lambda item: item.time_s), 2):
        if low.time_s < time_s < high.time_s:
            share = (time_s - low.time_s) / (high.time_s - low.time_s)
            expected = (1 - share) * low.hits + share * high.hits
            if best is None or 100 * expected.mean() > best[0]:
                best = float(100 * expected.mean()), expected
    if best is None:
        fastest = min(fixed, key=lambda item: item.time_s)
        return fastest.score, fastest.hits.astype(float)
    return best


def interval(difference: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean, in points.

    Args:
        difference: (N,) paired differences per image, 1 for a right answer more.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(difference), (BOOTSTRAPS, len(difference)))
    means = 100.0 * difference[rows].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def oracle(answers: Answers, times: Times) -> tuple[float, float]:
    """Return score in per cent and mean seconds of whoever knows the smallest right size."""
    right = answers.top1 == answers.target
    any_right = right.any(axis=0)
    chosen = np.where(any_right, right.argmax(axis=0), 0)
    return float(100 * any_right.mean()), float(np.asarray(times.look_s)[chosen].mean())


def _entropy_first(answers: Answers, bits: Sequence[float]) -> Iterator[PolicySpec]:
    """Yield two-look policies whose first look depends on the image entropy."""
    sizes = answers.sizes
    if len(sizes) < 3:
        return
    for small, middle, large in combinations(range(len(sizes)), 3):
        for threshold in bits[::3]:
            for bound in _quantiles(answers.certainty_bits[middle], CERTAINTY_STEPS // 2):
                yield PolicySpec(
                    kind="two-look",
                    sizes=(sizes[small], sizes[middle], sizes[large]),
                    thresholds_bits=(threshold, ALWAYS_SMALL_BITS),
                    second_look_bits=bound,
                    second_size=sizes[large],
                )


def _second(spec: PolicySpec, answers: Answers, first: np.ndarray) -> np.ndarray:
    """Return the (N,) column of the second look: the named size, or the policy's next larger one."""
    if spec.second_size is not None:
        return np.full(answers.count, answers.sizes.index(spec.second_size))
    columns = np.array([answers.sizes.index(size) for size in spec.sizes])
    following: dict[Any, Any] = dict(pairwise(columns))
    following[columns[-1]] = columns[-1]
    return np.array([following[column] for column in first])


def _quantiles(values: np.ndarray, steps: int) -> list[float]:
    """Return distinct inner quantiles, rounded so that a manifest stays readable."""
    inner = np.quantile(values, np.linspace(0, 1, steps + 2)[1:-1])
    return sorted({round(float(value), 3) for value in inner})
