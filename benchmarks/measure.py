"""Measure a case: any callable from frame to result, run by run, with the board watched meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from boardfit.benchmarks.records import STAGES, Case, Measurement, Run
from boardfit.benchmarks.scenario import MOST_FRAMES, Asked, Plan, asked_frames
from boardfit.benchmarks.validity import measurement_faults, run_faults
from boardfit.boards.records import Snapshot
from boardfit.timing import Timed, percentile, time_each

PROBE_EVERY_S = 1.0
TELL_EVERY_S = 10.0

_Found = TypeVar("_Found")


class Answer(Protocol):
    """What a session answers: the part of a Result that is kept."""

    @property
    def size(self) -> int:
        """Input side in pixels that answered."""
        ...

    @property
    def timings(self) -> Any:
        """Seconds by stage: ``entropy_s``, ``preprocess_s``, ``inference_s``, ``postprocess_s``."""
        ...


Session = Callable[[Any], Any]
"""Answers a frame (HxWx3 uint8 BGR) with an Answer; in the offline scenario, a list of frames with a list."""

OpenSession = Callable[[], AbstractContextManager[Session]]


class Watch:
    """A clock that stands still while something else is done, so that looking at the board costs no time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start from a clock in seconds."""
        self._clock = clock
        self._held_s = 0.0

    def __call__(self) -> float:
        """Return the seconds that have gone by but for those that were held."""
        return self._clock() - self._held_s

    def hold(self, work: Callable[[], _Found]) -> _Found:
        """Do something outside the time."""
        begin = self._clock()
        try:
            return work()
        finally:
            self._held_s += self._clock() - begin


def measure(
    case: Case,
    open_session: OpenSession,
    frames: Sequence[np.ndarray],
    *,
    probe: Callable[[], Snapshot],
    prepare: Callable[[], object] = lambda: None,
    plan: Plan | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda _: None,
    show_times: bool = True,
) -> Measurement:
    """Measure a case in several runs, each with a session of its own, and judge them.

    Args:
        case: What is measured. Its scenario, frames per second and batch say how frames come.
        open_session: Returns a context manager that gives the session, such as ``boardfit.load``: the time
            until it is entered is the cold start. The first one of a process also imports the engine.
        frames: HxWx3 uint8 BGR, asked in turn.
        probe: Reads the board's state; called before, after, and about once a second between two frames, in
            time that does not count.
        prepare: Called before each session is opened, in time that does not count.
        plan: How long and how often; five runs of 10 s by default.
        clock: Seconds, ascending.
        sleep: Waits for seconds of that clock.
        progress: Told after each run, and every ten seconds of a longer one.
        show_times: Whether progress tells times: those of an emulated processor are not shown.

    Raises:
        InputError: There is no frame.
        RecipeError: The case and the scenario contradict each other.
        ReportError: The clock went backwards before a frame could be timed.
        BoardfitError: What the session raises.
    """
    plan = plan or Plan()
    runs = []
    for number in range(1, plan.runs + 1):
        prepare()
        tell = partial(_tell, progress, f"{case.name}: run {number} of {plan.runs}")
        run = _one_run(
            case, open_session, frames, probe=probe, plan=plan, clock=clock, sleep=sleep, tell=tell
        )
        runs.append(replace(run, faults=run_faults(run)))
        tell(_told(runs[-1], show_times=show_times))
    return Measurement(case=case, runs=tuple(runs), faults=measurement_faults(runs))


def _one_run(
    case: Case,
    open_session: OpenSession,
    frames: Sequence[np.ndarray],
    *,
    probe: Callable[[], Snapshot],
    plan: Plan,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    tell: Callable[[str], None],
) -> Run:
    watch = Watch(clock)
    begin = watch()
    with open_session() as session:
        load_s = watch() - begin
        before = watch.hold(probe)
        call = _caller(case, session)

        def timed() -> Iterable[Timed[Asked, Sequence[Answer]]]:
            return time_each(call, asked_frames(case, frames, clock=watch, sleep=sleep), clock=watch)

        first_s = next(iter(timed())).duration_s
        _look_at_each_size(case, session, frames[0])
        warmup = _Taken()
        if plan.warmup_s > 0.0:
            warmup.gather(timed(), enough=lambda taken: taken.elapsed_s >= plan.warmup_s)
        counted = _Taken()
        trace = _Trace(watch, probe, tell)
        counted.gather(timed(), enough=_enough(case, plan, len(frames)), between=trace.look)
        after = watch.hold(probe)
    return Run(
        load_s=_rounded(load_s),
        first_s=_rounded(first_s),
        warmup_s=tuple(map(_rounded, warmup.latencies_s)),
        latencies_s=tuple(map(_rounded, counted.latencies_s)),
        stages_s=counted.stages(),
        answered_sizes=tuple(counted.sizes),
        duration_s=counted.elapsed_s,
        before=before,
        after=after,
        trace=tuple(trace.seen),
        ages_s=tuple(map(_rounded, counted.ages_s)),
        dropped=counted.missed,
    )


@dataclass(slots=True)
class _Taken:
    """What was seen of one row of calls."""

    latencies_s: list[float] = field(default_factory=list)
    timings: list[tuple[Any, ...]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    missed: int = 0
    begin_s: float = 0.0
    end_s: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """From the first begin to the last end."""
        return self.end_s - self.begin_s

    def gather(
        self,
        calls: Iterable[Timed[Asked, Sequence[Answer]]],
        *,
        enough: Callable[[_Taken], bool],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Take calls until there are enough, or the clock goes backwards: it could run for ever."""
        for call in calls:
            if not self.latencies_s:
                self.begin_s = self.end_s = call.begin_s
            went_back = call.begin_s < self.end_s or call.end_s < call.begin_s
            self.latencies_s.append(call.duration_s)
            self.timings.append(tuple(answer.timings for answer in call.answer))
            self.sizes.extend(answer.size for answer in call.answer)
            if call.argument.due_s is not None:
                self.ages_s.append(call.end_s - call.argument.due_s)
            self.missed += call.argument.missed
            self.end_s = call.end_s
            if went_back or len(self.sizes) >= MOST_FRAMES or enough(self):
                return
            between()

    def stages(self) -> Mapping[str, tuple[float, ...]]:
        """Return seconds per call by stage; of a batch, the sum over its frames."""
        return {
            stage: tuple(_rounded(sum(getattr(one, f"{stage}_s") for one in call)) for call in self.timings)
            for stage in STAGES
        }


