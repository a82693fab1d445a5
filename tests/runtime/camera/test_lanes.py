from __future__ import annotations

import threading
import time

import pytest

from boardfit.runtime.camera.lanes import Lanes


@pytest.fixture
def new_lanes():
    """Starts lanes whose work is the numbers from 0; ends them."""
    started = []

    def start(count: int, do) -> tuple[Lanes, list[float]]:
        asked_s: list[float] = []

        def take(timeout_s: float, newer_within_s: float) -> int:
            asked_s.append(newer_within_s)
            return len(asked_s) - 1

        lanes = Lanes(take, do, count=count, is_over=lambda: False)
        started.append(lanes)
        return lanes, asked_s

    yield start
    for lanes in started:
        assert lanes.join(5.0)


@pytest.mark.parametrize("count", [1, 2])
def test_outcomes_come_in_the_order_of_the_work(new_lanes, count):
    def do(number: int) -> int:
        time.sleep(0.004 if number % 2 == 0 else 0.0)
        return number

    lanes, _ = new_lanes(count, do)
    assert [lanes.next(5.0) for _ in range(20)] == list(range(20))


@pytest.mark.parametrize("count", [1, 2])
def test_as_many_threads_do_it_as_there_are_lanes(new_lanes, count):
    together = threading.Barrier(count)

    def do(number: int) -> int:
        if number < 10:  # what is taken ahead of the last one that is fetched would stand there alone
            together.wait(5.0)  # of fewer threads than it needs, it breaks
        return threading.get_ident()

    lanes, _ = new_lanes(count, do)
    assert len({lanes.next(5.0) for _ in range(10)}) == count


def test_while_nobody_waits_one_piece_is_done_ahead(new_lanes):
    lanes, asked_s = new_lanes(1, lambda number: number)
    lanes.next(5.0)
    time.sleep(0.2)
    assert len(asked_s) <= 2, "the one that was fetched, and one ahead"


def test_newer_work_is_waited_for_a_small_part_of_the_time_that_work_takes(new_lanes):
    spans_s = [0.1, 1.2]

    def do(number: int) -> int:
        time.sleep(spans_s[number] if number < len(spans_s) else 0.0)
        return number

    lanes, asked_s = new_lanes(1, do)
    for _ in range(3):
        lanes.next(10.0)
    first, second, third = asked_s[:3]
    assert first == 0.0
    assert 0.005 <= second <= 0.03
    assert third == 0.05, "for a stop, a lane must not be away for longer than a tick"
