from __future__ import annotations

import time

import numpy as np
import pytest

from boardfit.errors import EngineLost
from boardfit.runtime.camera.batch import gains_by_batches


class Counting:
    """A model whose time grows with the square of a batch's length, or does not depend on it."""

    def __init__(self, model, per_call_s, per_frame_s) -> None:
        self.model, self.per_call_s, self.per_frame_s = model, per_call_s, per_frame_s
        self.batches = 0

    def __call__(self, frame):
        count = len(frame) if isinstance(frame, list) else 1
        self.batches += isinstance(frame, list)
        time.sleep(self.per_call_s + count**2 * self.per_frame_s)
        return self.model(frame)


@pytest.mark.parametrize(
    ("per_call_s", "per_frame_s", "gains"),
    [(0.02, 0.0, True), (0.0, 0.01, False)],
    ids=["gain", "no-gain"],
)
def test_a_batch_is_used_where_it_gains(model, per_call_s, per_frame_s, gains):
    counting = Counting(model, per_call_s, per_frame_s)
    assert gains_by_batches(counting, [np.zeros((48, 64, 3), np.uint8)] * 3) is gains


def test_slow_frames_are_not_held_up_for_a_measurement(model):
    counting = Counting(model, 0.2, 0.0)
    assert gains_by_batches(counting, [np.zeros((48, 64, 3), np.uint8)] * 3) is False
    assert counting.batches == 0


def test_a_model_without_lists_gets_none():
    def model(frame):
        return frame.shape

    assert gains_by_batches(model, [np.zeros((4, 4, 3), np.uint8)] * 2) is False


def test_an_engine_that_is_lost_tells_nothing_of_batches():
    def lost(frame):
        raise EngineLost("killed", "hung")

    with pytest.raises(EngineLost):
        gains_by_batches(lost, [np.zeros((4, 4, 3), np.uint8)] * 2)
