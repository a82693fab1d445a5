"""Int8 in numpy: what a format's rounding does to weights and activations, near enough to correct for it.

Formats differ in which tensors they round. Here it is every tensor but those that all of them compute
through: what an activation such as ReLU reads from the layer before it, and what only moves values about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from boardfit.converters.calibrate import BINS, LEVELS, Range, TensorStats, estimate
from boardfit.converters.quantize.fold import kernel_of, set_kernel
from boardfit.converters.quantize.graph import BATCH, Graph, Node, forget, graph_of, run_node
from boardfit.converters.targets.weight_rounding import rounded_weights

WEIGHT_STEPS = 127
"""Of an int8 weight to either side of zero."""
PIXELS = 1_600_000
"""Of all images together that surgery looks at: bounds time and memory."""
FEWEST, MOST = 16, 512
_VALUES = 1_000_000
_FUSED = ("ReLU", "LeakyReLU", "Clip", "Relu", "Relu6", "Maximum", "Minimum")
_MOVING = (
    "Dropout", "SpatialDropout2D", "Identity", "Flatten", "Reshape", "ZeroPadding2D", "Cropping2D",
    "MaxPooling2D", "GlobalMaxPooling2D", "Permute", "Transpose", "ExpandDims", "Squeeze",
)  # fmt: skip

Treat = Callable[[Node, np.ndarray, np.ndarray], np.ndarray]
"""Sees a weighted call, what it reads in int8 and what it writes in float; returns what it writes in int8."""


def some_of(images: np.ndarray) -> np.ndarray:
    """Return as many of (N, S, S, 3) images as surgery looks at: more where they are small."""
    count = int(np.clip(PIXELS // (images.shape[1] * images.shape[2]), FEWEST, MOST))
    return images[:count]


def simulate(graph: Graph, images: np.ndarray, treat: Treat) -> dict[str, np.ndarray]:
    """Run a net in float and in simulated int8 side by side; each layer meets the errors made before it.

    Args:
        graph: Folded. What ``treat`` writes into a layer is seen by the int8 run alone.
        images: (N, S, S, 3) float32.
        treat: Called for each weighted call, in order.

    Returns:
        The net's outputs in simulated int8, by label.
    """
    exact = {graph.image: images}
    coarse = {graph.image: rounded(images, range_of(images))}
    for position, node in enumerate(graph.nodes):
        exact[node.label] = run_node(node, exact)
        if node.weighted:
            found = treat(node, coarse[node.inputs[0]], exact[node.label])
        else:
            found = run_node(node, coarse)
        if is_stored(graph, node):
            found = rounded(found, range_of(exact[node.label]))
        coarse[node.label] = found
        forget(exact, graph, position)
        forget(coarse, graph, position)
    return {label: coarse[label] for label in graph.outputs}


def simulated_error(net: Any, images: np.ndarray) -> float:
    """Return the squared error of a folded net's outputs in simulated int8 over their variance.

    Args:
        net: keras.Model from ``fold.folded``.
        images: (N, S, S, 3) float32.
    """
    import keras

    chosen = some_of(images)
    parts = [
        keras.tree.flatten(net(chosen[start : start + BATCH], training=False))
        for start in range(0, len(chosen), BATCH)
    ]
    expected = [
        np.concatenate([keras.ops.convert_to_numpy(row) for row in rows]) for rows in zip(*parts, strict=True)
    ]
    found = simulate(graph_of(net), chosen, lambda node, inputs, _: run_rounded(node, inputs))
    return sum(
        float(((a - b) ** 2).mean() / max(float(b.var()), 1e-12))
        for a, b in zip(found.values(), expected, strict=True)
    )


def is_stored(graph: Graph, node: Node) -> bool:
    """Return whether a format rounds what this call writes."""
    if is_moved(node) or node.label in graph.outputs:
        return False
    reader = graph.only_reader(node.label)
    return reader is None or not fuses(reader)


def is_moved(node: Node) -> bool:
    """Return whether a call only moves values about: its tensor has the grid of what it reads."""
    return node.kind in _MOVING


def moved_from(graph: Graph, labels: Collection[str]) -> dict[str, str]:
    """Return, by label of a tensor whose values were only moved, which of some labels they come from."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        source = found.get(node.inputs[0], node.inputs[0]) if node.inputs else ""
        if is_moved(node) and source in labels:
            found[node.label] = source
    return found


