"""Losses of training with a teacher. Every one is a mean over the batch, a float32 scalar tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
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
    """Return the mean squared distance of two features, each scaled to unit length.

    Romero et al. 2015, "FitNets" (https://arxiv.org/abs/1412.6550), on normalised features: 0 where they
    point the same way, 2 where they are orthogonal. The teacher gets no gradient.

    Args:
        teacher: (N, D) float32, or (N, H, W, D), compared place by place.
        student: The same shape.
    """
    gap = unit(ops.stop_gradient(teacher)) - unit(student)
    return ops.mean(ops.sum(gap * gap, axis=-1))


def info_nce(teacher: Any, student: Any, *, temperature: float) -> Any:
    """Return how badly each embedding of the student tells its own image's teacher from the others'.

    InfoNCE of van den Oord et al. 2018 (https://arxiv.org/abs/1807.03748), in both directions as Radford et
    al. 2021 (https://arxiv.org/abs/2103.00020) do it: the cosines of all pairs of a batch, the right pairs
    on the diagonal. log N where nothing is told apart. The teacher gets no gradient.

    Args:
        teacher: (N, D) float32.
        student: (N, D) float32.
        temperature: What cosines are divided by, above 0.
    """
    ours, theirs = unit(student), unit(ops.stop_gradient(teacher))
    cosines = ops.matmul(ours, ops.transpose(theirs)) / temperature
    own = ops.sum(ours * theirs, axis=-1) / temperature
    both = ops.logsumexp(cosines, axis=1) + ops.logsumexp(cosines, axis=0)
    return ops.mean(0.5 * both - own)


def group_correlation(features: Any, groups: int) -> Any:
    """Return the mean squared correlation over the batch between numbers of different groups.

    Decorrelation of Cogswell et al. 2016 (https://arxiv.org/abs/1511.06068), between groups only: inside one,
    numbers may say the same; 0 where groups are orthogonal. Numbers that do not vary count as 0.

    Args:
        features: (N, D) float32; group i holds the columns whose ``column * groups // D`` is i.
        groups: How many, from 2 to D.
    """
    width = features.shape[-1]
    centred = features - ops.mean(features, axis=0, keepdims=True)
    spread = ops.sqrt(ops.mean(centred * centred, axis=0, keepdims=True) + 1e-6)
    scaled = centred / spread
    count = ops.cast(ops.shape(features)[0], "float32")
    correlation = ops.matmul(ops.transpose(scaled), scaled) / count
    group = np.arange(width) * groups // width
    apart = np.asarray(group[:, None] != group[None], np.float32)
    return ops.sum(ops.multiply(apart, correlation * correlation)) / float(apart.sum())


def unit(features: Any) -> Any:
    """Return a tensor's last axis scaled to unit length; what is shorter than 0.001 stays shorter than 1.

    At 0 the slope is 1000: with less of a floor a dead place of a map gives gradients beyond float16.
    """
    length = ops.sqrt(ops.sum(features * features, axis=-1, keepdims=True) + 1e-6)
    return features / length
