from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from boardfit.runtime.preprocess import Placement
from boardfit.runtime.results import Classes, Result, Timings


def result_of(scores: list[float], labels: tuple[str, ...] = (), activation: str = "softmax") -> Result:
    return Result(
        classes=Classes(np.array(scores, np.float32), activation),
        outputs=(np.array([scores], np.float32),),
        size=8,
        looks=(8,),
        entropy_bits=None,
        timings=Timings(0.0, 0.0, 0.0, 0.0, 0.0),
        placement=Placement(8, 0, 0, 8),
        labels=labels,
    )


def test_top_is_sorted_and_labelled():
    top = result_of([0.1, 0.6, 0.3], ("ant", "bee", "cow")).top(2)
    assert [(p.label, p.index) for p in top] == [("bee", 1), ("cow", 2)]
    assert [p.score for p in top] == pytest.approx([0.6, 0.3])


def test_without_labels_the_index_serves():
    assert [p.label for p in result_of([0.1, 0.9]).top(5)] == ["1", "0"]


@pytest.mark.parametrize("k", [0, 1, 3, 5, 40, 1000, 5000])
def test_top_agrees_with_a_full_sort_whatever_k(k):
    scores = np.random.RandomState(0).randint(0, 50, 1000) / 1000.0
    expected = sorted(range(1000), key=lambda i: (-scores[i], i))[:k]
    assert [p.index for p in result_of(list(scores)).top(k)] == expected


def test_ties_come_in_the_order_of_their_index():
    assert [p.index for p in result_of([0.25] * 40).top(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("scores", "activation", "bits"),
    [
        ([1.0, 0.0, 0.0, 0.0], "softmax", 0.0),
        ([0.25] * 4, "softmax", 2.0),
        ([0.5, 0.25, 0.25], "logits", 1.5),
        ([0.5], "sigmoid", 1.0),
        ([0.8, 0.8], "sigmoid", 1.0),
        ([0.0, 0.0], "sigmoid", 0.0),
        ([3.0, -2.0], "none", None),
    ],
)
def test_answer_entropy(scores, activation, bits):
    found = result_of(scores, activation=activation).answer_entropy_bits
    assert found == (None if bits is None else pytest.approx(bits, abs=1e-6))


@pytest.mark.parametrize(
    ("scores", "activation", "bits"),
    [
        ([1.0, 0.0, 0.0, 0.0], "softmax", 0.0),
        ([0.25] * 4, "softmax", 1.0),
        ([0.1, 0.4, 0.1, 0.4], "softmax", 1.0),
        ([0.1, 0.45, 0.05, 0.15], "logits", 0.8112781),
        ([0.9, 0.3], "sigmoid", 0.8112781),
        ([0.75], "sigmoid", 0.8112781),
        ([0.0, 0.0], "sigmoid", 0.0),
        ([1.0], "softmax", 0.0),
        ([3.0, -2.0], "none", None),
    ],
)
def test_doubt_is_the_entropy_of_the_two_best_classes(scores, activation, bits):
    found = result_of(scores, activation=activation).doubt_bits
    assert found == (None if bits is None else pytest.approx(bits, abs=1e-6))


def test_results_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        result_of([1.0]).size = 3
