"""Choose a policy on evidence: candidates are scored on one part of the images and reported on the other.

Pure numpy on recorded answers: no image, no engine. A board's own times are enough to solve again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from boardfit.converters.policy_answers import Answers, Chain
from boardfit.converters.policy_candidates import FAMILIES, candidates, family_of
from boardfit.errors import RecipeError
from boardfit.runtime.times import Times
from boardfit.specs import PolicySpec

BOOTSTRAPS = 1000
SURE = 1.645
"""Standard errors by which a promise must hold on the evidence: one-sided 95 % of a normal estimate."""
FOLDS = 5
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the allowed drop under which a family of policies is tried."""
LEVELS_POINTS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)
"""Allowed drops, in points, at which each family of policies is shown."""


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
    if spec.kind == "fixed":
        first = np.full(answers.count, columns[-1])
    else:
        first = columns[np.searchsorted(np.asarray(spec.thresholds_bits), answers.bits, side="right")]
    last, top1 = first.copy(), np.empty(answers.count, np.int64)
    times_s = np.asarray(times.look_s, float)[first]
    for start in np.unique(first):
        rows = np.flatnonzero(first == start)
        for looked in _chains_from(int(start), spec, answers):
            # The rows whose answer so far is in doubt go on.
            if len(looked) > 1:
                bound = spec.look_bits[len(looked) - 2]
                rows = rows[answers.doubt_bits[_told(spec, looked[:-1])][rows] > bound]
                times_s[rows] += times.look_s[looked[-1]] + times.change_s(spec.kind)
                last[rows] = looked[-1]
            top1[rows] = answers.top1[_told(spec, looked)][rows]
    times_s[1:] += times.change_s(spec.kind) * (first[1:] != last[:-1])
    if spec.needs_entropy:
        times_s += times.entropy_s
    return Outcome(
        spec=spec,
        hits=top1 == answers.target,
        looks=np.bincount(last, minlength=len(answers.sizes)) / answers.count,
        times_s=times_s,
    )


def _chains_from(start: int, spec: PolicySpec, answers: Answers) -> Iterator[Chain]:
    """Yield the looks of a policy from a first column on, one more each time."""
    chain: Chain = (start,)
    yield chain
    if spec.kind != "two-look":
        return
    further = [answers.sizes.index(size) for size in spec.sizes if size > answers.sizes[start]]
    if spec.second_size is not None:
        further = [column for column in further if answers.sizes[column] == spec.second_size]
    for column in further[: len(spec.look_bits)]:
        chain = (*chain, column)
        yield chain


def _told(spec: PolicySpec, looked: Chain) -> Chain:
    """Return the chain whose answer a policy gives after some looks."""
    return looked if spec.average else looked[-1:]


