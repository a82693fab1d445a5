"""Adaptive rounding: up or down is decided by what a layer then answers, not by what is nearer.

M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020
(https://arxiv.org/abs/2004.10568). A layer's squared error is quadratic in its rounding: that makes
the choice a QUBO per output channel (the paper's section 3.1). The paper relaxes it; here
coordinate descent works on the QUBO itself, which is quick, and never ends above rounding to the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boardfit.converters.quantize.biases import shift_of
from boardfit.converters.quantize.fold import kernel_of, set_kernel
from boardfit.converters.quantize.graph import Node, graph_of, run_node
from boardfit.converters.quantize.simulate import simulate, some_of, steps_of

_SWEEPS = 8
_ROWS = 8192
_FEWEST_ROWS = 1024
_VALUES = 20_000_000
_SEED = 5
_WHOLE = 1e-3
"""So near a whole number a weight, in units of its step, has no other neighbour."""
_DAMPING = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What the rounding of a layer's weights does to its outputs, in G independent groups of channels.

    Attributes:
        gram: (G, F, F) float64, covariance of what the weights are multiplied with.
        pull: (G, F, O) float64, its covariance with the error that the layer makes before its weights are
            rounded, as its inputs are.
    """

    gram: np.ndarray
    pull: np.ndarray

    def error(self, delta: np.ndarray) -> np.ndarray:
        """Return (G, O) what (G, F, O) changes of the weights add to the mean squared error."""
        return np.asarray(((self.gram @ delta + 2.0 * self.pull) * delta).sum(axis=1))


def round_adaptively(net: Any, images: np.ndarray) -> None:
    """Round the kernels of a folded net to what int8 can hold, and correct its biases.

    The largest weight of each output channel stays, so that a quantizer whose scale is max|w| / 127 finds the
    chosen integers again.

    Args:
        net: keras.Model from ``fold.folded``; changed in place.
        images: (N, S, S, 3) float32, to calibrate on.
    """
    simulate(graph_of(net), some_of(images), _round)


