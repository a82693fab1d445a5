from __future__ import annotations

import threading
import time
from itertools import accumulate

import numpy as np
import pytest

from boardfit.runtime.camera.records import Frame
from boardfit.runtime.camera.slot import Slot

FOR_EVER_S = 30.0


@pytest.fixture
def new_slot():
    """Makes a slot that a camera has given frames with such gaps between them, in seconds."""

    def make(*gaps_s: float, ago_s: float = 0.0, lossless: bool = False) -> Slot:
        slot = Slot(lossless=lossless)
        times_s = list(accumulate((0.0, *gaps_s)))
        late_s = time.monotonic() - ago_s - times_s[-1]
        for index, time_s in enumerate(times_s):
            slot.put(frame(index, late_s + time_s))
        return slot

    return make


def frame(index: int, time_s: float) -> Frame:
    return Frame(np.zeros((4, 4, 3), np.uint8), time_s, index)


def waited_s(slot: Slot, within_s: float) -> float:
    began = time.monotonic()
    slot.await_newer(within_s)
    return time.monotonic() - began


def test_a_newer_frame_that_is_due_in_a_moment_is_waited_for(new_slot):
    slot = new_slot(1.0)
    threading.Timer(0.1, lambda: slot.put(frame(2, time.monotonic()))).start()
    assert waited_s(slot, FOR_EVER_S) < FOR_EVER_S / 2
    assert slot.take(0.0).index == 2
    assert slot.dropped == 2


def test_one_that_is_due_but_does_not_come_costs_no_more_than_was_allowed(new_slot):
    slot = new_slot(10.0, ago_s=9.95)
    assert 0.09 <= waited_s(slot, 0.1) < FOR_EVER_S / 2
    assert slot.take(0.0).index == 1


@pytest.mark.parametrize(
    ("gaps_s", "ago_s", "lossless"),
    [((2 * FOR_EVER_S,), 0.0, False), ((1.0,), 2.5, False), ((1.0,), 0.0, True), ((), 0.0, False)],
    ids=["due-later", "late-by-more-than-a-gap", "every-frame-counts", "the-first-frame"],
)
def test_else_nobody_waits(new_slot, gaps_s, ago_s, lossless):
    assert waited_s(new_slot(*gaps_s, ago_s=ago_s, lossless=lossless), FOR_EVER_S) < FOR_EVER_S / 2


def test_an_empty_slot_has_nothing_newer_to_wait_for(new_slot):
    slot = new_slot(1.0)
    slot.take(0.0)
    assert waited_s(slot, FOR_EVER_S) < FOR_EVER_S / 2


def test_one_long_gap_among_short_ones_does_not_end_the_waiting(new_slot):
    slot = new_slot(1.0, 1.0, 1.0, 2 * FOR_EVER_S)
    threading.Timer(0.1, lambda: slot.put(frame(5, time.monotonic()))).start()
    slot.await_newer(FOR_EVER_S)
    assert slot.take(0.0).index == 5


def test_closing_ends_the_wait_and_leaves_the_frame(new_slot):
    slot = new_slot(1.0)
    threading.Timer(0.1, slot.close).start()
    assert waited_s(slot, FOR_EVER_S) < FOR_EVER_S / 2
    assert slot.take(0.0).index == 1
