"""Losses of training with a teacher. Every one is a mean over the batch, a float32 scalar tensor."""

from __future__ import annotations

from typing import Any

from keras import ops

SMALLEST_PROBABILITY = 1e-7


def as_logits(outputs: Any, activation: str) -> Any:
    """Return scores whose softmax is the net's answer.

    The logarithm of probabilities serves: a softmax does not see a constant that is added to all scores.

    Args:
        outputs: (N, K) float32 tensor.
        activation: ``softmax`` or ``logits``.
    """
    if activation == "softmax":
        return ops.log(ops.maximum(outputs, SMALLEST_PROBABILITY))
    return outputs


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Return the cross entropy with class indices, in nats.

    Args:
        logits: (N, K) float32.
        labels: (N,) int32, each from 0 to K-1.
    """
    picked = ops.one_hot(labels, logits.shape[-1], dtype="float32")
    return -ops.mean(ops.sum(picked * ops.log_softmax(logits, axis=-1), axis=-1))


def softened_kl(teacher: Any, student: Any, *, temperature: float = 1.0) -> Any:
    """Return the Kullback-Leibler divergence of the student's softened answer from the teacher's.

    T^2 KL(softmax(t/T) || softmax(s/T)) of Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"
    (https://arxiv.org/abs/1503.02531); T^2 keeps the gradient's size when T changes. The teacher gets none.

    Args:
        teacher: (N, K) float32 logits.
        student: (N, K) float32 logits.
        temperature: T, at least 1.
    """
    target = ops.stop_gradient(teacher) / temperature
    log_p, log_q = ops.log_softmax(target, axis=-1), ops.log_softmax(student / temperature, axis=-1)
    return temperature**2 * ops.mean(ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1))


def feature_hint(teacher: Any, student: Any) -> Any:
    """Return the mean squared distance of two features, each scaled to unit length, times their length.

    Romero et al. 2015, "FitNets" (https://arxiv.org/abs/1412.6550), on normalised pooled features: 0 where
    they point the same way, 2 where they are orthogonal. The teacher gets no gradient.

    Args:
        teacher: (N, D) float32.
        student: (N, D) float32.
    """
    gap = unit(ops.stop_gradient(teacher)) - unit(student)
    return ops.mean(ops.sum(gap * gap, axis=-1))


def unit(features: Any) -> Any:
    """Return the rows of an (N, D) tensor scaled to unit length; a row of zeros stays so."""
    length = ops.sqrt(ops.sum(features * features, axis=-1, keepdims=True) + 1e-12)
    return features / length
