"""Losses against formulas written with numpy."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.compress.losses import (
    as_logits,
    cross_entropy,
    feature_hint,
    group_correlation,
    info_nce,
    softened_kl,
)

RNG = np.random.default_rng(5)
STUDENT = RNG.normal(0, 2, (6, 5)).astype(np.float32)
TEACHER = RNG.normal(0, 2, (6, 5)).astype(np.float32)


def tensor(array):
    """Return what a net would give: on torch, losses take nothing else."""
    from keras import ops

    return ops.convert_to_tensor(array)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_hintons(temperature):
    p, q = softmax(TEACHER / temperature), softmax(STUDENT / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    found = float(softened_kl(tensor(TEACHER), tensor(STUDENT), temperature=temperature))
    assert found == pytest.approx(expected, rel=1e-4)


def test_equal_answers_do_not_diverge():
    assert float(softened_kl(tensor(TEACHER), tensor(TEACHER))) == pytest.approx(0.0, abs=1e-6)


def test_cross_entropy_reads_the_right_column():
    labels = np.array([0, 4, 2, 1, 3, 0], np.int32)
    expected = -np.log(softmax(STUDENT)[np.arange(6), labels]).mean()
    assert float(cross_entropy(tensor(STUDENT), tensor(labels))) == pytest.approx(expected, rel=1e-5)


def test_probabilities_become_scores_with_the_same_answer():
    scores = np.asarray(as_logits(tensor(softmax(STUDENT)), "softmax"))
    assert np.allclose(softmax(scores), softmax(STUDENT), atol=1e-6)
    assert as_logits(STUDENT, "logits") is STUDENT


def test_a_hint_sees_direction_only():
    features = tensor(RNG.normal(size=(4, 8)).astype(np.float32))
    assert float(feature_hint(features, 3.0 * features)) == pytest.approx(0.0, abs=1e-5)
    assert float(feature_hint(features, -features)) == pytest.approx(4.0, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_info_nce_is_the_cross_entropy_with_the_diagonal_both_ways(temperature):
    teacher, student = RNG.normal(size=(2, 6, 5)).astype(np.float32)
    cosines = np.array([[s @ t / np.linalg.norm(s) / np.linalg.norm(t) for t in teacher] for s in student])
    rows, columns = softmax(cosines / temperature), softmax(cosines.T / temperature)
    expected = -0.5 * (np.log(np.diag(rows)).mean() + np.log(np.diag(columns)).mean())
    assert float(info_nce(tensor(teacher), tensor(student), temperature=temperature)) == pytest.approx(
        expected, rel=1e-4
    )


def test_info_nce_is_small_for_the_same_embeddings_and_log_n_for_equal_rows():
    apart = tensor(np.eye(6, dtype=np.float32))
    assert float(info_nce(apart, 3.0 * apart, temperature=0.05)) < 1e-6
    same = tensor(np.ones((6, 5), np.float32))
    assert float(info_nce(same, same, temperature=0.1)) == pytest.approx(np.log(6), rel=1e-4)


def test_group_correlation_is_that_of_numpy_between_groups():
    features = RNG.normal(size=(200, 7)).astype(np.float32)
    features[:, 6] += 2.0 * features[:, 0]
    group = np.arange(7) * 3 // 7
    correlation = np.corrcoef(features.T)
    expected = (correlation**2)[group[:, None] != group[None]].mean()
    assert float(group_correlation(tensor(features), 3)) == pytest.approx(expected, rel=1e-3)


def test_inside_a_group_numbers_may_say_the_same_and_dead_ones_do_not_count():
    one, other = RNG.normal(size=(2, 500)).astype(np.float32)
    features = np.stack([one, one, other, np.zeros(500, np.float32)], axis=1)
    assert float(group_correlation(tensor(features), 2)) < 0.02
    features = np.stack([one, other, one, other], axis=1)
    assert float(group_correlation(tensor(features), 2)) == pytest.approx(0.5, abs=0.02)
