"""Each rule by itself, at its borders. How often each is right on noisy runs: evidence/bench_faults.py."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boardfit.benchmarks.records import Run
from boardfit.benchmarks.validity import (
    drifted,
    machine_busy,
    measurement_faults,
    repeats_disagree,
    rising_by_chance,
    run_faults,
    throttled,
)
from boardfit.boards.records import Snapshot

EVIDENCE = Path(__file__).resolve().parents[2] / "benchmarks" / "evidence"


def run_of(latencies_s, *, sizes=None, probes=None, **changes) -> Run:
    values = tuple(float(value) for value in latencies_s)
    probes = probes or [Snapshot(time_s=float(index)) for index in range(8)]
    fields = {
        "load_s": 0.1,
        "first_s": 0.1,
        "warmup_s": (),
        "latencies_s": values,
        "stages_s": {},
        "answered_sizes": tuple(sizes or [224] * len(values)),
        "duration_s": sum(values),
        "before": probes[0],
        "after": probes[-1],
        "trace": tuple(probes[1:-1]),
    }
    return Run(**{**fields, **changes})


def noisy(count=500, *, seed=0, sigma=0.02) -> np.ndarray:
    return 0.01 * np.exp(np.random.RandomState(seed).normal(0.0, sigma, count))


def watched(**rows) -> Run:
    """A steady run whose probes have one value each of every row."""
    count = len(next(iter(rows.values())))
    probes = [
        Snapshot(time_s=float(index), **{name: values[index] for name, values in rows.items()})
        for index in range(count)
    ]
    return run_of([0.01] * 100, probes=probes)


def test_a_steady_run_has_no_fault():
    assert run_faults(run_of(noisy())) == ()


@pytest.mark.parametrize("where", [0, 3, 7], ids=["before", "between", "after"])
def test_one_look_that_says_throttled_is_enough(where):
    flags = [index == where for index in range(8)]
    assert "in 1 of 8 probes" in throttled(watched(throttled=flags))


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ([0, 0x50005, 0x50005], "went from 0x0 to 0x50005"),
        ([0x50000, 0x50000, 0x50000], None),  # of days ago
        ([0x50000, 0x50000, 0xD0008], "went from 0x50000 to 0xd0008"),
        ([None, None, None], None),
    ],
    ids=["now", "long ago", "more", "unknown"],
)
def test_bits_that_come_up_say_throttled(bits, told):
    found = throttled(watched(throttle_bits=bits))
    assert found is None if told is None else told in found


GHZ = 1e9


@pytest.mark.parametrize(
    ("clocks_hz", "fault"),
    [
        ([0.6] + [2.4] * 7, False),  # it was idle before the first frame
        ([2.4] * 5 + [1.5] * 3, True),
        ([2.4, 2.4, 2.4, 1.5, 2.4, 2.4, 2.4, 2.4], False),  # one look between two frames
        ([2.40, 2.41, 2.39, 2.40, 2.35, 2.33, 2.34, 2.33], False),
        ([2.4, 2.4, 2.4, 1.5], True),
        ([2.4, 2.4, 1.5], False),  # of two looks during the run nothing is said
    ],
    ids=["idle before", "fallen", "one dip", "turbo", "three looks", "two looks"],
)
def test_a_clock_that_falls_and_stays_low_says_throttled(clocks_hz, fault):
    clocks = [{"cpu0": 0.3 * GHZ, "cpu1": clock * GHZ} for clock in clocks_hz]
    run = watched(clocks_hz=clocks)
    assert (throttled(run) is not None) == fault
    assert throttled(replace(run, ages_s=(0.1,))) is None  # a camera lets the clock fall in each pause
    limited = watched(max_clocks_hz=clocks)
    assert (throttled(limited) is not None) == fault
    assert (throttled(replace(limited, ages_s=(0.1,))) is not None) == fault


def test_the_words_have_the_numbers():
    run = watched(
        clocks_hz=[{"cpu0": clock * GHZ} for clock in (2.4, 2.4, 2.4, 2.4, 1.5, 1.5, 1.5)],
        temperatures_c=[{"cpu": heat} for heat in (50.0, 60.0, 70.0, 80.0, 85.0, 84.0, 84.0)],
    )
    assert throttled(run) == "throttled: the clock fell from 2400 to 1500 MHz, at up to 85 degrees C"


@pytest.mark.parametrize(
    ("shares", "fault"),
    [
        ([None, 0.04, 0.04, 0.04], False),
        ([None, 0.06, 0.06, 0.06], True),
        ([None, 0.0, 0.5, 0.0], True),
        ([None, None, None, None], False),
        ([0.9, 0.0, 0.0, 0.0], False),  # before this run
    ],
    ids=["a little", "too much", "one burst", "unknown", "before"],
)
def test_others_may_take_a_twentieth(shares, fault):
    assert (machine_busy(watched(busy_share=shares)) is not None) == fault


def test_shares_count_by_their_time():
    probes = [Snapshot(0.0), Snapshot(10.0, busy_share=0.01), Snapshot(10.1, busy_share=0.9)]
    assert machine_busy(run_of([0.1], probes=probes)) is None


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        (np.linspace(1.0, 1.12, 500), True),
        (np.linspace(1.0, 1.03, 500), False),
        (np.linspace(1.12, 1.0, 500), False),
        (np.where(np.arange(500) > 300, 1.1, 1.0), True),
        (np.where(np.arange(500) % 10 == 0, 3.0, 1.0), False),
        (np.where(np.arange(500) > 460, 2.0, 1.0), False),
    ],
    ids=["slower", "a little slower", "faster", "a step", "outliers", "a burst at the end"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_drift_is_slower_by_more_than_a_twentieth(shape, fault, seed):
    found = drifted(run_of(noisy(seed=seed) * shape))
    assert (found is not None) == fault


@pytest.mark.parametrize("seed", range(20))
def test_wild_noise_is_no_drift(seed):
    assert drifted(run_of(noisy(64, seed=seed, sigma=0.3))) is None


def test_a_change_of_sizes_is_no_drift():
    sizes = [112] * 250 + [224] * 250
    values = noisy() * np.where(np.array(sizes) == 224, 4.0, 1.0)
    assert drifted(run_of(values, sizes=sizes)) is None
    assert drifted(run_of(values)) is not None


def test_batches_are_judged_without_their_sizes():
    run = run_of(noisy() * np.linspace(1.0, 1.2, 500), sizes=[224] * 1000)
    assert drifted(run) is not None


def test_few_frames_have_no_drift():
    assert drifted(run_of([0.01] * 4 + [0.02] * 4)) is None


@pytest.mark.parametrize(
    ("factors", "told"),
    [
        ([1.0, 1.01, 0.99, 1.015, 1.0], None),
        ([1.0, 1.0, 1.0, 1.03, 1.0], "p50 of 10.300 ms is +3.0 % off the median of 5 runs, 10.000 ms"),
        ([1.0, 1.0, 1.0, 0.97, 1.0], "p50 of 9.700 ms is -3.0 % off the median of 5 runs, 10.000 ms"),
        ([1.0], None),
    ],
    ids=["alike", "slower", "faster", "one"],
)
def test_repeats_agree_within_a_fiftieth_at_the_median(factors, told):
    found = repeats_disagree([run_of([0.008 * factor, 0.01 * factor, 0.012 * factor]) for factor in factors])
    assert found is None if told is None else told in found


@pytest.mark.parametrize(("tail", "fault"), [(1.03, False), (1.2, True)])
def test_repeats_agree_within_a_twentieth_at_the_tail(tail, fault):
    runs = [run_of([0.01] * 85 + [0.012] * 15) for _ in range(4)]
    runs.append(run_of([0.01] * 85 + [0.012 * tail] * 15))
    found = repeats_disagree(runs)
    assert (found is not None and "p90" in found) == fault


def test_a_cause_is_told_without_its_symptoms():
    hot = [Snapshot(time_s=float(index), throttled=index > 4) for index in range(8)]
    run = run_of(noisy() * np.where(np.arange(500) > 300, 1.6, 1.0), probes=hot)
    assert [text.split(":")[0] for text in run_faults(run)] == ["throttled"]
    slow = replace(run_of(noisy() * 1.5), faults=("throttled: ...",))
    assert measurement_faults([run_of(noisy()), run_of(noisy(seed=1)), slow]) == ()
    assert len(measurement_faults([run_of(noisy()), run_of(noisy(seed=1)), replace(slow, faults=())])) == 1


def test_the_trend_test_is_mann_and_kendalls():
    # Computed by hand: S = 8 of 10 pairs (9 rise, 1 falls), variance 5 * 4 * 15 / 18, z = 7 / sqrt(16.67).
    assert rising_by_chance([1.0, 2.0, 3.0, 5.0, 4.0]) == pytest.approx(0.0432, abs=1e-4)
    assert rising_by_chance([3.0, 2.0, 1.0]) == 1.0
    assert rising_by_chance([1.0] * 10) == 1.0


def test_each_fault_of_a_scripted_machine_is_told_by_its_own_reason(capsys):
    assert runpy.run_path(str(EVIDENCE / "bench_faults.py"))["main"](["--cases", "2"]) == 0
    assert "each told by its own reason alone" in capsys.readouterr().out
