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
    axes = tuple(range(found.ndim - 1))
    shift = (found - expected).mean(axis=axes, dtype=np.float64)
    bias = np.asarray(layer.get_weights()[1]) - shift
    set_kernel(layer, kernel_of(layer), bias)
    return np.asarray(found - shift.astype(np.float32))
