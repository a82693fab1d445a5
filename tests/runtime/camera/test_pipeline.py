from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from watched import frames_in

from boardfit.errors import CameraError, EngineError, EngineLost, RecipeError
from boardfit.runtime import camera
from boardfit.runtime.camera.records import WatchSettings
from boardfit.runtime.camera.sinks.video import Recording
from boardfit.runtime.camera.source import Source
from boardfit.runtime.camera.stats import Ring
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.policy.budget import Budget, BudgetSettings
from boardfit.runtime.policy.motion import MotionSettings
from boardfit.runtime.session import load


@pytest.fixture
def slow_model(tmp_path):
    write_fake_bundle(tmp_path / "slow.boardfit", sizes=(32,), delay_s=0.05)
    with load(tmp_path / "slow.boardfit") as session:
        yield session


@pytest.fixture
def film(new_bench):
    """Opens a source of 40 frames, each of which counts."""

    def open_film(frames: int = 40, name: str = "film"):
        settings = WatchSettings(stall_s=None, frozen_s=None)
        bench = new_bench(interval_s=0.001, frames=frames)
        return Source(bench, name=name, settings=settings, live=False)

    return open_film


def test_every_frame_of_a_film_is_answered_in_order_as_if_alone(film, model):
    with film() as source:
        answers = list(camera.loop(source, model))
    assert [frame.index for frame, _ in answers] == list(range(40))
    for frame, result in answers:
        np.testing.assert_array_equal(result.scores, model(frame.image).scores)


def test_leaving_the_iteration_ends_its_threads(bench, model, held):
    with camera.open(bench) as source:
        before = held()
        for _ in camera.loop(source, model):
            break
        assert held() == before
        assert next(iter(camera.loop(source, model)))  # and the source may be used again


def test_two_loops_on_one_camera_are_refused(bench, model):
    with (
        camera.open(bench) as source,
        camera.loop(source, model),
        pytest.raises(CameraError, match="read by another loop"),
    ):
        camera.loop(source, model)


