"""Bias correction: what rounding adds to the mean of a channel is taken off its bias.

M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(https://arxiv.org/abs/1906.04721), section 4.2: here from images, layer by layer, so that each layer corrects
what those before it have left as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from boardfit.converters.quantize.fold import kernel_of, set_kernel
from boardfit.converters.quantize.graph import Node, graph_of
from boardfit.converters.quantize.simulate import run_rounded, simulate, some_of


def correct_biases(net: Any, images: np.ndarray) -> None:
    """Change the biases of a folded net so that in int8 its channels keep their means.

    Args:
        net: keras.Model from ``fold.folded``; changed in place, its kernels are not.
        images: (N, S, S, 3) float32, to calibrate on.
    """
    simulate(graph_of(net), some_of(images), _correct)


def _correct(node: Node, inputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    layer = node.operation
    found = run_rounded(node, inputs)
    shift = shift_of(found, expected)
    bias = np.asarray(layer.get_weights()[1]) - shift
    set_kernel(layer, kernel_of(layer), bias)
    return np.asarray(found - shift.astype(np.float32))


def shift_of(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return by how much int8 moves the mean of each channel, as far as the images tell it from chance.

    The mean over few images is itself off by its standard error: taken off a bias in full, it mends these
    images and harms others. It is shrunk as by W. James and C. Stein ("Estimation with Quadratic Loss", 1961,
    the positive part), each channel by itself.

    Args:
        found: (N, ..., C) in int8, of N images.
        expected: The same in float.

    Returns:
        (C,) float64.
    """
    each = (found - expected).mean(axis=tuple(range(1, found.ndim - 1)), dtype=np.float64)
    shift = each.mean(axis=0)
    chance = each.var(axis=0) / max(1, len(each) - 1)
    kept = 1.0 - chance / np.maximum(shift**2, 1e-30)
    return np.asarray(shift * np.clip(kept, 0.0, 1.0))
