"""Layers behind channels that went are fitted anew to what they gave before: least squares, no training.

Y. He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017
(https://arxiv.org/abs/1707.06168), section 3.1: what channels that stay can tell of those that went, the
layer that reads them takes over. Layer after layer, each from what the pruned net computes before it and to
what the whole net computes there, as X. Zhang et al., "Accelerating Very Deep Convolutional Networks for
Classification and Detection" (https://arxiv.org/abs/1505.06798), section 2.2, so that errors do not add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from boardfit.converters.compress.channels import WRITES
from boardfit.converters.compress.groups import Structure
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.quantize.graph import Graph, Node, forget, graph_of, run_node
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec

PIXELS = 12_000_000
"""Of all images together: bounds the memory, some 100 bytes for each."""
_ROWS_PER_WEIGHT = 24
_FEWEST_ROWS = 8192
_CHUNK = 4096
_RIDGE = 1e-3
_JUDGED = 5
"""Every so many-th image is kept from the fit and judges it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A layer of both nets, and what it reads in each.

    Attributes:
        whole: The call in the net before channels went.
        small: The call in the pruned net.
        outputs: (K,) bool, which of the whole layer's outputs stay.
        inputs: What both calls read, (N, ...) float32.
        norm: The normalisation that alone reads the layer, for a layer without a bias; None where there is
            none.
    """

    whole: Node
    small: Node
    outputs: np.ndarray
    inputs: tuple[np.ndarray, np.ndarray]
    norm: Any

    @property
    def has_offset(self) -> bool:
        """Whether a constant can be added to what the layer gives."""
        return bool(self.small.operation.use_bias or self.norm is not None)


def repair(
    net: Any, smaller: Any, structure: Structure, alive: np.ndarray, images: ImageSet, image: ImageSpec
) -> int:
    """Fit a pruned net's layers in place, and return how many were changed.

    A layer is changed only if images that the fit did not see say that it got better. Depthwise and grouped
    convolutions, and what is called more than once, stay as they are.

    Args:
        net: keras.Model before the channels went; it is not changed.
        smaller: keras.Model from ``shrink``.
        structure: Of ``net``.
        alive: (U,) bool, which units stayed.
        images: Labels are not needed.
        image: How pixels become the input.

    Raises:
        UnsupportedModel: Calls of the two nets do not correspond, or one writes several tensors.
    """
    graphs = graph_of(net), graph_of(smaller)
    if [node.kind for node in graphs[0].nodes] != [node.kind for node in graphs[1].nodes]:
        raise UnsupportedModel(f"the calls of {net.name} are others without some channels")
    count = max(_JUDGED, PIXELS // images.side**2)
    tensor = np.asarray(input_tensor(images.spread(count).pixels, image, images.side), np.float32)
    values = [{graph.image: tensor} for graph in graphs]
    changed, fitted = {graphs[1].image: False}, 0
    for position, (whole, small) in enumerate(zip(*(graph.nodes for graph in graphs), strict=True)):
        narrower = _numbers(whole.operation) != _numbers(small.operation)
        changed[small.label] = narrower or any(changed[label] for label in small.inputs)
        if changed[small.label] and _is_fitted(small):
            task = _Task(
                whole=whole,
                small=small,
                outputs=_staying(whole.operation, structure, alive),
                inputs=(values[0][whole.inputs[0]], values[1][small.inputs[0]]),
                norm=_norm_behind(graphs[1], small),
            )
            fitted += _fit(task)
        for graph, node, known in zip(graphs, (whole, small), values, strict=True):
            known[node.label] = run_node(node, known)
            forget(known, graph, position)
    return fitted


def _is_fitted(node: Node) -> bool:
    layer = node.operation
    if not node.weighted or type(layer) is keras.layers.DepthwiseConv2D:
        return False
    return type(layer) is keras.layers.Dense or (layer.groups == 1 and layer.data_format == "channels_last")


def _numbers(operation: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in getattr(operation, "weights", ()))


def _staying(layer: Any, structure: Structure, alive: np.ndarray) -> np.ndarray:
    kept = structure.kept(alive)
    for cut in structure.flow.cuts.values():
        if cut.layer is layer and cut.role == WRITES and cut.weight == 0:
            return np.asarray(kept.mask(cut.ids))
    return np.ones(layer.kernel.shape[-1], bool)


def _norm_behind(graph: Graph, node: Node) -> Any:
    """Return the normalisation that alone reads a layer without an activation, or None."""
    reader = graph.only_reader(node.label)
    if reader is None or not reader.once or type(reader.operation) is not keras.layers.BatchNormalization:
        return None
    linear = node.operation.activation is keras.activations.linear
    return reader.operation if linear and reader.operation.axis in (-1, 3) else None


def _fit(task: _Task) -> bool:
    """Fit one layer; return whether that was better."""
    layer = task.small.operation
    kernel = np.asarray(layer.get_weights()[0], np.float64)
    first = kernel.reshape(-1, kernel.shape[-1])
    # The layer's own constant is part of what both give, and so of the error.
    size = len(first)
    squares, products = np.zeros((size, size)), np.zeros_like(first)
    means, errors, rows = np.zeros(size), np.zeros(first.shape[1]), 0
    for inputs, error in _rows(task, first, judged=False):
        squares += inputs.T @ inputs
        products += inputs.T @ error
        means += inputs.sum(0, dtype=np.float64)
        errors += error.sum(0, dtype=np.float64)
        rows += len(inputs)
    if not rows:
        return False
    means, errors = means / rows, errors / rows
    if not task.has_offset:
        means, errors = np.zeros_like(means), np.zeros_like(errors)
    squares = squares / rows - np.outer(means, means)
    squares[np.diag_indices(size)] += _RIDGE * max(float(np.trace(squares)) / size, 1e-12)
    change = np.linalg.solve(squares, products / rows - np.outer(means, errors))
    trials = {
        "constant": (np.zeros_like(change), errors),
        "fit": (change, errors - means @ change),
    }
    found = _judged(task, first, trials)
    best = min(trials, key=lambda name: found[name])
    if not found[best] < found["before"]:
        return False
    _set(task, (first + trials[best][0]).reshape(kernel.shape), trials[best][1])
    return True


def _judged(
    task: _Task, first: np.ndarray, trials: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Return the squared error on the images that judge, of each trial and ``before`` any."""
    found = dict.fromkeys(("before", *trials), 0.0)
    for inputs, error in _rows(task, first, judged=True):
        found["before"] += float((error**2).sum())
        for name, (change, offset) in trials.items():
            found[name] += float(((error - inputs @ change.astype(np.float32) - offset) ** 2).sum())
    return found


