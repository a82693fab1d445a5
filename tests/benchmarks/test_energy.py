from __future__ import annotations

import threading

import pytest

from boardfit.benchmarks.energy import energy_meter, total_w
from boardfit.errors import EngineError


@pytest.mark.parametrize(
    ("rails", "expected"),
    [
        ({}, None),
        ({"battery": 3.0}, 3.0),
        ({"VDD_IN": 9.0, "VDD_CPU_GPU_CV": 4.0, "VDD_SOC": 2.0}, 9.0),
        ({"POM_5V_IN": 5.0, "POM_5V_CPU": 2.0}, 5.0),
        ({"VDD_CORE": 2.0, "3V3_SYS": 1.0}, 3.0),
    ],
    ids=str,
)
def test_what_comes_in_counts_once(rails, expected):
    assert total_w(rails) == expected


def test_joules_are_watts_times_seconds_per_run():
    now_s = [0.0]

    def call() -> None:
        now_s[0] += 0.1

    meter = energy_meter(lambda: 5.0, duration_s=0.95, clock=lambda: now_s[0])
    assert meter(call) == pytest.approx(0.5)
    assert now_s[0] == pytest.approx(1.0)


def test_a_call_that_is_longer_than_all_runs_once():
    now_s = [0.0]

    def call() -> None:
        now_s[0] += 10.0

    assert energy_meter(lambda: 2.0, duration_s=1.0, clock=lambda: now_s[0])(call) == pytest.approx(20.0)


@pytest.mark.parametrize("told", [None, 0.0], ids=["nothing", "zero"])
def test_a_sensor_that_tells_nothing_is_an_error(told):
    with pytest.raises(EngineError, match="told nothing"):
        energy_meter(lambda: told, duration_s=0.01)(lambda: None)


def test_the_watcher_ends_with_the_call_that_fails():
    def call() -> None:
        raise EngineError("it died")

    with pytest.raises(EngineError, match="it died"):
        energy_meter(lambda: 1.0)(call)
    assert not any(thread.name == "boardfit-power" for thread in threading.enumerate())
