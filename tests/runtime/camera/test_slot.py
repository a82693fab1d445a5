from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from boardfit.runtime.camera.records import Frame
from boardfit.runtime.camera.slot import Slot

FOR_EVER_S = 30.0


@pytest.fixture
def new_slot():
    """Makes a slot that a camera has given two frames, so many seconds apart, the second one just now."""

    def make(gap_s: float, *, lossless: bool = False) -> Slot:
        slot = Slot(lossless=lossless)
        now = time.monotonic()
        slot.put(frame(0, now - gap_s))
        slot.put(frame(1, now))
        return slot

    return make


def frame(index: int, time_s: float) -> Frame:
    return Frame(np.zeros((4, 4, 3), np.uint8), time_s, index)


def test_a_newer_frame_that_is_due_in_a_moment_is_waited_for(new_slot):
    slot = new_slot(gap_s=1.0)
    threading.Timer(0.1, lambda: slot.put(frame(2, time.monotonic()))).start()
    assert slot.take(0.0, FOR_EVER_S).index == 2
    assert slot.dropped == 2


def test_one_that_is_due_but_does_not_come_costs_no_more_than_was_allowed(new_slot):
    slot = new_slot(gap_s=0.01)
    began = time.monotonic()
    assert slot.take(0.0, 0.1).index == 1
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    ("gap_s", "newer_within_s", "lossless"),
    [(2 * FOR_EVER_S, FOR_EVER_S, False), (1.0, 0.0, False), (1.0, FOR_EVER_S, True)],
    ids=["due-later", "no-time", "every-frame-counts"],
)
def test_else_the_frame_that_is_there_is_taken_at_once(new_slot, gap_s, newer_within_s, lossless):
    slot = new_slot(gap_s, lossless=lossless)
    began = time.monotonic()
    assert slot.take(0.0, newer_within_s).index == (0 if lossless else 1)
    assert time.monotonic() - began < FOR_EVER_S / 2


def test_a_first_frame_says_nothing_of_the_next_one():
    slot = Slot()
    slot.put(frame(0, time.monotonic()))
    began = time.monotonic()
    assert slot.take(0.0, FOR_EVER_S).index == 0
    assert time.monotonic() - began < FOR_EVER_S / 2


def test_closing_ends_the_wait_and_leaves_the_frame(new_slot):
    slot = new_slot(gap_s=1.0)
    threading.Timer(0.1, slot.close).start()
    began = time.monotonic()
    assert slot.take(0.0, FOR_EVER_S).index == 1
    assert time.monotonic() - began < FOR_EVER_S / 2
