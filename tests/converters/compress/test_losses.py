"""Losses against formulas written with numpy."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.compress.losses import as_logits, cross_entropy, feature_hint, softened_kl

RNG = np.random.default_rng(5)
STUDENT = RNG.normal(0, 2, (6, 5)).astype(np.float32)
TEACHER = RNG.normal(0, 2, (6, 5)).astype(np.float32)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_hintons(temperature):
    p, q = softmax(TEACHER / temperature), softmax(STUDENT / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    found = float(softened_kl(TEACHER, STUDENT, temperature=temperature))
    assert found == pytest.approx(expected, rel=1e-4)


def test_equal_answers_do_not_diverge():
    assert float(softened_kl(TEACHER, TEACHER)) == pytest.approx(0.0, abs=1e-6)


def test_cross_entropy_reads_the_right_column():
    labels = np.array([0, 4, 2, 1, 3, 0], np.int32)
    expected = -np.log(softmax(STUDENT)[np.arange(6), labels]).mean()
    assert float(cross_entropy(STUDENT, labels)) == pytest.approx(expected, rel=1e-5)


def test_probabilities_become_scores_with_the_same_answer():
    scores = np.asarray(as_logits(softmax(STUDENT), "softmax"))
    assert np.allclose(softmax(scores), softmax(STUDENT), atol=1e-6)
    assert as_logits(STUDENT, "logits") is STUDENT


def test_a_hint_sees_direction_only():
    features = RNG.normal(size=(4, 8)).astype(np.float32)
    assert float(feature_hint(features, 3.0 * features)) == pytest.approx(0.0, abs=1e-5)
    assert float(feature_hint(features, -features)) == pytest.approx(4.0, rel=1e-4)
