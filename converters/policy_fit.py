"""Fit the size policy: solve on one half of the images, report on the other, beside what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from boardfit.converters.policy_answers import Answers
from boardfit.converters.policy_candidates import FAMILIES, candidates, family_of
from boardfit.converters.policy_evidence import FEWEST_IMAGES
from boardfit.converters.policy_solve import (
    LEVELS_POINTS,
    Outcome,
    best_mix,
    choose,
    interval,
    largest,
    oracle,
    replay,
    split,
)
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.times import Times
from boardfit.specs import FitSummary, PolicySpec, classic_policy

DEFAULT_MAX_DROP = 0.5


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a policy: one of the two.

    Attributes:
        max_drop: Points that may be lost against the largest size, for the least time.
        max_time: Fraction of the largest size's time that may be taken, for the best answers.
    """

    max_drop: float | None = DEFAULT_MAX_DROP
    max_time: float | None = None

    def __post_init__(self) -> None:
        if (self.max_drop is None) == (self.max_time is None):
            raise RecipeError("a fit needs one goal, a drop in points or a share of the time, and not both")
        if self.max_drop is not None and not 0.0 <= self.max_drop <= 100.0:
            raise RecipeError(f"the policy may lose {self.max_drop:g} points: expected 0 to 100")
        if self.max_time is not None and not 0.0 < self.max_time <= 1.0:
            raise RecipeError(
                f"the policy may take {self.max_time:g} of the largest size's time: expected a share, 0 to 1"
            )


def goal_of(max_drop: float | None, max_time: float | None) -> Goal:
    """Return the goal that two options make, of which at most one is given."""
    if max_drop is None and max_time is None:
        return Goal()
    return Goal(max_drop=max_drop, max_time=max_time)


@dataclass(frozen=True, slots=True)
class Line:
    """One policy on the scoring half.

    Attributes:
        name: What it is.
        time_ratio: Its time over the largest size's.
        score: Right answers in per cent.
        low: Lower end of the 95 % interval of ``score``.
        high: Upper end.
        family: ``fixed``, ``mix``, ``entropy``, ``two-look``, ``three-look``, ``random``, ``oracle`` or
            ``chosen``.
    """

    name: str
    time_ratio: float
    score: float
    low: float
    high: float
    family: str


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted policy with what it was compared with.

    Attributes:
        policy: The winner.
        table: The winner, what it must beat, and the oracle.
        curves: The best of each family at growing drops.
        times: What a look cost.
        answers: The evidence, all of it.
    """

    policy: PolicySpec
    table: tuple[Line, ...]
    curves: tuple[Line, ...]
    times: Times
    answers: Answers

    def to_dict(self) -> dict[str, Any]:
        """Return what the bundle's measurements keep, without the evidence."""
        return {
            "schema": 1,
            "table": [asdict(line) for line in self.table],
            "curves": [asdict(line) for line in self.curves],
            "times": asdict(self.times),
        }


def fit(answers: Answers, times: Times, *, goal: Goal, machine: str, hysteresis_bits: float = 0.2) -> Fit:
    """Choose the policy that serves a goal best.

    Args:
        answers: What every size answered to every image; halved at random into fitting and scoring.
        times: What a look costs where the policy will run.
        goal: The least time at a drop, or the best answers within a time.
        machine: Where the times were taken.
        hysteresis_bits: For streams; kept as it is.

    Raises:
        InputError: Fewer than FEWEST_IMAGES images.
        RecipeError: The times do not fit the sizes, or no policy is within the time.
    """
    if answers.count < FEWEST_IMAGES:
        raise InputError(f"{answers.count} images are too few to fit a policy: at least {FEWEST_IMAGES}")
    if len(times.look_s) != len(answers.sizes):
        raise RecipeError(
            f"there are times for {len(times.look_s)} sizes, but answers at {list(answers.sizes)}"
        )
    fitting, scoring = (answers.take(rows) for rows in split(answers))
    won = choose(fitting, times, max_drop=goal.max_drop, max_time=goal.max_time)
    scored = replay(won, scoring, times)
    fixed = [replay(PolicySpec(kind="fixed", sizes=(size,)), scoring, times) for size in answers.sizes]
    spec = replace(
        won,
        hysteresis_bits=hysteresis_bits,
        fit=_summary(scored, fixed, labelled=answers.truth is not None, machine=machine),
    )
    return Fit(
        policy=spec,
        table=tuple(_table(scored, fixed, scoring, times)),
        curves=tuple(_curves(fitting, scoring, times, base=fixed[-1])),
        times=times,
        answers=answers,
    )