def handed_on(graph: Graph, labels: Collection[str]) -> frozenset[str]:
    """Return which of some tensors a convolution writes and convolutions alone read."""
    import keras

    def convolves(node: Node | None) -> bool:
        return node is not None and node.weighted and not isinstance(node.operation, keras.layers.Dense)

    found = set()
    for label in labels:
        node, readers = graph.by_label.get(label), graph.readers[label]
        writer = graph.by_label.get(node.inputs[0]) if node is not None and fuses(node) else node
        if convolves(writer) and readers and all(map(convolves, readers)) and label not in graph.outputs:
            found.add(label)
    return frozenset(found)


def fuses(node: Node) -> bool:
    """Return whether every format computes this call inside the layer before it."""
    import keras

    if node.kind == "Activation":
        names = (keras.activations.relu, keras.activations.relu6, keras.activations.linear)
        return node.operation.activation in names
    return node.kind in _FUSED


def range_of(values: np.ndarray) -> Range:
    """Return the range of the least squared error for the values of one tensor."""
    flat = values.reshape(-1)
    flat = flat[:: max(1, flat.size // _VALUES)]
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Range(min(low, 0.0), max(high, 0.0))
    counts, _ = np.histogram(flat, bins=BINS, range=(low, high))
    return estimate(TensorStats(low, high, counts), "mse")


def rounded(values: np.ndarray, to: Range) -> np.ndarray:
    """Return values rounded to 256 levels over a range, of which zero is one."""
    step = (to.high - to.low) / (LEVELS - 1)
    if step == 0.0:
        return np.zeros_like(values)
    zero = round(-to.low / step)
    found = np.rint(values * np.float32(1.0 / step))
    np.clip(found, -zero, LEVELS - 1 - zero, out=found)
    return np.asarray(found * np.float32(step), np.float32)


def steps_of(columns: np.ndarray) -> np.ndarray:
    """Return the (channels,) float64 step between weights of each output channel; 1 for one that is zero.

    Args:
        columns: (fan-in, channels), see ``fold.kernel_of``.
    """
    largest = np.abs(columns).max(axis=0).astype(np.float64)
    return np.where(largest > 0.0, largest / WEIGHT_STEPS, 1.0)


def cancelling(layer: Any) -> np.ndarray:
    """Return a layer's kernel in int8 as every format rounds it: so that errors cancel.

    Args:
        layer: Conv2D, DepthwiseConv2D or Dense, built.

    Returns:
        (fan-in, channels) float32 on the steps of ``steps_of``, rows as ``fold.kernel_of`` has them.
    """
    columns = kernel_of(layer)
    step = steps_of(columns)
    taps = int(np.prod(getattr(layer, "kernel_size", 1)))
    # From places before inputs to the places of an input side by side.
    levels = (columns / step).reshape(taps, -1, len(step)).transpose(2, 1, 0)
    integers = rounded_weights(levels.reshape(len(step), -1), taps=taps, one_signed=True)
    back = integers.reshape(levels.shape).transpose(2, 1, 0).reshape(columns.shape)
    return np.asarray(back * step, np.float32)


def run_rounded(node: Node, inputs: np.ndarray) -> np.ndarray:
    """Run a weighted call with its weights in int8; the layer keeps its own."""
    layer = node.operation
    columns, bias = kernel_of(layer), np.asarray(layer.get_weights()[1])
    set_kernel(layer, cancelling(layer), bias)
    try:
        return run_node(node, {node.inputs[0]: inputs})
    finally:
        set_kernel(layer, columns, bias)
