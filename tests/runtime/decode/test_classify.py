from __future__ import annotations

import numpy as np
import pytest

from boardfit.runtime.decode.classify import decode_classes, softmax


def test_logits_get_one_softmax():
    logits = np.array([[1.0, 2.0, 4.0]], np.float32)
    expected = np.exp([1.0, 2.0, 4.0]) / np.exp([1.0, 2.0, 4.0]).sum()
    classes = decode_classes(logits, "logits")
    assert classes.scores == pytest.approx(expected, rel=1e-6)
    assert classes.scores.dtype == np.float32


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_other_numbers_stay_as_they_are(activation):
    numbers = np.array([[0.2, 0.7, 0.1]], np.float32)
    assert (decode_classes(numbers, activation).scores == numbers[0]).all()


def test_huge_logits_do_not_overflow():
    scores = softmax(np.array([1e4, 1e4 - 1.0, -1e4], np.float32))
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1.0)


def test_trailing_axes_are_dropped():
    assert decode_classes(np.zeros((1, 5, 1, 1), np.float32), "logits").scores.shape == (5,)


def test_the_engines_array_is_not_written_to():
    logits = np.array([[1.0, 2.0]], np.float32)
    decode_classes(logits, "logits")
    assert logits.tolist() == [[1.0, 2.0]]
