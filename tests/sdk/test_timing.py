from __future__ import annotations

import numpy as np
import pytest

from boardfit.errors import RecipeError
from boardfit.timing import Samples, machine_name, percentile, time_each, time_paired


class Clock:
    """Stands still but for what the calls add to it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def call(self, log: list[str], name: str, durations_s: list[float]):
        script = iter(durations_s)

        def run() -> None:
            log.append(name)
            self.now_s += next(script)

        return run


def test_rounds_interleave_and_turn_round():
    clock, log = Clock(), []
    calls = {name: clock.call(log, name, [1.0] * 4) for name in "abc"}
    time_paired(calls, rounds=3, warmup=1, clock=clock)
    assert "".join(log) == "abc" + "cba" + "abc" + "cba"


def test_a_lead_in_and_a_burst_stand_together():
    clock, log = Clock(), []
    calls = {name: clock.call(log, name, [1.0] * 20) for name in "ab"}
    found = time_paired(calls, rounds=1, warmup=1, lead_in_s=1.5, burst=3, clock=clock)
    assert "".join(log) == "aaaaa" + "bbbbb" + "bbbbb" + "aaaaa"
    assert len(found["a"].values_s) == 3 and len(found["a"].warmup_s) == 3


def test_a_pause_comes_before_each_timed_call_and_is_not_timed(monkeypatch):
    clock, log = Clock(), []
    monkeypatch.setattr("time.sleep", lambda seconds: log.append(f"-{seconds:g}-"))
    calls = {name: clock.call(log, name, [1.0] * 20) for name in "ab"}
    found = time_paired(calls, rounds=1, warmup=0, burst=2, pause_s=3.0, clock=clock)
    assert "".join(log) == "-3-a-3-a-3-b-3-b"
    assert set(found["a"].values_s) == {1.0}


def test_what_the_call_before_left_running_is_not_timed():
    clock = Clock()
    spinning_until_s = [0.0]

    def pool() -> None:
        clock.now_s += 1.0
        spinning_until_s[0] = clock.now_s + 5.0

    def other() -> None:
        clock.now_s += 3.0 if clock.now_s < spinning_until_s[0] else 2.0

    calls = {"pool": pool, "other": other}
    assert set(time_paired(calls, rounds=4, clock=clock)["other"].values_s) == {3.0}
    led = time_paired(calls, rounds=4, lead_in_s=6.0, burst=2, clock=clock)
    assert set(led["other"].values_s) == {2.0}


def test_warm_up_rounds_count_nowhere():
    clock = Clock()
    calls = {"a": clock.call([], "a", [9.0, 8.0, 1.0, 2.0, 4.0])}
    samples = time_paired(calls, rounds=3, warmup=2, clock=clock)["a"]
    assert samples.warmup_s == (9.0, 8.0)
    assert samples.values_s == (1.0, 2.0, 4.0)
    assert samples.p50_s == 2.0


def test_only_the_call_itself_is_timed():
    clock = Clock()
    calls = {"slow": clock.call([], "slow", [5.0] * 2), "fast": clock.call([], "fast", [0.25] * 2)}
    found = time_paired(calls, rounds=2, warmup=0, clock=clock)
    assert list(found) == ["slow", "fast"]
    assert found["slow"].values_s == (5.0, 5.0)
    assert found["fast"].values_s == (0.25, 0.25)


def test_the_ratio_pairs_the_rounds():
    # The machine slows down tenfold: the medians alone, 11 and 10, would say 1.1.
    mine = Samples(values_s=(2.0, 11.0, 40.0))
    other = Samples(values_s=(1.0, 10.0, 20.0))
    assert mine.ratio_to(other) == 2.0


def test_samples_of_different_runs_are_not_compared():
    with pytest.raises(RecipeError, match="2 rounds against 1"):
        Samples(values_s=(1.0, 2.0)).ratio_to(Samples(values_s=(1.0,)))


@pytest.mark.parametrize(("rounds", "warmup"), [(0, 0), (1, -1), (-3, 2)])
def test_counts_without_sense_are_refused(rounds, warmup):
    with pytest.raises(RecipeError):
        time_paired({}, rounds=rounds, warmup=warmup)


def test_samples_need_a_value():
    with pytest.raises(RecipeError):
        Samples(values_s=())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("percent", [0, 50, 90, 99, 100])
def test_percentiles_are_numpys(count, percent):
    values = np.random.RandomState(count).uniform(size=count)
    assert percentile(list(values), percent) == pytest.approx(np.percentile(values, percent))


def test_percentiles_of_samples():
    samples = Samples(values_s=tuple(float(i) for i in range(101)))
    assert (samples.p50_s, samples.p90_s, samples.p99_s) == (50.0, 90.0, 99.0)


def test_the_machine_has_a_name():
    import platform

    assert platform.machine() in machine_name()
    assert "core" in machine_name()


def test_one_call_after_the_other_is_timed_and_nothing_between():
    clock = Clock()

    def arguments():
        for number in range(1, 10):
            clock.now_s += 100.0
            yield number

    def call(number: int) -> str:
        clock.now_s += number
        return "x" * number

    taken = []
    for timed in time_each(call, arguments(), clock=clock):
        clock.now_s += 1000.0
        taken.append((timed.argument, timed.answer, timed.duration_s))
        if len(taken) == 3:
            break
    assert taken == [(1, "x", 1.0), (2, "xx", 2.0), (3, "xxx", 3.0)]
    assert timed.begin_s == 100.0 + 3 * 100.0 + 2 * 1000.0 + 3.0


def test_a_clock_that_goes_back_gives_a_duration_below_zero():
    clock = Clock()

    def call(_argument: int) -> None:
        clock.now_s -= 5.0

    assert next(time_each(call, [0], clock=clock)).duration_s == -5.0
