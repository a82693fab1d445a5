"""The int8 weights of a .tflite file, rounded so that their errors do not add up; see ``weight_rounding``."""

from __future__ import annotations

import numpy as np

from boardfit.converters.targets.tflite_view import Op, View
from boardfit.converters.targets.weight_rounding import rounded_weights


def rebalance(view: View, made: View) -> None:
    """Round the weights of a quantized file anew, on the steps that they have.

    The sums over all channels are balanced too where the input has values of both signs: its channels have
    means there as well.

    Args:
        view: Of the float file.
        made: Of the quantized file, whose model is changed.
    """
    for (source, layer), (op, _) in zip(view.layers(), made.layers(), strict=True):
        scale = made.scales(op.weight)
        integer = made.type_of(op.weight) == "INT8" and made.is_constant(op.weight)
        if not integer or layer.kind == "matmul" or len(scale) == 1:
            continue
        weights = weight_rows(source, view.values(source.weight).astype(np.float64)) / scale[:, None]
        integers = rounded_weights(weights, taps=_taps(view, source), one_signed=True)
        buffer = made.model.buffers[made.graph.tensors[op.weight].buffer]
        buffer.data = (
            _unrowed(source, integers, view.shape(source.weight)).astype(np.int8).reshape(-1).view(np.uint8)
        )


def _taps(view: View, op: Op) -> int:
    """Return how many weights of a row stand together that read neighbouring places of one channel."""
    if op.code not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        # Each output of a deconvolution reads some of its taps only.
        return 1
    _, height, width, _ = view.shape(op.weight)
    return height * width


def weight_rows(op: Op, weights: np.ndarray) -> np.ndarray:
    """Return (outputs, K) weights, all places of a channel side by side."""
    if weights.ndim == 2:
        return weights
    last = (3, 0, 1, 2) if op.code == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
    turned = weights.transpose(last)
    return turned.reshape(len(turned), -1)


def _unrowed(op: Op, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return rows in the order of the file again."""
    if len(shape) == 2:
        return rows
    if op.code == "DEPTHWISE_CONV_2D":
        return rows.reshape(shape[3], shape[0], shape[1], shape[2]).transpose(1, 2, 3, 0)
    return rows.reshape(shape[0], shape[3], shape[1], shape[2]).transpose(0, 2, 3, 1)