def test_overload_drops_frames_and_keeps_answers_young(slow_model):
    with camera.open("synthetic:64x48@200") as source, camera.loop(source, slow_model) as running:
        ages = []
        for frame, _ in running:
            ages.append(time.monotonic() - frame.time_s)
            if len(ages) == 30:
                break
        assert running.counters["dropped"] >= 5 * len(ages)
    # A frame waits for a few milliseconds before its inference; in a second lane it would wait for one more.
    # The lower quartile: other jobs disturb single frames.
    assert sorted(ages)[len(ages) // 4] < 1.7 * 0.05


def test_the_next_frame_is_not_taken_while_the_body_is_busy(slow_model):
    with camera.open("synthetic:64x48@200") as source, camera.loop(source, slow_model) as running:
        for count, _ in enumerate(running):
            time.sleep(0.15)
            if count == 3:
                break
        assert running.counters["results"] == 4
        # One was under way beside the body, and none beyond it.
        assert running._lanes._taken <= 5


def test_stop_ends_a_loop_without_frames(bench, model):
    bench.fault = "unplugged"
    with camera.open(bench, wait=True) as source:
        running = camera.loop(source, model)
        threading.Timer(0.2, running.stop).start()
        began = time.monotonic()
        assert list(running) == []
        assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("frames", [40, 5], ids=["in-the-middle", "at-the-end"])
def test_stop_ends_a_loop_beside_a_sink_that_hangs(film, model, frames):
    go = threading.Event()
    with film(frames) as source:
        running = camera.loop(source, model, sinks=[lambda answer: go.wait(30.0)])
        threading.Timer(0.5, running.stop).start()
        began = time.monotonic()
        answers = list(running)
        assert time.monotonic() - began < 10.0
    go.set()
    assert 5 <= len(answers) < 40


class Failing:
    """A model that fails on some of its calls."""

    def __init__(self, model, fails, error=None) -> None:
        self.model, self.fails, self.calls = model, fails, 0
        self.error = error or EngineError("the engine died")

    def __call__(self, frame):
        self.calls += 1
        if self.fails(self.calls):
            raise self.error
        return self.model(frame)


def test_a_sink_may_close_its_loop(film, model, tmp_path):
    events = []
    with film(20) as source:

        def end(answer) -> None:
            running.close()

        out = tmp_path / "out.avi"
        running = camera.loop(
            source, model, sinks=[end, Recording(out, fps=10.0, real_time=False)], on_event=events.append
        )
        answers = len(list(running))
    assert not [event for event in events if event.kind == "sink-failed"]
    assert 1 <= frames_in(out) <= answers


def test_who_closes_a_loop_second_waits_for_its_end(film, model, until):
    class Slow:
        closed = False

        def write(self, item) -> None: ...

        def close(self) -> None:
            time.sleep(0.3)
            self.closed = True

    slow = Slow()
    with film(20) as source:
        running = camera.loop(source, model, sinks=[slow])
        first = threading.Thread(target=running.close)
        first.start()
        until(lambda: running._closed)
        running.close()
        assert slow.closed
        first.join()


def test_a_frame_that_fails_is_an_event_and_the_next_one_works(film, model):
    events = []
    with film() as source:
        running = camera.loop(source, Failing(model, lambda call: call % 4 == 0), on_event=events.append)
        answers = list(running)
    assert len(answers) == 30 and running.stats.failed == 10
    failed = [event for event in events if event.kind == "frame-failed"]
    assert failed and failed[0].detail == "the engine died"


def test_a_listener_that_fails_ends_neither_sink_nor_loop(film, model):
    def listener(event):
        raise RuntimeError("a slip")

    with film() as source:
        failing = Failing(model, lambda call: call == 5)
        running = camera.loop(source, failing, sinks=[lambda answer: 1 / 0], on_event=listener)
        assert len(list(running)) == 39
    assert running.counters["sinks_dropped"] == 39


def test_a_model_that_only_fails_ends_the_loop(film, model):
    with film() as source, pytest.raises(EngineError, match="the engine died"):
        list(camera.loop(source, Failing(model, lambda call: True)))


def test_a_slip_of_the_caller_is_raised_at_once(film, model):
    with film() as source:
        failing = Failing(model, lambda call: True, TypeError("a slip"))
        with pytest.raises(TypeError, match="a slip"):
            list(camera.loop(source, failing))
        assert failing.calls <= 3


def test_an_error_in_the_body_ends_the_threads(bench, model, held):
    with camera.open(bench) as source:
        before = held()
        with pytest.raises(ZeroDivisionError), camera.loop(source, model) as running:
            for _ in running:
                raise ZeroDivisionError
        assert held() == before


def test_no_source_is_no_loop(model):
    with pytest.raises(RecipeError, match="without a source"):
        camera.loop([], model)


@pytest.mark.parametrize("batch", [True, False], ids=["together", "in-turn"])
def test_several_cameras_share_an_engine(new_bench, model, batch):
    with camera.open(new_bench(), name="left") as left, camera.open(new_bench(), name="right") as right:
        seen = {"left": [], "right": []}
        for frame, result in camera.loop([left, right], model, batch=batch):
            seen[frame.source].append(frame.index)
            np.testing.assert_allclose(result.scores, model(frame.image).scores, rtol=1e-5, atol=1e-7)
            if min(map(len, seen.values())) == 5:
                break
    assert all(indices == sorted(set(indices)) for indices in seen.values())


@pytest.fixture
def ten_films(film):
    """Ten films of 30 frames, which a loop answers up to ten at a time."""
    with ExitStack() as stack:
        yield [stack.enter_context(film(30, name=f"film {number}")) for number in range(10)]


@pytest.mark.parametrize("batch", [True, False], ids=["together", "in-turn"])
def test_one_lost_call_does_not_end_a_loop_of_ten_cameras(ten_films, model, batch):
    events = []
    failing = Failing(model, lambda call: call == 2)
    running = camera.loop(ten_films, failing, batch=batch, on_event=events.append)
    answers = list(running)
    assert len(answers) == 300 - running.stats.failed
    assert 1 <= running.stats.failed <= (10 if batch else 1), "in turn, the others have their answers"
    failed = [event.source for event in events if event.kind == "frame-failed"]
    assert len(failed) == len(set(failed)) == running.stats.failed


@pytest.mark.parametrize("batch", [True, False], ids=["together", "in-turn"])
def test_ten_lost_calls_in_a_row_end_it(ten_films, model, batch):
    failing = Failing(model, lambda call: call > 3)
    with pytest.raises(EngineError, match="the engine died"):
        list(camera.loop(ten_films, failing, batch=batch))
    assert 13 <= failing.calls <= 13 + 2 * 10  # and what was under way in the other lane


def test_two_cameras_of_one_name_are_refused(model):
    with camera.open("synthetic") as one, camera.open("synthetic") as other:
        with pytest.raises(RecipeError, match="one name"):
            camera.loop([one, other], model)
        assert camera.loop(one, model), "neither of them was claimed"


def test_an_engine_that_is_lost_over_the_measurement_is_measured_again(model, ten_films, monkeypatch):
    calls = []

    def measured(*_: object) -> bool:
        calls.append(None)
        if len(calls) == 1:
            raise EngineLost("killed", "hung")
        return True

    monkeypatch.setattr("boardfit.runtime.camera.pipeline.gains_by_batches", measured)
    answers = list(camera.loop(ten_films, model))
    assert len(answers) == 300
    assert len(calls) >= 2  # two lanes may measure at once


def test_where_nothing_moves_the_last_answer_stands(bench, model):
    bench.fault = "frozen"
    settings = WatchSettings(frozen_s=None)
    motion = MotionSettings(max_age_s=0.2)
    with (
        camera.open(bench, settings=settings) as source,
        camera.loop(source, model, motion=motion) as running,
    ):
        results = []
        for _, result in running:
            results.append(result)
            if len(results) == 60:
                break
        assert 0 < running.stats.reused < 60
        assert running.stats.results == running.stats.reused + sum(running.stats.by_size.values())
    assert 1 < len({id(result) for result in results}) < 20, "reused, but not for ever"


def test_a_missed_deadline_lowers_the_size(tmp_path, film):
    write_fake_bundle(tmp_path / "x.boardfit", sizes=(32, 64), delay_s=0.01)
    events = []
    with load(tmp_path / "x.boardfit", policy="fixed") as model, film() as source:
        budget = Budget(BudgetSettings(fps=200.0), model.sizes)
        sizes = [
            result.size for _, result in camera.loop(source, model, budget=budget, on_event=events.append)
        ]
    assert sizes[0] == 64 and sizes[-1] == 32
    assert [event.detail for event in events if event.kind == "size-limit"] == [
        "64 to 32: 200 frames a second were missed"
    ]


def test_a_budget_follows_a_swap_to_other_sizes(tmp_path, film):
    from boardfit.runtime.model import load as load_model
    from boardfit.runtime.swap import Trial

    write_fake_bundle(tmp_path / "old.boardfit", sizes=(32, 64))
    write_fake_bundle(tmp_path / "new.boardfit", sizes=(24, 48), delay_s=0.01)
    with load_model(tmp_path / "old.boardfit") as model, film() as source:
        budget = Budget(BudgetSettings(fps=200.0), model.sizes)
        running = camera.loop(source, model, budget=budget)
        for count, _ in enumerate(running):
            if count == 3:
                model.swap(tmp_path / "new.boardfit", trial=Trial(frames=0, max_slowdown=None))
        assert budget.limit == model.size_limit == 24


def test_a_budget_needs_a_model_that_can_be_limited(bench):
    with camera.open(bench) as source, pytest.raises(RecipeError, match="size_limit"):
        camera.loop(source, lambda frame: None, budget=Budget(BudgetSettings(fps=5.0), (32,)))


def test_times_and_counts_are_at_hand(film, model):
    with film() as source:
        running = camera.loop(source, model)
        count = len(list(running))
    stages = running.stats.percentiles_s()
    assert set(stages) == {"wait", "entropy", "preprocess", "inference", "postprocess", "age", "interval"}
    assert all(0.0 <= p50 <= p90 <= p99 for p50, p90, p99 in stages.values())
    assert running.counters["results"] == running.counters["frames"] == count == 40


def test_a_ring_keeps_the_last_values():
    ring = Ring(kept=4)
    assert ring.percentiles() is None
    for value in range(10):
        ring.add(float(value))
    assert ring.percentiles()[0] == 7.5


def test_memory_stays_flat_while_sizes_switch(new_bench, model, held):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    settings = WatchSettings(stall_s=None, frozen_s=None)
    bench = new_bench(interval_s=0.0, frames=6000)
    with Source(bench, name="film", settings=settings, live=False) as source:
        for frame, _ in camera.loop(source, model, sinks=[id]):
            model.size_limit = model.sizes[frame.index // 7 % len(model.sizes)]
            if frame.index == 2000:
                before, threads_and_files = resident(), held()
            if frame.index == 5990:
                after = resident()
                assert held() == threads_and_files
    # Frames that stay would take 37 MB.
    assert after - before < 8_000_000


def test_a_crashing_engine_costs_frames_and_not_the_loop(tmp_path, film):
    from boardfit.runtime.model import load as load_model

    write_fake_bundle(tmp_path / "bad.boardfit", fault="crash", after=20)
    events = []
    with load_model(tmp_path / "bad.boardfit", isolate=True) as model, film(60) as source:
        running = camera.loop(source, model, on_event=events.append)
        answers = list(running)
        assert running.counters["engines_replaced"] == model.isolation.crashed >= 1
    assert running.stats.failed == 60 - len(answers) >= 1
    assert answers[-1][0].index >= 50, "the loop went on"
    assert "frame-failed" in {event.kind for event in events}