def fit_table(result: Fit) -> str:
    """Return the comparison as a table of plain text."""
    right = "right" if result.answers.truth is not None else "like the largest size"
    lines = [f"{'policy':<44} {'time':>6} {right + ' %':>24}   95 % interval"]
    for line in result.table:
        lines.append(
            f"{line.name:<44} {line.time_ratio:>6.2f} {line.score:>24.1f}   {line.low:.1f} to {line.high:.1f}"
        )
    return "\n".join(lines)


def _summary(scored: Outcome, fixed: Sequence[Outcome], *, labelled: bool, machine: str) -> FitSummary:
    base = fixed[-1]
    mix_score, expected = best_mix(fixed, scored.time_s)
    low, high = interval(scored.hits - expected)
    return FitSummary(
        images=len(scored.hits),
        labelled=labelled,
        drop_points=round(base.score - scored.score, 3),
        time_ratio=round(scored.time_s / base.time_s, 3),
        gain_points=round(scored.score - mix_score, 3),
        gain_low=round(low, 3),
        gain_high=round(high, 3),
        machine=machine,
    )


def _table(scored: Outcome, fixed: Sequence[Outcome], scoring: Answers, times: Times) -> list[Line]:
    base = fixed[-1]
    rows = [_line("chosen: " + describe(scored.spec), scored, base, "chosen")]
    _, expected = best_mix(fixed, scored.time_s)
    rows.append(_spread("best fixed size or mix of two at equal time", scored.time_s, expected, base, "mix"))
    columns = np.stack([item.hits for item in fixed]).astype(float)
    rows.append(
        _spread(
            "its own mix of sizes at random", _mix_time(scored, fixed), scored.looks @ columns, base, "random"
        )
    )
    rows += [_line(f"fixed {item.spec.sizes[0]}", item, base, "fixed") for item in fixed]
    if len(scoring.sizes) > 1:
        classic = replay(classic_policy("entropy", scoring.sizes), scoring, times)
        rows.append(_line("classic entropy rule", classic, base, "entropy"))
    score, time_s = oracle(scoring, times)
    rows.append(
        Line(
            name="oracle: the smallest right size",
            time_ratio=time_s / base.time_s,
            score=score,
            low=score,
            high=score,
            family="oracle",
        )
    )
    return rows


def _curves(fitting: Answers, scoring: Answers, times: Times, *, base: Outcome) -> list[Line]:
    """Return, for each family, the fastest policy at each drop: chosen on one half, shown on the other."""
    tried = [replay(spec, fitting, times) for spec in candidates(fitting)]
    measure = largest(tried)
    lines: dict[tuple[str, PolicySpec], Line] = {}
    for family in FAMILIES:
        members = [item for item in tried if family_of(item.spec) == family]
        for drop in LEVELS_POINTS:
            allowed = [item for item in members if item.score >= measure.score - drop - 1e-9]
            if not allowed:
                continue
            spec = min(allowed, key=lambda item: (item.time_s, -item.score)).spec
            lines[family, spec] = _line(describe(spec), replay(spec, scoring, times), base, family)
    return list(lines.values())


def describe(spec: PolicySpec) -> str:
    """Return a policy in a few words."""
    if spec.kind == "fixed":
        return f"fixed {spec.sizes[-1]}"
    sizes = "/".join(str(size) for size in spec.sizes)
    if spec.kind == "entropy":
        return f"entropy {sizes} at {', '.join(f'{bits:g}' for bits in spec.thresholds_bits)} bits"
    merged = ", averaged" if spec.average else ""
    bounds = ", ".join(f"{bits:g}" for bits in spec.look_bits)
    return f"two-look {sizes} above {bounds} bits{merged}"


def _line(name: str, outcome: Outcome, base: Outcome, family: str) -> Line:
    return _spread(name, outcome.time_s, outcome.hits.astype(float), base, family)


def _spread(name: str, time_s: float, hits: np.ndarray, base: Outcome, family: str) -> Line:
    low, high = interval(hits)
    return Line(
        name=name,
        time_ratio=time_s / base.time_s,
        score=float(100.0 * hits.mean()),
        low=low,
        high=high,
        family=family,
    )


def _mix_time(scored: Outcome, fixed: Sequence[Outcome]) -> float:
    return float(scored.looks @ np.array([item.time_s for item in fixed]))
