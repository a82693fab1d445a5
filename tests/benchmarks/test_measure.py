"""On a machine that is a script: its clock moves by what calls, waits and looks at the board take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from boardfit.benchmarks.measure import measure
from boardfit.benchmarks.records import Case
from boardfit.benchmarks.scenario import Plan
from boardfit.boards.records import Snapshot
from boardfit.errors import EngineError, InputError, RecipeError
from boardfit.runtime.results import Timings

PLAN = Plan(runs=2, duration_s=2.0, min_frames=8, warmup_s=0.1)
CAMERA_PLAN = Plan(runs=1, duration_s=5.0, min_frames=1, warmup_s=0.0)


@dataclass
class Answer:
    size: int
    timings: Timings


@dataclass
class Machine:
    """Runs a net whose frames take ``frame_s(index, run)``, and a board that says ``board(time_s, run)``.

    Attributes:
        asked: Mean of each frame that was asked, or the means of each batch.
        opened: Sessions so far; ``closed``: of those, the ones that were closed.
    """

    frame_s: Callable[[int, int], float] = lambda index, run: 0.01
    board: Callable[[float, int], Snapshot] = lambda time_s, run: Snapshot(time_s=time_s)
    size: Callable[[int], int] = lambda index: 224
    now_s: float = 1000.0
    load_s: float = 0.25
    probe_s: float = 0.005
    asked: list = field(default_factory=list)
    looked: list = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    looks: bool = False
    index: int = 0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def probe(self) -> Snapshot:
        self.now_s += self.probe_s
        return self.board(self.now_s, self.opened - 1)

    @contextmanager
    def open(self) -> Iterator[Session]:
        self.now_s += self.load_s
        self.opened += 1
        self.index = 0
        try:
            yield Session(self)
        finally:
            self.closed += 1


class Session:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        if machine.looks:
            self.look = lambda frame, size: machine.looked.append(size)

    def __call__(self, frame):
        machine = self.machine
        frames = frame if isinstance(frame, list) else [frame]
        means = [int(one.mean()) for one in frames]
        machine.asked.append(means if isinstance(frame, list) else means[0])
        took = machine.frame_s(machine.index, machine.opened - 1)
        machine.now_s += took
        share = took / len(frames)
        stages = (0.05 * share, 0.15 * share, 0.75 * share, 0.05 * share)
        answers = [Answer(machine.size(machine.index), Timings(*stages, share)) for _ in frames]
        machine.index += 1
        return answers if isinstance(frame, list) else answers[0]


@pytest.fixture
def machine() -> type[Machine]:
    return Machine


@pytest.fixture
def case() -> Callable[..., Case]:
    def make(scenario: str = "single-stream", **changes) -> Case:
        fields = {
            "scenario": scenario,
            "engine": "fake",
            "engine_version": "",
            "precision": "fp32",
            "threads": 1,
            "affinity": (),
            "sizes": (224,),
            "policy": "fixed",
            "frame_size_wh": (64, 48),
        }
        return Case(**{**fields, **changes})

    return make


@pytest.fixture
def frames() -> list[np.ndarray]:
    """Four flat pictures whose value is their number."""
    return [np.full((48, 64, 3), value, np.uint8) for value in range(4)]


def run_on(machine, case, frames, plan=PLAN, **kwargs):
    return measure(
        case,
        machine.open,
        frames,
        probe=machine.probe,
        plan=plan,
        clock=machine.clock,
        sleep=machine.sleep,
        **kwargs,
    )


def test_load_first_warm_up_and_steady_state_are_told_apart(machine, case, frames):
    found = run_on(machine(frame_s=lambda index, run: 0.5 if index == 0 else 0.01), case(), frames)
    for run in found.runs:
        assert run.load_s == pytest.approx(0.25)
        assert run.first_s == pytest.approx(0.5)
        assert run.warmup_s == pytest.approx((0.01,) * len(run.warmup_s))
        assert 10 <= len(run.warmup_s) <= 11
        assert set(run.latencies_s) == {0.01}
    assert found.valid


def test_each_run_has_a_session_of_its_own_which_is_closed(machine, case, frames):
    scripted = machine()
    assert len(run_on(scripted, case(), frames, Plan(runs=3, duration_s=0.1)).runs) == 3
    assert (scripted.opened, scripted.closed) == (3, 3)


@pytest.mark.parametrize(
    ("duration_s", "min_frames", "frames_run"),
    [(2.0, 8, 200), (0.5, 100, 100), (0.5, 97, 100), (0.015, 1, 4)],
    ids=["duration", "frames", "whole rounds", "at least one round"],
)
def test_a_run_ends_when_both_duration_and_frames_are_reached(
    machine, case, frames, duration_s, min_frames, frames_run
):
    plan = Plan(runs=1, duration_s=duration_s, min_frames=min_frames)
    run = run_on(machine(frame_s=lambda index, run: 0.0100001), case(), frames, plan).runs[0]
    assert run.frames == len(run.latencies_s) == frames_run
    assert run.duration_s == pytest.approx(frames_run * 0.01, rel=1e-3)


def test_frames_come_in_whole_rounds_in_changing_order_and_alike_in_each_run(machine, case, frames):
    scripted = machine(frame_s=lambda index, run: 0.0100001)
    run_on(scripted, case(), frames, Plan(runs=2, duration_s=0.4, min_frames=1, warmup_s=0.0))
    first, second = scripted.asked[1:41], scripted.asked[42:]
    assert first == second
    assert all(sorted(first[start : start + 4]) == [0, 1, 2, 3] for start in range(0, 40, 4))
    assert len({tuple(first[start : start + 4]) for start in range(0, 40, 4)}) > 3


def test_stages_stand_beside_the_latencies(machine, case, frames):
    run = run_on(machine(), case(), frames).runs[0]
    assert run.stages_s["entropy"] == pytest.approx((0.0005,) * run.frames)
    assert run.stages_s["inference"] == pytest.approx((0.0075,) * run.frames)
    assert sum(values[0] for values in run.stages_s.values()) == pytest.approx(0.01)


def test_the_board_is_watched_once_a_second_in_time_that_does_not_count(machine, case, frames):
    scripted = machine(probe_s=0.3, board=lambda time_s, run: Snapshot(time_s=time_s))
    plan = Plan(runs=1, duration_s=5.0, min_frames=1)
    run = run_on(scripted, case(), frames, plan).runs[0]
    assert len(run.trace) == 4
    assert run.duration_s == pytest.approx(5.0, abs=0.05)
    assert run.frames == pytest.approx(500, abs=4)
    times = [probe.time_s for probe in (run.before, *run.trace, run.after)]
    assert times == sorted(times)
    assert run.trace[1].time_s - run.trace[0].time_s == pytest.approx(1.3, abs=0.02)


def test_a_slow_net_is_watched_after_each_frame(machine, case, frames):
    run = run_on(
        machine(frame_s=lambda index, run: 3.0), case(), frames[:1], Plan(runs=1, min_frames=4)
    ).runs[0]
    assert (run.frames, len(run.trace)) == (4, 3)


def test_a_camera_that_is_too_fast_loses_frames_and_answers_the_newest(machine, case, frames):
    scripted = machine(frame_s=lambda index, run: 0.25)
    run = run_on(scripted, case("camera", fps=10.0), frames, Plan(runs=1, duration_s=5.0, warmup_s=0.0)).runs[
        0
    ]
    # An answer takes two and a half frames, so that of five frames three are lost.
    assert run.dropped / (run.dropped + run.frames) == pytest.approx(0.6, abs=0.02)
    assert min(run.ages_s) >= 0.25 - 1e-9
    assert max(run.ages_s) <= 0.35 + 1e-9
    assert len(run.ages_s) == run.frames


def test_a_camera_that_is_slow_enough_loses_none_and_is_waited_for(machine, case, frames):
    scripted = machine(frame_s=lambda index, run: 0.02)
    run = run_on(scripted, case("camera", fps=10.0), frames, Plan(runs=1, duration_s=5.0, warmup_s=0.0)).runs[
        0
    ]
    assert run.dropped == 0
    assert run.ages_s == pytest.approx((0.02,) * run.frames)
    assert run.frames == pytest.approx(10.0 * run.duration_s, abs=1.0)
    assert scripted.asked[1:9] == [0, 1, 2, 3, 0, 1, 2, 3]  # a film keeps its order


def test_watching_the_board_loses_no_frame(machine, case, frames):
    scripted = machine(frame_s=lambda index, run: 0.09, probe_s=0.5)
    run = run_on(scripted, case("camera", fps=10.0), frames, Plan(runs=1, duration_s=6.0)).runs[0]
    assert run.dropped == 0
    assert max(run.ages_s) == pytest.approx(0.09)


def test_offline_asks_in_batches(machine, case, frames):
    scripted = machine(frame_s=lambda index, run: 0.08)
    found = run_on(scripted, case("offline", batch=3), frames, Plan(runs=1, duration_s=1.0, warmup_s=0.0))
    run = found.runs[0]
    assert scripted.asked[1:4] == [[0, 1, 2], [3, 0, 1], [2, 3, 0]]
    assert run.frames == 3 * len(run.latencies_s)
    assert run.frames >= 64
    assert run.stages_s["inference"] == pytest.approx((0.06,) * len(run.latencies_s))


def test_offline_one_by_one_asks_no_lists(machine, case, frames):
    scripted = machine()
    run_on(scripted, case("offline"), frames, Plan(runs=1, duration_s=0.1))
    assert set(scripted.asked) == {0, 1, 2, 3}


def test_all_sizes_are_met_before_anything_counts(machine, case, frames):
    scripted = machine(looks=True, size=lambda index: (112, 224)[index % 2])
    run = run_on(scripted, case(sizes=(112, 224), policy="entropy"), frames, Plan(runs=1)).runs[0]
    assert scripted.looked == [112, 224]
    assert Counter(run.answered_sizes)[112] == pytest.approx(run.frames / 2, abs=1)


def test_progress_tells_each_run_and_its_faults(machine, case, frames):
    told = []
    hot = machine(board=lambda time_s, run: Snapshot(time_s, temperatures_c={"cpu": 81.0}, throttled=True))
    run_on(hot, case(), frames, progress=told.append)
    assert len(told) == 2
    assert "run 2 of 2, 204 frames, p50 10.000 ms" in told[1]
    assert "81 degrees C" in told[1]
    assert "throttled" in told[1]


def test_a_long_run_tells_every_ten_seconds_that_it_is_at_work(machine, case, frames):
    told = []
    warm = machine(board=lambda time_s, run: Snapshot(time_s, temperatures_c={"cpu": 50.0}))
    run_on(warm, case(), frames, Plan(runs=1, duration_s=35.0), progress=told.append)
    assert [text.partition(", ")[2] for text in told[:3]] == [
        f"1 thread: run 1 of 1, {seconds} s, 50 degrees C" for seconds in (10, 20, 30)
    ]
    assert len(told) == 4


@pytest.mark.parametrize("when", [0, 5, 50], ids=["first frame", "warm-up", "later"])
def test_a_clock_that_goes_back_ends_the_run_and_is_a_fault(machine, case, frames, when):
    scripted = machine(frame_s=lambda index, run: -3600.0 if index == when else 0.01)
    found = run_on(scripted, case(), frames, Plan(runs=1, duration_s=2.0, min_frames=8, warmup_s=0.1))
    assert not found.valid
    assert all(fault.startswith("clock: it went backwards") for fault in found.all_faults)
    assert found.runs[0].frames <= 200


@pytest.mark.parametrize("call", range(300, 306))
def test_a_clock_that_goes_back_anywhere_is_a_fault(machine, case, frames, call):
    scripted = machine()
    asked = 0

    def clock():
        nonlocal asked
        asked += 1
        if asked == call:
            scripted.now_s -= 0.5
        return scripted.now_s

    scripted.clock = clock
    found = run_on(scripted, case(), frames, Plan(runs=1, duration_s=5.0, min_frames=8))
    assert found.all_faults[0].startswith("clock: ")
    assert found.runs[0].frames < 400


def test_a_session_that_fails_is_closed(machine, case, frames):
    def fail(index, run):
        raise EngineError("broken")

    scripted = machine(frame_s=fail)
    with pytest.raises(EngineError, match="broken"):
        run_on(scripted, case(), frames)
    assert (scripted.opened, scripted.closed) == (1, 1)


def test_without_frames_nothing_is_measured(machine, case):
    with pytest.raises(InputError, match="no frame"):
        run_on(machine(), case(), [])


@pytest.mark.parametrize("fps", [None, 0.0, -5.0, 2000.0])
def test_a_camera_needs_a_rate(machine, case, frames, fps):
    with pytest.raises(RecipeError, match="frames per second"):
        run_on(machine(), case("camera", fps=fps), frames)


@pytest.mark.parametrize(
    "asked",
    [
        {"runs": 0},
        {"runs": -1},
        {"duration_s": 0.0},
        {"duration_s": float("nan")},
        {"duration_s": 1e9},
        {"min_frames": 0},
        {"min_frames": 10**9},
        {"warmup_s": -1.0},
    ],
    ids=str,
)
def test_a_plan_without_sense_is_refused(asked):
    with pytest.raises(RecipeError, match="expected"):
        Plan(**asked)