def choose(
    answers: Answers, times: Times, *, max_drop: float | None, max_time: float | None, views: int = 1
) -> PolicySpec:
    """Return the fastest policy that loses at most ``max_drop`` points, or the best within a time.

    Either is a promise: a policy holds it only if the drop, or the mean time, on these images plus 1.645 of
    its standard errors does. Few images promise little, and then the largest size alone is what is left.

    The best of thousands of policies on some images looks better than it is. So each family of policies is
    judged by cross-validation: it is chosen on four fifths and counted on the last, five times, under
    allowed drops up to ``max_drop``. A family that changes size must so beat the mix of two fixed sizes of
    equal time. The family and the drop that hold what was asked, in the least time, are then used to choose
    on all images. Within a time, families that beat the mix by 1.645 standard errors come before those that
    only seem to.

    Args:
        answers: The evidence to choose on.
        times: What a look costs.
        max_drop: Points below the largest size; None where ``max_time`` is given.
        max_time: Fraction of the largest size's time.
        views: How often each image is in the evidence, mirrored for example: all images as they are, then all
            of them in the next view, and so on. They make the figures better, but images make a promise sure.

    Raises:
        RecipeError: No policy is within the time.
    """
    assert answers.count % views == 0, "every image has the same views"
    field = _Field.of(answers, times, views)
    drops = [0.0] if max_drop is None else [max_drop * share for share in SHARES]
    best: tuple[tuple[float, float, float], str, float] | None = None
    for family in FAMILIES:
        for drop in drops:
            found = field.cross_validated(family, drop, max_time)
            if found is None or field.pick(family, drop, max_time) is None:
                continue
            score, time_s = float(100.0 * found[0].mean()), float(found[1].mean())
            if max_drop is not None and field.base.score - score > max_drop + 1e-9:
                continue
            mix = best_mix(field.fixed, time_s)
            if family != "fixed" and score <= mix[0]:
                continue
            if max_drop is None:
                rank = (0.0 if field.surely_above(found[0], mix[1]) else 1.0, -score, time_s)
            else:
                rank = (0.0, time_s, -score)
            if best is None or rank < best[0]:
                best = rank, family, drop
    if best is None and max_drop is not None:
        return field.base.spec
    if best is None:
        raise RecipeError(
            f"no policy takes at most {max_time} of the largest size's time: the fastest takes "
            f"{field.fastest:.2f}; allow more, or build with smaller sizes"
        )
    chosen = field.pick(best[1], best[2], max_time)
    assert chosen is not None
    return field.specs[chosen]


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """All C candidates on the same images; their sums over each of F folds.

    Attributes:
        answers: The evidence.
        times: What a look costs.
        specs: The candidates.
        families: (C,) of each.
        views: Rows of each image.
        folds: Rows of each fold.
        right: (C, F) right answers.
        unlike: (C, F) answers that are right where the largest size's is wrong, or the other way round.
        seconds: (C, F).
        squares: (C, F) sums of squared seconds.
        fixed: Each size alone.
    """

    answers: Answers
    times: Times
    specs: tuple[PolicySpec, ...]
    families: np.ndarray
    views: int
    folds: tuple[np.ndarray, ...]
    right: np.ndarray
    unlike: np.ndarray
    seconds: np.ndarray
    squares: np.ndarray
    fixed: tuple[Outcome, ...]

    @classmethod
    def of(cls, answers: Answers, times: Times, views: int) -> _Field:
        specs = tuple(candidates(answers))
        fixed = tuple(replay(spec, answers, times) for spec in specs if spec.kind == "fixed")
        base = largest(fixed)
        images = answers.count // views
        parts = np.array_split(np.random.default_rng(1).permutation(images), FOLDS)
        folds = tuple(np.concatenate([part + view * images for view in range(views)]) for part in parts)
        sums = np.empty((4, len(specs), FOLDS))
        for row, spec in enumerate(specs):
            found = replay(spec, answers, times)
            counted = (found.hits, found.hits != base.hits, found.times_s, found.times_s**2)
            for values, part in zip(counted, sums, strict=True):
                part[row] = [values[fold].sum() for fold in folds]
        right, unlike, seconds, squares = sums
        return cls(
            answers=answers,
            times=times,
            specs=specs,
            families=np.array([family_of(spec) for spec in specs]),
            views=views,
            folds=folds,
            right=right,
            unlike=unlike,
            seconds=seconds,
            squares=squares,
            fixed=fixed,
        )

    @property
    def base(self) -> Outcome:
        """The largest size alone."""
        return largest(self.fixed)

    @property
    def fastest(self) -> float:
        """The least time of all, over the largest size's."""
        return float(self.seconds.sum(axis=1).min() / self.base.times_s.sum())

    def pick(
        self, family: str, drop: float, max_time: float | None, without: int | None = None
    ) -> int | None:
        """Return the best candidate of a family, or None if none holds the limits.

        Args:
            family: One of FAMILIES.
            drop: Points that may be lost.
            max_time: Fraction of the largest size's time, which counts in place of the drop; or None.
            without: A fold to leave out.
        """
        kept = [fold for fold in range(FOLDS) if fold != without]
        count = sum(len(self.folds[fold]) for fold in kept)
        members = np.flatnonzero(self.families == family)
        right, unlike, seconds, squares = (
            part[members][:, kept].sum(axis=1) / count
            for part in (self.right, self.unlike, self.seconds, self.squares)
        )
        base = np.concatenate([self.folds[fold] for fold in kept])
        sure = SURE / np.sqrt(count / self.views)
        if max_time is not None:
            bounds = seconds + sure * np.sqrt(np.maximum(squares - seconds**2, 0.0))
            allowed = bounds <= max_time * self.base.times_s[base].mean() * (1 + 1e-6)
            order = np.lexsort((seconds, -right))
        else:
            drops = self.base.hits[base].mean() - right
            # Of two right-or-wrong answers the difference is -1, 0 or 1: its square's mean is what is unlike.
            bounds = 100.0 * (drops + sure * np.sqrt(np.maximum(unlike - drops**2, 0.0)))
            allowed = bounds <= drop + 1e-9
            order = np.lexsort((-right, seconds))
        order = order[allowed[order]]
        return int(members[order[0]]) if len(order) else None

    def surely_above(self, hits: np.ndarray, expected: np.ndarray) -> bool:
        """Return whether (N,) hits beat (N,) expected ones by more than 1.645 standard errors."""
        gains = hits - expected
        return bool(gains.mean() > SURE * gains.std() / np.sqrt(len(gains) / self.views))

    def cross_validated(
        self, family: str, drop: float, max_time: float | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return (N,) hits and seconds of picking a family on four fifths, on the last one."""
        hits, seconds = np.empty(self.answers.count, bool), np.empty(self.answers.count)
        for number, fold in enumerate(self.folds):
            picked = self.pick(family, drop, max_time, without=number)
            if picked is None:
                return None
            found = replay(self.specs[picked], self.answers, self.times)
            hits[fold], seconds[fold] = found.hits[fold], found.times_s[fold]
        return hits, seconds


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
    right = np.stack([answers.top1[(column,)] == answers.target for column in range(len(answers.sizes))])
    any_right = right.any(axis=0)
    chosen = np.where(any_right, right.argmax(axis=0), 0)
    return float(100 * any_right.mean()), float(np.asarray(times.look_s)[chosen].mean())
