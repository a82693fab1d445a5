"""The ladder: what is tried, in this order, before a quantized artifact is given up.

Better ranges; surgery on the net (see ``surgery``); training in simulated int8, where there is something to
train on; the worst layers in float; activations of 16 bits. Each step is kept only if it lowers the output
error, and the ladder ends at the first rung inside the gate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from boardfit.converters.quantize.bench import Bench
from boardfit.converters.quantize.blame import IMAGES, blame, worst_first
from boardfit.converters.quantize.gate import Verdict
from boardfit.converters.quantize.search import Candidate, best_ranges, with_float_layers
from boardfit.converters.targets import Exported

QAT = "qat"
ON_TOP = ("float layers", "int16x8", "fp16")
"""Steps that take the net as it stands; all others bring a net of their own."""
SHORTLIST = 12
"""Layers that are measured one by one before k is searched; more would take longer than it finds."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rung of the ladder.

    Attributes:
        name: ``ranges``, a variant's name, ``qat``, ``float layers``, or ``int16x8``.
        detail: What was chosen, in a few words.
        error: Output error on calibration images.
        kept: Whether it was the best so far.
        seconds: How long it took.
        verdict: The gate's, on validation images; None where the step was not kept.
    """

    name: str
    detail: str
    error: float
    kept: bool
    seconds: float
    verdict: Verdict | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "name": self.name,
            "detail": self.detail,
            "error": self.error if np.isfinite(self.error) else None,
            "kept": self.kept,
            "seconds": round(self.seconds, 1),
            "verdict": self.verdict.to_dict() if self.verdict else None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Climb:
    """Where the ladder ended.

    Attributes:
        best: The artifact inside the gate, or the best outside.
        verdict: The gate's.
        found: (M,) its answers to the validation images.
        steps: All that was tried, in order.
    """

    best: Candidate
    verdict: Verdict
    found: np.ndarray
    steps: tuple[Step, ...]


Rung = Callable[[Bench, Climb], Climb]


def climb(bench: Bench, *, scheme: str, rescue: bool = True) -> Climb:
    """Quantize, and rescue what is outside the gate.

    Args:
        bench: What to make and measure with.
        scheme: The precision that was asked for.
        rescue: Whether to go beyond the first rung; training is asked for apart from that.

    Raises:
        InputError: A tensor is not finite on some image.
        ExportError: The format's quantizer failed.
    """
    started = time.monotonic()
    best = best_ranges(bench, bench.twin, scheme=scheme, trained=bench.trained)
    verdict, found = bench.judge(best.exported)
    step = Step("ranges", best.method, best.error, True, time.monotonic() - started, verdict)
    state = Climb(best, verdict, found, (step,))
    trains = scheme == "int8" and bench.qat is not None
    if trains and bench.qat_always:
        state, trains = _trained(bench, state), False
    for rung in _rungs(bench, scheme, rescue=rescue, trains=trains):
        if state.verdict.passed:
            break
        state = rung(bench, state)
    return state


def _rungs(bench: Bench, scheme: str, *, rescue: bool, trains: bool) -> list[Rung]:
    training: list[Rung] = [_trained] if trains else []
    if not rescue:
        return training
    rungs: list[Rung] = [
        partial(_variant, name=name, make=make, scheme=scheme) for name, make in bench.variants.items()
    ]
    rungs += training
    if scheme == "int8":
        rungs.append(_float_layers)
        if "int16x8" in bench.quantizer.SCHEMES:
            rungs.append(_wide_activations)
    return rungs


def _variant(bench: Bench, state: Climb, *, name: str, make: Callable[[], Exported], scheme: str) -> Climb:
    """Quantize the net after surgery instead."""
    started = _say(bench, state, name)
    found = best_ranges(bench, make(), scheme=scheme)
    return _after(bench, state, found, name=name, detail=found.method, started=started)


def _trained(bench: Bench, state: Climb) -> Climb:
    """Quantize the net after training in simulated int8, with the ranges that it learned."""
    assert bench.qat is not None
    started = _say(bench, state, QAT)
    source, ranges = bench.qat()
    found = best_ranges(bench, source, scheme="int8", trained=ranges)
    verdict, answers = bench.judge(found.exported)
    # Labels may teach it to answer unlike the source, and better: the gate has the last word.
    kept = verdict.passed or (not state.verdict.passed and found.error < state.best.error)
    seconds = time.monotonic() - started
    step = Step(QAT, found.method, found.error, kept, seconds, verdict if kept else None)
    if not kept:
        return replace(state, steps=(*state.steps, step))
    return Climb(found, verdict, answers, (*state.steps, step))


def _float_layers(bench: Bench, state: Climb) -> Climb:
    """Leave the fewest layers in float that bring the artifact inside the gate."""
    started = _say(bench, state, "float layers")
    order = _ranked(bench, state.best)
    fails, count, inside, last = 0, 1, None, state.best
    while count <= max(1, len(order) // 2):
        last = with_float_layers(bench, state.best, frozenset(order[:count]))
        if bench.judge(last.exported)[0].passed:
            inside = last
            break
        fails, count = count, 2 * count
    while inside is not None and count - fails > 1:
        middle = (fails + count) // 2
        tried = with_float_layers(bench, state.best, frozenset(order[:middle]))
        if bench.judge(tried.exported)[0].passed:
            inside, count = tried, middle
        else:
            fails = middle
    found = inside or last
    detail = f"{len(found.keep_float)} of {len(order)}: {', '.join(sorted(found.keep_float))}"
    return _after(bench, state, found, name="float layers", detail=detail, started=started)


def _wide_activations(bench: Bench, state: Climb) -> Climb:
    """Take activations of 16 bits."""
    started = _say(bench, state, "int16x8")
    found = best_ranges(bench, state.best.source, scheme="int16x8")
    return _after(bench, state, found, name="int16x8", detail=found.method, started=started)


def _ranked(bench: Bench, candidate: Candidate) -> list[str]:
    """Return the layers that run in integers, the most harmful first.

    Those that add the most noise are measured one by one: how low does the output error fall without it?
    """
    rows = blame(bench.quantizer, candidate.exported, candidate.source, bench.calibration[:IMAGES])
    names = [row.layer for row in worst_first(rows)]
    error = {name: with_float_layers(bench, candidate, frozenset([name])).error for name in names[:SHORTLIST]}
    return [*sorted(error, key=lambda name: error[name]), *names[SHORTLIST:]]


def _after(bench: Bench, state: Climb, found: Candidate, *, name: str, detail: str, started: float) -> Climb:
    """Return the state with one more step, standing on the new candidate if its output error is lower."""
    kept = found.error < state.best.error
    verdict, answers = bench.judge(found.exported) if kept else (state.verdict, state.found)
    seconds = time.monotonic() - started
    step = Step(name, detail, found.error, kept, seconds, verdict if kept else None)
    return Climb(found if kept else state.best, verdict, answers, (*state.steps, step))


def _say(bench: Bench, state: Climb, rung: str) -> float:
    side = "inside" if state.verdict.passed else "outside"
    bench.progress(
        f"{state.best.exported.artifact.name} is {side} the gate, {state.verdict.text}: trying {rung}"
    )
    return time.monotonic()
