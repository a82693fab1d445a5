from __future__ import annotations

import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.isolate.deadlines import FIRST_RUNS, FLOOR_S, WINDOW, Deadlines
from boardfit.runtime.isolate.options import Isolation, IsolationReport

MIB = 1 << 20
SHAPE, OTHER = ("a.tflite", (1, 32, 32, 3)), ("b.tflite", (1, 32, 32, 3))


def after(durations, **options) -> Deadlines:
    deadlines = Deadlines(Isolation(**options))
    for seconds in durations:
        deadlines.took(SHAPE, seconds)
    return deadlines


def test_a_run_without_precedent_has_the_long_deadline():
    deadlines = after([0.001] * FIRST_RUNS, first_deadline_s=7.0)
    assert deadlines.allowed_s(SHAPE) == 7.0
    deadlines.took(SHAPE, 0.001)
    assert deadlines.allowed_s(SHAPE) == FLOOR_S
    assert deadlines.allowed_s(OTHER) == 7.0


def test_then_it_is_five_times_the_99th_percentile():
    assert after([3.0] + [0.1] * 99).allowed_s(SHAPE) == pytest.approx(0.5)  # the first one counts not
    assert after([0.1] * 200 + [0.3] * 100).allowed_s(SHAPE) == pytest.approx(1.5)


def test_old_runs_are_forgotten():
    assert after([1.0] * 100 + [0.1] * (WINDOW + 32)).allowed_s(SHAPE) == pytest.approx(0.5)


def test_a_new_process_may_take_its_time_once_more():
    deadlines = after([0.1] * 20, first_deadline_s=7.0)
    deadlines.restarted()
    assert deadlines.allowed_s(SHAPE) == 7.0
    deadlines.took(SHAPE, 2.0)
    assert deadlines.allowed_s(SHAPE) == pytest.approx(0.5)


def test_first_runs_are_no_precedents_however_many_there_are():
    deadlines = Deadlines(Isolation(first_deadline_s=7.0))
    for _ in range(2 * FIRST_RUNS):
        deadlines.restarted()
        deadlines.took(SHAPE, 0.3)
    assert deadlines.allowed_s(SHAPE) == 7.0
    for _ in range(FIRST_RUNS):
        deadlines.took(SHAPE, 0.3)
    assert deadlines.allowed_s(SHAPE) == pytest.approx(1.5)


def test_so_may_a_model_that_is_loaded_anew_and_no_other():
    deadlines = after([0.1] * 20, first_deadline_s=7.0)
    for _ in range(20):
        deadlines.took(OTHER, 0.1)
    deadlines.restarted("a.tflite")
    assert deadlines.allowed_s(SHAPE) == 7.0
    assert deadlines.allowed_s(OTHER) == pytest.approx(0.5)
    deadlines.took(SHAPE, 2.0)
    assert deadlines.allowed_s(SHAPE) == pytest.approx(0.5)  # its precedents are known


def test_what_is_usual_is_known_after_sixteen_runs_and_is_the_middle_half_of_the_last():
    deadlines = after([3.0] + [0.1] * 15)
    assert deadlines.usual_s(SHAPE) is None
    deadlines.took(SHAPE, 0.2)
    assert deadlines.usual_s(SHAPE) == (0.1, 0.1)
    assert deadlines.usual_s(OTHER) is None
    assert after([3.0] + [0.1] * 50 + [0.2] * 12 + [0.15] * 4).usual_s(SHAPE) == (0.15, 0.2)
    assert after([3.0] + [0.1] * 50 + [0.2] * 13 + [0.15] * 3).usual_s(SHAPE) == (0.2, 0.2)
    assert after([3.0] + [0.2] * 50 + [0.1] * 12 + [0.15] * 4).usual_s(SHAPE) == (0.1, 0.15)
    assert after([3.0] + [0.2] * 50 + [0.1] * 13 + [0.15] * 3).usual_s(SHAPE) == (0.1, 0.1)


def test_of_a_new_process_nothing_is_usual_before_its_first_run():
    deadlines = after([0.1] * 20)
    deadlines.restarted()
    assert deadlines.usual_s(SHAPE) is None


def test_a_deadline_of_ones_own_holds_but_for_first_runs():
    assert after([0.1] * 20, deadline_s=0.05).allowed_s(SHAPE) == 0.05
    assert after([], deadline_s=0.05, first_deadline_s=3.0).allowed_s(SHAPE) == 3.0
    assert after([], deadline_s=5.0, first_deadline_s=3.0).allowed_s(SHAPE) == 5.0


@pytest.mark.parametrize("field", ["deadline_s", "first_deadline_s", "load_deadline_s", "memory_bytes"])
def test_limits_must_be_positive(field):
    with pytest.raises(RecipeError, match=f"{field} is 0: expected a positive number"):
        Isolation(**{field: 0})


def test_the_memory_limit_follows_the_model_and_the_machine(monkeypatch):
    machine = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 * 1024 * MIB // 4096}
    monkeypatch.setattr("os.sysconf", machine.__getitem__)
    assert Isolation().memory_limit_bytes(10 * MIB) == (512 + 160) * MIB
    assert Isolation().memory_limit_bytes(1000 * MIB) == 3 * 1024 * MIB
    assert Isolation(memory_bytes=5 * MIB).memory_limit_bytes(1000 * MIB) == 5 * MIB


def test_a_report_adds_up():
    assert IsolationReport(1, None, 0, 0, crashed=1, hung=2, memory=4).replaced == 7
