"""Layers behind channels that went are fitted anew to what they gave before: least squares, no training.

Y. He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017
(https://arxiv.org/abs/1707.06168), section 3.1: what channels that stay can tell of those that went, the
layer that reads them takes over. Layer after layer, each from what the pruned net computes before it and to
what the whole net computes there, as X. Zhang et al., "Accelerating Very Deep Convolutional Networks for
Classification and Detection" (https://arxiv.org/abs/1505.06798), section 3.3, so that errors do not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from boardfit.converters.compress.channels import WRITES
from boardfit.converters.compress.groups import Structure
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.compress.rules_layers import is_plain
from boardfit.converters.quantize.graph import Graph, Node, forget, graph_of, run_node
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec

MEMORY = 3 << 30
"""Bytes that the activations of both nets may take: so many images are looked at, or all that there are."""
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


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What might be added to a layer: (I, K) to its kernel, (K,) to what it gives."""

    kernel: np.ndarray
    offset: np.ndarray


def repair(
    net: Any,
    smaller: Any,
    structure: Structure,
    *,
    alive: np.ndarray,
    images: ImageSet,
    image: ImageSpec,
    told: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Fit a pruned net's layers in place, and return how many were changed.

    Convolutions and dense layers that read what channels are gone from are fitted; a layer is changed only
    if images that the fit did not see say that it got better. Depthwise, separable, transposed and grouped
    convolutions, one-dimensional ones, and what is called more than once stay as they are.

    Args:
        net: keras.Model before the channels went; it is not changed.
        smaller: keras.Model from ``shrink``.
        structure: Of ``net``.
        alive: (U,) bool, which units stayed.
        images: Labels are not needed; fewer than 5 fit nothing.
        image: How pixels become the input.
        told: Given after each call of the net how many are done, and of how many.

    Raises:
        UnsupportedModel: Calls of the two nets do not correspond, or one writes several tensors.
    """
    graphs = graph_of(net), graph_of(smaller)
    if _calls(graphs[0]) != _calls(graphs[1]):
        raise UnsupportedModel(f"the calls of {net.name} are others without some channels")
    chosen = images.spread(max(_JUDGED, MEMORY // _bytes_of_one(graphs, _tensor(images.spread(1), image))))
    values = [{graph.image: _tensor(chosen, image)} for graph in graphs]
    changed, fitted = {graphs[1].image: False}, 0
    for position, (whole, small) in enumerate(zip(*(graph.nodes for graph in graphs), strict=True)):
        reads_changed = any(changed[label] for label in small.inputs)
        narrower = _weight_count(whole.operation) != _weight_count(small.operation)
        changed[small.label] = narrower or reads_changed
        if reads_changed and _is_fitted(small):
            fitted += _fit(
                _Task(
                    whole=whole,
                    small=small,
                    outputs=_staying(whole.operation, structure, alive),
                    inputs=(values[0][whole.inputs[0]], values[1][small.inputs[0]]),
                    norm=_norm_behind(graphs[1], small),
                )
            )
        for graph, node, known in zip(graphs, (whole, small), values, strict=True):
            known[node.label] = run_node(node, known)
            forget(known, graph, position)
        told(position + 1, len(graphs[0].nodes))
    return fitted


def _calls(graph: Graph) -> list[tuple[str, str]]:
    """Return the kind of each call, and the layer's name where it may be fitted."""
    return [(node.kind, node.operation.name if node.weighted else "") for node in graph.nodes]


def _tensor(images: ImageSet, image: ImageSpec) -> np.ndarray:
    found = keras.ops.convert_to_numpy(input_tensor(images.pixels, image, images.side))
    return np.asarray(found, np.float32)


def _bytes_of_one(graphs: Sequence[Graph], tensor: np.ndarray) -> int:
    """Return the most that the activations of one image take in both nets at a time."""
    most, values = 1, [{graph.image: tensor} for graph in graphs]
    for position, nodes in enumerate(zip(*(graph.nodes for graph in graphs), strict=True)):
        for graph, node, known in zip(graphs, nodes, values, strict=True):
            known[node.label] = run_node(node, known)
            most = max(most, sum(value.nbytes for both in values for value in both.values()))
            forget(known, graph, position)
    return most


def _is_fitted(node: Node) -> bool:
    layer = node.operation
    if not node.weighted or not is_plain(layer):
        return False
    return type(layer) is keras.layers.Dense or (type(layer) is keras.layers.Conv2D and layer.groups == 1)


def _weight_count(operation: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in getattr(operation, "weights", ()))


def _staying(layer: Any, structure: Structure, alive: np.ndarray) -> np.ndarray:
    """Return (K,) bool: which of a layer's outputs the pruned net has."""
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
    trials = _trials(task)
    judged = _judged(task, trials)
    best = min(judged, key=lambda name: judged[name])
    if not judged[best] < judged["before"]:
        return False
    _add(task, trials[best])
    return True


def _trials(task: _Task) -> dict[str, _Trial]:
    """Return what might be added to a layer, by name: a constant alone, or what fits best."""
    size = len(_kernel_and_bias(task.small.operation)[0])
    count = sum(len(places[0]) for places in _places(task, judged=False))
    if not count:
        return {}
    change, mean, mean_error = (_by_rows if count < size else _by_weights)(task)
    trials = {"fit": _Trial(change, mean_error - mean @ change)}
    if task.has_offset:
        trials["constant"] = _Trial(np.zeros_like(change), mean_error)
    return trials


def _by_weights(task: _Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the (I, K) change of the kernel by the normal equations, and the means of inputs and errors."""
    size, width = _kernel_and_bias(task.small.operation)[0].shape
    squares, products, count = np.zeros((size, size)), np.zeros((size, width)), 0
    mean, mean_error = np.zeros(size), np.zeros(width)
    for inputs, error in _rows(task, judged=False):
        squares += inputs.T @ inputs
        products += inputs.T @ error
        mean += inputs.sum(0, dtype=np.float64)
        mean_error += error.sum(0, dtype=np.float64)
        count += len(inputs)
    mean *= float(task.has_offset) / count
    mean_error *= float(task.has_offset) / count
    covariance = squares / count - np.outer(mean, mean)
    _pull_to_zero(covariance, size)
    change = np.linalg.solve(covariance, products / count - np.outer(mean, mean_error))
    return change, mean, mean_error


def _by_rows(task: _Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same where there are fewer places than inputs: by one equation for each place."""
    inputs, error = (np.concatenate(part) for part in zip(*_rows(task, judged=False), strict=True))
    share = float(task.has_offset)
    mean, mean_error = inputs.mean(0, dtype=np.float64) * share, error.mean(0, dtype=np.float64) * share
    centred = inputs - mean
    products = centred @ centred.T / len(centred)
    _pull_to_zero(products, len(mean))
    return centred.T @ np.linalg.solve(products, (error - mean_error) / len(centred)), mean, mean_error


def _pull_to_zero(squares: np.ndarray, inputs: int) -> None:
    """Add a thousandth of an input's mean variance to the diagonal: of changes that fit alike, the least."""
    squares[np.diag_indices(len(squares))] += _RIDGE * max(float(np.trace(squares)) / inputs, 1e-12)


def _judged(task: _Task, trials: dict[str, _Trial]) -> dict[str, float]:
    """Return the squared error on the images that judge, of each trial and ``before`` any."""
    found = dict.fromkeys(("before", *trials), 0.0)
    for inputs, error in _rows(task, judged=True):
        found["before"] += float((error**2).sum())
        for name, trial in trials.items():
            left = error - inputs @ trial.kernel.astype(np.float32) - trial.offset
            found[name] += float((left**2).sum())
    return found


def _add(task: _Task, trial: _Trial) -> None:
    layer = task.small.operation
    kernel, *bias = layer.get_weights()
    layer.set_weights([kernel + trial.kernel.reshape(kernel.shape), *(each + trial.offset for each in bias)])
    if task.norm is not None and not layer.use_bias:
        mean = keras.ops.convert_to_numpy(task.norm.moving_mean)
        task.norm.moving_mean.assign((mean - trial.offset).astype(np.float32))


def _rows(task: _Task, *, judged: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (R, I) float32 of what the pruned layer reads at some places, and (R, K) what it lacks there."""
    layers = task.whole.operation, task.small.operation
    (whole, whole_bias), (own, own_bias) = map(_kernel_and_bias, layers)
    whole, offset = whole[:, task.outputs], whole_bias[task.outputs] - own_bias
    for places in _places(task, judged=judged):
        read = [_patches(layer, values, places) for layer, values in zip(layers, task.inputs, strict=True)]
        yield read[1], read[0] @ whole + offset - read[1] @ own


def _kernel_and_bias(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's kernel as (I, K), and its bias or zeros as (K,)."""
    kernel, *bias = layer.get_weights()
    flat = kernel.reshape(-1, kernel.shape[-1])
    return flat, bias[0] if bias else np.zeros(flat.shape[-1], np.float32)


def _places(task: _Task, *, judged: bool) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield chunks of places, by their index on each axis of what the layer writes but the last."""
    layer, values = task.small.operation, task.inputs[1]
    size = len(_kernel_and_bias(layer)[0])
    images = np.flatnonzero((np.arange(len(values)) % _JUDGED == _JUDGED - 1) == judged)
    extent = layer.compute_output_shape(values.shape)[1:-1]
    total = len(images) * int(np.prod(extent))
    wanted = min(total, max(_FEWEST_ROWS, _ROWS_PER_WEIGHT * size) // (_JUDGED - 1 if judged else 1))
    chosen = np.sort(np.random.default_rng(size).choice(total, wanted, replace=False))
    for start in range(0, wanted, _CHUNK):
        number, *rest = np.unravel_index(chosen[start : start + _CHUNK], (len(images), *extent))
        yield (images[number], *rest)


def _patches(layer: Any, values: np.ndarray, places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return (R, I) float32: what a layer multiplies with its kernel at some places of what it writes."""
    if isinstance(layer, keras.layers.Dense):
        return np.asarray(values[places])
    number, row, column = places
    if layer.kernel_size == (1, 1):
        return np.asarray(values[number, row * layer.strides[0], column * layer.strides[1]])
    rows, columns = (
        place[:, None] * stride + np.arange(side) * apart - _padding(layer, extent, axis)
        for axis, (place, extent, stride, side, apart) in enumerate(
            zip(
                (row, column),
                values.shape[1:3],
                layer.strides,
                layer.kernel_size,
                layer.dilation_rate,
                strict=True,
            )
        )
    )
    rows, columns = rows[:, :, None], columns[:, None, :]
    height, width = values.shape[1:3]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found = values[number[:, None, None], rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside[..., None], found, np.float32(0.0)).reshape(len(number), -1)


def _padding(layer: Any, extent: int, axis: int) -> int:
    """Return how many zeros a convolution puts before an axis: with ``same`` the lesser half."""
    if layer.padding != "same":
        return 0
    stride, side, apart = layer.strides[axis], layer.kernel_size[axis], layer.dilation_rate[axis]
    written = -(-extent // stride)
    return int(max((written - 1) * stride + (side - 1) * apart + 1 - extent, 0)) // 2
