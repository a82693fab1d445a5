from __future__ import annotations

import random

import pytest

from boardfit.benchmarks.early_stopping import allowed_above, percentile_bound
from boardfit.errors import RecipeError


@pytest.mark.parametrize(
    ("percent", "fewest"),
    [(90.0, 64), (99.0, 662), (99.9, 6636)],  # LoadGen says so itself where it is given fewer
)
def test_the_fewest_frames_are_loadgens(percent, fewest):
    assert allowed_above(fewest - 1, percent) == 0
    assert allowed_above(fewest, percent) == 1
    assert percentile_bound([1.0] * (fewest - 1), percent) is None
    assert percentile_bound([1.0] * fewest, percent) == 1.0


def test_the_highest_frames_are_discarded():
    values = [float(index) for index in range(64)]
    assert percentile_bound(values, 90.0) == 63.0
    values = [float(index) for index in range(1000)]
    allowed = allowed_above(1000, 90.0)
    assert percentile_bound(values, 90.0) == 1000.0 - allowed
    assert 900.0 < percentile_bound(values, 90.0) < 930.0


def test_the_bound_holds_in_99_of_100_experiments():
    randoms = random.Random(1)
    misses = sum(percentile_bound([randoms.random() for _ in range(200)], 90.0) < 0.9 for _ in range(1000))
    assert misses <= 20


@pytest.mark.parametrize(("percent", "confidence"), [(0.0, 0.99), (100.0, 0.99), (90.0, 1.0), (90.0, 0.0)])
def test_shares_without_sense_are_refused(percent, confidence):
    with pytest.raises(RecipeError):
        percentile_bound([1.0] * 100, percent, confidence=confidence)