class _Trace:
    """Looks at the board about once a second, and tells now and then that it is still at work."""

    def __init__(self, watch: Watch, probe: Callable[[], Snapshot], tell: Callable[[str], None]) -> None:
        self.seen: list[Snapshot] = []
        self._watch = watch
        self._probe = probe
        self._tell = tell
        self._begin_s = watch()
        self._due_s = self._begin_s + PROBE_EVERY_S
        self._telling_s = self._begin_s + TELL_EVERY_S

    def look(self) -> None:
        """Look if it is time."""
        now_s = self._watch()
        if now_s < self._due_s:
            return
        self.seen.append(self._watch.hold(self._probe))
        self._due_s = now_s + PROBE_EVERY_S
        if now_s >= self._telling_s:
            self._tell(f"{now_s - self._begin_s:.0f} s{_heat_text(self.seen[-1])}")
            self._telling_s = now_s + TELL_EVERY_S


def _caller(case: Case, session: Session) -> Callable[[Asked], Sequence[Answer]]:
    """Return what turns a request into answers: a list of one but for batches."""
    if case.scenario == "offline" and case.batch > 1:
        return lambda asked: session(list(asked.frames))
    return lambda asked: (session(asked.frames[0]),)


def _look_at_each_size(case: Case, session: Session, frame: np.ndarray) -> None:
    """Make a session load the files of all sizes that may answer, where it has a ``look``."""
    look = getattr(session, "look", None)
    if look is not None and len(case.sizes) > 1:
        for size in case.sizes:
            look(frame, size)


def _enough(case: Case, plan: Plan, count: int) -> Callable[[_Taken], bool]:
    """Return what says when a run may end: after whole rounds of the frames, unless a camera sets the pace.

    Else repeats that differ a little in speed would end in other frames, and so differ more.
    """
    whole = count if case.scenario == "single-stream" else 1

    def enough(taken: _Taken) -> bool:
        frames = len(taken.sizes)
        return frames >= plan.min_frames and taken.elapsed_s >= plan.duration_s and frames % whole == 0

    return enough


def _rounded(seconds: float) -> float:
    """Return whole nanoseconds: no clock tells more, and the report is half as long."""
    return round(seconds, 9)


def _told(run: Run, *, show_times: bool) -> str:
    p50, p90 = (1e3 * percentile(run.latencies_s, percent) for percent in (50.0, 90.0))
    times = f", p50 {p50:.3f} ms, p90 {p90:.3f} ms" if show_times else ""
    faults = "".join(f"\n  {fault}" for fault in run.faults)
    return f"{run.frames} frames{times}{_heat_text(run.after)}{faults}"


def _heat_text(state: Snapshot) -> str:
    return "" if state.hottest_c is None else f", {state.hottest_c:.0f} degrees C"


def _tell(progress: Callable[[str], None], where: str, text: str) -> None:
    progress(f"{where}, {text}")
