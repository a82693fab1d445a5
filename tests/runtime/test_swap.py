"""What a new bundle has to show: rules on records, without a swap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.model import load
from boardfit.runtime.results import Classes, Timings
from boardfit.runtime.swap import SLOW_WINDOW, Record, Trial, fault_in, is_slow

FRAME = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "fake.boardfit"
    write_fake_bundle(path, sizes=(32,))
    with load(path) as model:
        return model(FRAME)


@pytest.mark.parametrize(
    ("new_s", "old_s", "allowed", "slow"),
    [
        (0.041, 0.01, 4.0, True),
        (0.039, 0.01, 4.0, False),
        (0.004, 0.0001, 4.0, False),
        (9.0, 0.01, None, False),
    ],
    ids=["slow", "within", "unnoticeable", "any"],
)
def test_is_slow(new_s, old_s, allowed, slow):
    assert is_slow(new_s, old_s, allowed) is slow


def test_one_slow_frame_is_no_slowness(result):
    slow = replace(result, timings=Timings(0.0, 0.0, 5.0, 0.0, 5.0))
    quick = replace(result, timings=Timings(0.0, 0.0, 0.01, 0.0, 0.01))
    record = Record(Trial(), old_s=0.01)
    record.note([quick] * (SLOW_WINDOW - 1) + [slow])
    assert record.slowness == ""
    record.note([slow] * (SLOW_WINDOW - 1))
    assert "took 5000.0 ms, the old one 10.0 ms" in record.slowness


def test_raw_outputs_are_looked_at_too(result):
    assert fault_in(result) == ""
    bad = replace(result, outputs=(*result.outputs, np.array([np.nan], np.float32)))
    assert fault_in(bad) == "holds numbers that are not finite"


def test_labels_of_what_is_no_classifier_are_no_fault(result):
    boxes = replace(result, classes=Classes(np.empty(0, np.float32), "none"))
    assert boxes.labels and fault_in(boxes) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [({"frames": -1}, "a trial of -1 frames"), ({"max_slowdown": 0.0}, "max_slowdown is 0.0")],
    ids=["frames", "slowdown"],
)
def test_a_trial_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        Trial(**options)