def _round(node: Node, inputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    layer = node.operation
    columns, bias = kernel_of(layer), np.asarray(layer.get_weights()[1])
    rows, answers = patches(layer, inputs, expected)
    weights = grouped(columns, rows.shape[1])
    steps = grouped(np.broadcast_to(steps_of(columns), columns.shape), rows.shape[1])
    chosen = choose(weights / steps, steps, moments(rows, answers - bias, weights))
    set_kernel(layer, ungrouped(chosen * steps, columns.shape), bias)
    found = run_node(node, {node.inputs[0]: inputs})
    shift = shift_of(found, expected)
    set_kernel(layer, kernel_of(layer), bias - shift)
    return np.asarray(found - shift.astype(np.float32))


def moments(rows: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> Moments:
    """Return the moments of a layer.

    Args:
        rows: (R, G, F) what each output's weights are multiplied with.
        answers: (R, G * O) what should come out, without the bias.
        weights: (G, F, O) before rounding.
    """
    count, groups, fan_in = rows.shape
    # Contiguous and float32: the products are most of the work.
    x = np.ascontiguousarray((rows - rows.mean(axis=0)).transpose(1, 2, 0), np.float32)
    y = answers.reshape(count, groups, -1)
    y = np.ascontiguousarray((y - y.mean(axis=0)).transpose(1, 0, 2), np.float32)
    gram = (x @ x.transpose(0, 2, 1)).astype(np.float64) / count
    left = x.transpose(0, 2, 1) @ weights.astype(np.float32) - y
    pull = (x @ left).astype(np.float64) / count
    # Few rows for many weights: what they seem to have in common is believed that much less.
    trust = count / (count + fan_in)
    diagonal = gram * np.eye(fan_in)
    return Moments(trust * gram + (1.0 - trust) * diagonal, trust * pull)


def choose(scaled: np.ndarray, steps: np.ndarray, of: Moments) -> np.ndarray:
    """Return for each weight the integer below or above it, chosen together.

    Args:
        scaled: (G, F, O) float64 weights in units of their steps.
        steps: (G, F, O) the steps.
        of: The layer's moments.

    Returns:
        (G, F, O) float64 whole numbers; their error is never above that of the nearest.
    """
    starts = np.rint(scaled), _one_by_one(scaled, steps, of)
    ends = [_descend(start, scaled, steps, of) for start in starts]
    errors = [of.error((end - scaled) * steps) for end in ends]
    return np.asarray(np.where((errors[1] < errors[0])[:, None], ends[1], ends[0]))


def _other(chosen: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Return the whole number on the other side of each weight; a whole one has none."""
    apart = scaled - chosen
    return np.where(np.abs(apart) < _WHOLE, chosen, chosen + np.sign(apart))


def _one_by_one(scaled: np.ndarray, steps: np.ndarray, of: Moments) -> np.ndarray:
    """Round one weight after the other, the rest taking up the error as far as they can.

    E. Frantar et al., "GPTQ", ICLR 2023 (https://arxiv.org/abs/2210.17323), between two neighbours.
    """
    fan_in = scaled.shape[1]
    diagonal = np.trace(of.gram, axis1=1, axis2=2)[:, None, None] / fan_in
    damped = of.gram + (_DAMPING * diagonal + 1e-12) * np.eye(fan_in)
    inverse = np.linalg.inv(damped)
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2.0).transpose(0, 2, 1)
    nearest = np.rint(scaled)
    others = _other(nearest, scaled)
    wanted = scaled * steps - inverse @ of.pull
    chosen = np.array(nearest)
    for index in range(fan_in):
        goal, step = wanted[:, index], steps[:, index]
        a, b = nearest[:, index], others[:, index]
        chosen[:, index] = np.where(np.abs(b * step - goal) < np.abs(a * step - goal), b, a)
        left = (goal - chosen[:, index] * step) / upper[:, index, index, None]
        wanted[:, index + 1 :] -= upper[:, index, index + 1 :, None] * left[:, None]
    return chosen


def _descend(start: np.ndarray, scaled: np.ndarray, steps: np.ndarray, of: Moments) -> np.ndarray:
    """Move one weight at a time to its other neighbour where that lowers the error, until none does."""
    chosen, other = start.copy(), _other(start, scaled)
    # Half the slope of the error by each weight, kept up to date.
    slope = of.gram @ ((chosen - scaled) * steps) + of.pull
    for _ in range(_SWEEPS):
        moved = 0
        for index in range(scaled.shape[1]):
            change = (other[:, index] - chosen[:, index]) * steps[:, index]
            gain = change * (2.0 * slope[:, index] + change * of.gram[:, index, index, None])
            flip = gain < -1e-12 * np.abs(change)
            if not flip.any():
                continue
            moved += int(flip.sum())
            columns = np.flatnonzero(flip.any(axis=0))
            applied = np.where(flip, change, 0.0)[:, None, columns]
            slope[:, :, columns] += of.gram[:, :, index, None] * applied
            swap = chosen[:, index].copy()
            chosen[:, index] = np.where(flip, other[:, index], swap)
            other[:, index] = np.where(flip, swap, other[:, index])
        if not moved:
            break
    return chosen


def grouped(columns: np.ndarray, groups: int) -> np.ndarray:
    """Return (fan-in, channels) columns as (G, F, O) float64 of G groups that read channels of their own."""
    fan_in = columns.shape[0]
    return columns.astype(np.float64).reshape(fan_in, groups, -1).transpose(1, 0, 2)


def ungrouped(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (G, F, O) weights as (fan-in, channels) columns of a shape."""
    return np.asarray(weights.transpose(1, 0, 2).reshape(shape), np.float32)


def patches(layer: Any, inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a layer multiplies its weights with, at places drawn at random, and its outputs there.

    Args:
        layer: Conv2D, DepthwiseConv2D or Dense, built.
        inputs: (N, H, W, C) float32, or (N, ..., C) for a dense layer.
        outputs: (N, H', W', O) float32 or (N, ..., O).

    Returns:
        (R, G, F) rows and (R, O) outputs.
    """
    import keras

    rng = np.random.default_rng(_SEED)
    if isinstance(layer, keras.layers.Dense):
        every = inputs.reshape(-1, 1, inputs.shape[-1])
        picked = _picked(len(every), every.shape[-1], rng)
        return every[picked], outputs.reshape(len(every), -1)[picked]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    width = inputs.shape[-1]
    groups = width if depthwise else layer.groups
    places = int(np.prod(outputs.shape[:3]))
    picked = _picked(places, int(np.prod(layer.kernel_size)) * width, rng)
    image, top, left = np.unravel_index(picked, outputs.shape[:3])
    padded = _padded(layer, inputs)
    taps = [
        padded[
            image,
            top * layer.strides[0] + row * layer.dilation_rate[0],
            left * layer.strides[1] + column * layer.dilation_rate[1],
        ]
        for row in range(layer.kernel_size[0])
        for column in range(layer.kernel_size[1])
    ]
    split = np.stack(taps, axis=1).reshape(len(picked), len(taps), groups, -1)
    rows = split.transpose(0, 2, 1, 3).reshape(len(picked), groups, -1)
    return rows, outputs.reshape(places, -1)[picked]


def _picked(places: int, values: int, rng: np.random.Generator) -> np.ndarray:
    count = max(_FEWEST_ROWS, min(_ROWS, _VALUES // values))
    if places <= count:
        return np.arange(places)
    return np.sort(rng.choice(places, count, replace=False))


def _padded(layer: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the input with the zeros that padding "same" adds: more at the far end, as in TensorFlow."""
    if layer.padding == "valid":
        return inputs
    pads = [(0, 0)]
    for axis in (0, 1):
        extent, stride = inputs.shape[1 + axis], layer.strides[axis]
        reach = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
        total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(inputs, [*pads, (0, 0)])
