from __future__ import annotations

import math

import numpy as np
import pytest

from boardfit.converters.quantize.quality import (
    decibels,
    noise_share,
    noise_to_signal,
    output_error,
    paired_interval,
    sums_by_tensor,
    wilson_interval,
)
from boardfit.specs import TensorSpec

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
Q = np.array([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7]])
BY_HAND = (
    0.7 * math.log(0.7 / 0.6) + 0.2 * math.log(0.2 / 0.3) + 0.1 * math.log(0.1 / 0.2) + 0.8 * math.log(8 / 7)
) / 2


def output(activation: str) -> TensorSpec:
    return TensorSpec("y", (None, 3), activation=activation)


@pytest.mark.parametrize(
    ("activation", "actual", "expected"),
    [("softmax", Q, P), ("logits", np.log(Q) + 3.0, np.log(P) - 1.0)],
    ids=["softmax", "logits"],
)
def test_probabilities_and_logits_are_compared_by_kl(activation, actual, expected):
    assert output_error([actual], [expected], [output(activation)]) == pytest.approx(BY_HAND, rel=1e-5)


def test_sigmoids_are_compared_one_by_one():
    found = output_error([np.array([[0.4]])], [np.array([[0.5]])], [output("sigmoid")])
    assert found == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6), rel=1e-6)


def test_other_numbers_are_compared_by_squared_error_over_variance():
    expected = np.array([[0.0, 2.0], [4.0, 6.0]])
    assert output_error([expected + 1.0], [expected], [output("none")]) == pytest.approx(1.0 / 5.0)


def test_equal_outputs_have_no_error_and_nan_has_all():
    for activation in ("softmax", "logits", "sigmoid", "none"):
        assert output_error([P], [P], [output(activation)]) == pytest.approx(0.0, abs=1e-9)
    assert output_error([P * np.nan], [P], [output("softmax")]) == math.inf


def test_a_probability_that_quantized_to_zero_costs_but_stays_finite():
    assert 1.0 < output_error([np.array([[1.0, 0.0]])], [np.array([[0.5, 0.5]])], [output("softmax")]) < 20.0


@pytest.mark.parametrize(
    ("count", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)]
)
def test_wilson_as_in_the_books(count, of, low, high):
    """The last one is Newcombe's example (1998)."""
    assert wilson_interval(count, of) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_the_paired_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    lost, won, n = 0.04, 0.02, 300
    inside = 0
    for b, c, _ in rng.multinomial(n, [lost, won, 1 - lost - won], size=2000):
        low, high = paired_interval(int(b), int(c), n)
        inside += low <= lost - won <= high
    assert 0.93 <= inside / 2000 <= 0.985


def test_noise_in_decibels():
    assert decibels(1.0, 1000.0) == pytest.approx(30.0)
    assert decibels(0.0, 5.0) == 200.0
    assert decibels(0.0, 0.0) == 200.0
    assert decibels(1.0, 0.0) == pytest.approx(-120.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_net_that_int8_broke_has_the_least_decibels(broken):
    noise, signal = noise_share(np.array([1.0, broken], np.float32), np.ones(2, np.float32))
    assert decibels(noise, signal) == decibels(1e30, 1.0) == pytest.approx(-120.0)
    assert noise_to_signal(noise, signal) == pytest.approx(1e12)


def test_noise_as_a_share_of_the_signal():
    assert noise_to_signal(1.0, 4.0) == 0.25
    assert noise_to_signal(1.0, 0.0) == 0.0


def test_tensors_without_a_counterpart_are_left_out():
    runs = [({"a": np.ones(2), "b": np.ones(3)}, {"a": np.zeros(2), "b": np.ones(4), "c": np.ones(1)})]
    assert sums_by_tensor(runs) == {"a": (2.0, 0.0)}