def _set(task: _Task, kernel: np.ndarray, offset: np.ndarray) -> None:
    layer = task.small.operation
    before = layer.get_weights()
    layer.set_weights([kernel, *(bias + offset for bias in before[1:])])
    if task.norm is not None and not layer.use_bias:
        mean = keras.ops.convert_to_numpy(task.norm.moving_mean)
        task.norm.moving_mean.assign((mean - offset).astype(np.float32))


def _rows(task: _Task, first: np.ndarray, *, judged: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (R, I) float32 of what the pruned layer reads at some places, and (R, K) what it lacks there."""
    layers = task.whole.operation, task.small.operation
    kernels, offsets = zip(*map(_kernel_and_bias, layers), strict=True)
    whole = kernels[0][:, task.outputs]
    offset = offsets[0][task.outputs] - offsets[1]
    own = first.astype(np.float32)
    for places in _places(task, len(first), judged=judged):
        read = [_read(layer, values, places) for layer, values in zip(layers, task.inputs, strict=True)]
        yield read[1], read[0] @ whole + offset - read[1] @ own


def _kernel_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's kernel as (I, K), and its bias or zeros as (K,)."""
    kernel, *bias = layer.get_weights()
    flat = kernel.reshape(-1, kernel.shape[-1])
    return flat, bias[0] if bias else np.zeros(flat.shape[-1], np.float32)


def _places(task: _Task, size: int, *, judged: bool) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield chunks of places, by their index on each axis of what the layer writes but the last."""
    layer, values = task.small.operation, task.inputs[1]
    images = np.flatnonzero((np.arange(len(values)) % _JUDGED == _JUDGED - 1) == judged)
    extent = layer.compute_output_shape(values.shape)[1:-1]
    total = len(images) * int(np.prod(extent))
    wanted = min(total, max(_FEWEST_ROWS, _ROWS_PER_WEIGHT * size) // (_JUDGED - 1 if judged else 1))
    rng = np.random.default_rng(size)
    chosen = np.sort(rng.choice(total, wanted, replace=False))
    for start in range(0, wanted, _CHUNK):
        number, *rest = np.unravel_index(chosen[start : start + _CHUNK], (len(images), *extent))
        yield (images[number], *rest)


def _read(layer: Any, values: np.ndarray, places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return (R, I) float32: what a layer multiplies with its kernel at some places of what it writes."""
    if isinstance(layer, keras.layers.Dense):
        return np.asarray(values[places])
    number, row, column = places
    if layer.kernel_size == (1, 1):
        return np.asarray(values[number, row * layer.strides[0], column * layer.strides[1]])
    steps = [
        place[:, None] * stride + np.arange(side) * apart - _padding(layer, values.shape[axis], axis - 1)
        for axis, place, stride, side, apart in zip(
            (1, 2), (row, column), layer.strides, layer.kernel_size, layer.dilation_rate, strict=True
        )
    ]
    rows, columns = steps[0][:, :, None], steps[1][:, None, :]
    inside = (rows >= 0) & (rows < values.shape[1]) & (columns >= 0) & (columns < values.shape[2])
    found = values[
        number[:, None, None], rows.clip(0, values.shape[1] - 1), columns.clip(0, values.shape[2] - 1)
    ]
    return np.where(inside[..., None], found, np.float32(0.0)).reshape(len(number), -1)


def _padding(layer: Any, extent: int, axis: int) -> int:
    """Return how many zeros a convolution puts before an axis: with ``same`` the lesser half."""
    if layer.padding != "same":
        return 0
    stride, side, apart = layer.strides[axis], layer.kernel_size[axis], layer.dilation_rate[axis]
    written = -(-extent // stride)
    return int(max((written - 1) * stride + (side - 1) * apart + 1 - extent, 0)) // 2
