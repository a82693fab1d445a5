"""QuantizeLinear and DequantizeLinear around the parts of an ONNX graph that are to run in integers.

ONNX Runtime turns DequantizeLinear -> Conv -> QuantizeLinear into one QLinearConv, and so for the other
operators below (core/optimizer/qdq_transformer of its sources). What stands in no such group runs in float.

Activations are uint8: ONNX Runtime's kernels for x86 know no others, and those for Arm are as fast with
them. Weights are int8, one scale per output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boardfit.converters.calibrate import Range
from boardfit.converters.targets.onnx_view import DENSE, MARK, View, known_as
from boardfit.converters.targets.weight_rounding import grid_steps, rounded_weights
from boardfit.errors import ExportError

TOP = 255
LEVELS = 127
LARGEST_BIAS = 2**30
QUANTIZED, DEQUANTIZED, SCALE, ZERO = (MARK + ending for ending in "qdsz")
"""Endings of the names of a tensor's integers, of the floats made from them, and of their grid."""

_SAME = ("Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""What gives out values that came in: with the range of its input."""
_ARITHMETIC = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "Mul")


@dataclass(frozen=True, slots=True)
class Sites:
    """Where a graph is quantized.

    Attributes:
        nodes: Names of the nodes that are to run in integers.
        tensors: The activations that are rounded, each with the tensor whose range it has.
    """

    nodes: frozenset[str]
    tensors: Mapping[str, str]


def find_sites(view: View, keep_float: frozenset[str]) -> Sites:
    """Choose the nodes that run in integers: all layers, and between them what costs nothing to round.

    Args:
        view: Of the float graph.
        keep_float: Layers to leave alone.
    """
    nodes: dict[str, Any] = {}
    carried: set[str] = set()
    for node in view.proto.graph.node:
        chosen = node.name not in keep_float if view.is_layer(node) else _may_follow(view, node, carried)
        if chosen:
            nodes[node.name] = node
            if node.op_type not in DENSE:  # those give out floats: nothing is lost before the bias
                carried.add(view.behind(node))
    _drop_idle(view, nodes)
    tensors: dict[str, str] = {}
    for node in nodes.values():
        for name in _activations(node):
            tensors.setdefault(name, name)
        if node.op_type in _SAME:
            tensors[node.output[0]] = tensors[node.input[0]]
        elif node.op_type not in DENSE:
            tensors.setdefault(view.behind(node), view.behind(node))
    return Sites(nodes=frozenset(nodes), tensors=tensors)


def _may_follow(view: View, node: Any, carried: set[str]) -> bool:
    """Return whether a node without weights can take the integers that the nodes before it give out."""
    if node.op_type in _SAME:
        return node.input[0] in carried and view.behind(node) == node.output[0]
    return node.op_type in _ARITHMETIC and all(name in carried for name in node.input)


def _drop_idle(view: View, nodes: dict[str, Any]) -> None:
    """Take out the nodes without weights whose integers nobody would read."""
    for node in reversed(list(nodes.values())):
        if not view.is_layer(node):
            tensor = view.behind(node)
            readers = view.consumers.get(tensor, ())
            if tensor in view.outputs or not any(reader.name in nodes for reader in readers):
                del nodes[node.name]


def _activations(node: Any) -> list[str]:
    """Return the inputs of a quantized node that are activations."""
    if node.op_type in ("Add", "Concat", "Mul"):
        return list(dict.fromkeys(node.input))
    return [str(node.input[0])]


@dataclass(slots=True)
class _Draft:
    """A graph that is being written: nodes in order, initializers by name."""

    view: View
    sites: Sites
    scales: dict[str, tuple[np.float32, np.uint8]]
    nodes: list[Any] = field(default_factory=list)
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    absorbed: set[str] = field(default_factory=set)

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Append a node that is named after its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))

    def store(self, name: str, values: np.ndarray) -> str:
        """Put values into the file and return their name."""
        self.stored[name] = values
        return name

    def constant(self, name: str, whole: np.ndarray, scale: np.ndarray, axis: int) -> str:
        """Put integers into the file, one scale per channel, and return the name of their floats."""
        grid = [self.store(name + SCALE, scale)]
        if whole.dtype != np.int32:
            # DequantizeLinear gives int32 none; for a small net the zeros of its biases are 2 % of the file.
            grid.append(self.store(name + ZERO, np.zeros(len(scale), whole.dtype)))
        self.add(
            "DequantizeLinear",
            [self.store(name + QUANTIZED, whole), *grid],
            name + DEQUANTIZED,
            axis=axis,
        )
        return name + DEQUANTIZED

    def grid(self, tensor: str) -> list[str]:
        """Return the names of an activation's scale and zero point."""
        root = self.sites.tensors[tensor]
        scale, zero = self.scales[root]
        return [
            self.store(f"{root}{SCALE}", np.asarray(scale, np.float32)),
            self.store(f"{root}{ZERO}", np.asarray(zero, np.uint8)),
        ]


def insert(view: View, sites: Sites, ranges: Mapping[str, Range]) -> Any:
    """Return a copy of the graph with the sites quantized.

    Raises:
        ExportError: A tensor has no range.
    """
    from onnx import numpy_helper

    roots = set(sites.tensors.values())
    missing = sorted(roots - ranges.keys())
    if missing:
        raise ExportError(
            f"{len(missing)} tensors have no range, the first is {missing[0]!r}: calibrate on the "
            "fp32 artifact that is quantized"
        )
    draft = _Draft(view, sites, {name: affine(ranges[name]) for name in roots})
    graph = view.proto.graph
    _round(draft, graph.input[0].name)
    for node in graph.node:
        if node.name not in draft.absorbed:
            _write(draft, node)
    used = {name for node in draft.nodes for name in node.input}
    kept = {name: values for name, values in {**view.weights, **draft.stored}.items() if name in used}
    model = type(view.proto)()
    model.CopyFrom(view.proto)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(draft.nodes)
    model.graph.initializer.extend(numpy_helper.from_array(kept[name], name) for name in kept)
    return model


def affine(found: Range) -> tuple[np.float32, np.uint8]:
    """Return scale and zero point of the uint8 that cover a range; 0 is among the values exactly."""
    width = found.high - found.low
    if width <= 0.0:
        return np.float32(1.0 / TOP), np.uint8(0)
    scale = np.float32(max(width / TOP, float(np.finfo(np.float32).tiny)))
    if found.low == 0.0 and np.float32(TOP) * scale > np.float32(found.high):
        # One bit above 6 and ONNX Runtime would keep the Clip, and with it the convolution in float.
        scale = np.nextafter(scale, np.float32(0.0))
    return scale, np.uint8(np.clip(np.rint(-found.low / float(scale)), 0, TOP))


def _write(draft: _Draft, node: Any) -> None:
    """Append a node with the pairs around it."""
    copy = type(node)()
    copy.CopyFrom(node)
    tensors, inside = draft.sites.tensors, node.name in draft.sites.nodes
    for place, name in enumerate(node.input):
        producer = draft.view.producer.get(name)
        exact = not inside and (producer is None or not _gives_integers(draft, name))
        if name in tensors and not exact:
            apart = place == 0 and not inside and draft.view.is_layer(node)
            copy.input[place] = _read_apart(draft, node) if apart else name + DEQUANTIZED
    if inside and draft.view.is_layer(node):
        _as_gemm(draft, copy)
        _store_weights(draft, copy)
    draft.nodes.append(copy)
    for place, name in enumerate(copy.output):
        if name in tensors and name in draft.view.outputs:
            copy.output[place] = f"{name}{MARK}f"
            _round(draft, name, source=f"{name}{MARK}f", dequantized=name)
        elif name in tensors:
            _round(draft, name)


def _read_apart(draft: _Draft, node: Any) -> str:
    """Dequantize the input of a layer that stays in float by a scale per channel, all of them equal.

    Behind a single scale ONNX Runtime (from 1.20, weight_bias_quantization.cc) would quantize the layer's
    weights by itself, per tensor.
    """
    weight, name = draft.view.weights[node.input[1]], str(node.input[0])
    channels = (
        weight.shape[1] * _groups(node) if node.op_type == "Conv" else weight.shape[1 - _output_axis(node)]
    )
    scale, zero = draft.scales[draft.sites.tensors[name]]
    apart = f"{name}{MARK}{node.output[0]}"
    grid = [
        draft.store(apart + SCALE, np.full(channels, scale)),
        draft.store(apart + ZERO, np.full(channels, zero)),
    ]
    axis = 1 if node.op_type == "Conv" else -1
    draft.add("DequantizeLinear", [name + QUANTIZED, *grid], apart, axis=axis)
    return apart


def _gives_integers(draft: _Draft, tensor: str) -> bool:
    """Return whether a tensor exists as integers only: its maker's, or that of the activation's input."""
    node = draft.view.producer[tensor]
    if node.op_type in ("Relu", "Clip"):
        before = draft.view.producer.get(node.input[0])
        if before is not None and draft.view.behind(before) == tensor:
            node = before
    return node.name in draft.sites.nodes and node.op_type not in DENSE


def _round(draft: _Draft, tensor: str, *, source: str = "", dequantized: str = "") -> None:
    """Append the pair that rounds a tensor, if it is to be rounded."""
    if tensor in draft.sites.tensors:
        grid = draft.grid(tensor)
        draft.add("QuantizeLinear", [source or tensor, *grid], tensor + QUANTIZED)
        draft.add("DequantizeLinear", [tensor + QUANTIZED, *grid], dequantized or tensor + DEQUANTIZED)


def _as_gemm(draft: _Draft, node: Any) -> None:
    """Make a MatMul over rows and the Add behind it one Gemm.

    ONNX Runtime does so by itself, but before it looks for integers, and then finds a bias in float.
    """
    adder = draft.view.bias_adder(node)
    if adder is not None and len(draft.view.shapes.get(known_as(node.input[0]), ())) == 2:
        node.op_type = "Gemm"
        node.input.append(next(name for name in adder.input if name in draft.view.weights))
        node.output[0] = adder.output[0]
        draft.absorbed.add(adder.name)


def _groups(node: Any) -> int:
    return int({attribute.name: attribute.i for attribute in node.attribute}.get("group", 1))


def _output_axis(node: Any) -> int:
    """Return the axis of a layer's weights that counts its outputs."""
    transposed = {attribute.name: attribute.i for attribute in node.attribute}.get("transB", 0)
    return 0 if node.op_type == "Conv" or transposed else 1


def _store_weights(draft: _Draft, node: Any) -> None:
    """Store a layer's weights in int8 and its bias in int32, and read both through DequantizeLinear."""
    axis = _output_axis(node)
    weight = draft.view.weights[node.input[1]]
    bias = draft.view.weights[node.input[2]] if len(node.input) > 2 else None
    into = draft.scales[draft.sites.tensors[known_as(node.input[0])]][0]
    depthwise = weight.ndim > 2 and weight.shape[1] == 1 and _groups(node) > 1
    scale = weight_scales(weight, axis, bias=bias, into=float(into), depthwise=depthwise)
    # Named after the layer: two layers may share weights, but not the steps of their inputs.
    node.input[1] = draft.constant(
        f"{node.output[0]}{MARK}w", whole_weights(weight, scale, axis), scale, axis
    )
    if bias is not None:
        step = (into * scale).astype(np.float32)
        whole = np.rint(bias.astype(np.float64) / step).astype(np.int32)
        node.input[2] = draft.constant(f"{node.output[0]}{MARK}b", whole, step, 0)


def weight_scales(
    weight: np.ndarray, axis: int, *, bias: np.ndarray | None, into: float, depthwise: bool = False
) -> np.ndarray:
    """Return the step of each output channel's weights.

    Args:
        weight: Of a layer.
        axis: That counts the outputs.
        bias: (outputs,), or None.
        into: Step of the layer's input.
        depthwise: Whether each group has one input channel.

    Returns:
        (outputs,) float32, wide enough that the bias fits into int32 at the product of both steps, and that
        no instruction saturates, see ``_pair_sums``.
    """
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    flat = rows.reshape(len(rows), -1)
    scale, grid = np.abs(flat).max(axis=1) / LEVELS, grid_steps(flat)
    pairs = np.zeros(len(rows)) if depthwise else np.abs(_pair_sums(rows)).max(axis=1)
    # On a grid a pair may come to 128: times 255 that is still within 16 bits.
    scale = np.where((grid > 0.0) & (pairs < (LEVELS + 1.5) * grid), grid, np.maximum(scale, pairs / LEVELS))
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (into * LARGEST_BIAS))
    return np.where(scale > 1e-30, scale, 1.0).astype(np.float32)


def _pair_sums(rows: np.ndarray) -> np.ndarray:
    """Return the sums of the weights that one vpmaddubsw multiplies and adds.

    x86 without VNNI multiplies uint8 by int8 with that instruction, whose sum of two products saturates at
    16 bits: 2 * 255 * 127 is too much, 255 * 127 is not. Pairs run along the input channels, inside a
    kernel's place (MLAS packs depth in fours). The usual remedy is to give up a bit of every weight
    (reduce_range); to keep each pair's sum in 7 bits and a sign costs far less. Depthwise kernels multiply
    in 16 bits and need neither.

    Args:
        rows: (outputs, inputs, ...) float64.

    Returns:
        (outputs, pairs) float64.
    """
    depth = np.moveaxis(rows, 1, -1).reshape(len(rows), -1)
    if depth.shape[1] % 2:
        depth = np.pad(depth, ((0, 0), (0, 1)))
    return np.asarray(depth[:, 0::2] + depth[:, 1::2])


def whole_weights(weight: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """Return the weights as int8, of the same shape, rounded so that errors cancel, see ``weight_rounding``.

    Each stays less than a level from its weight, so that a pair of them sums up to 128 at most: times 255
    that is still within 16 bits.
    """
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    levels = rows.reshape(len(rows), -1) / scale[:, None]
    taps = int(np.prod(weight.shape[2:], dtype=np.int64)) if axis == 0 else 1
    integers = rounded_weights(levels, taps=taps, one_signed=True).reshape(rows.shape)
    return np.asarray(np.moveaxis(integers, 0, axis).astype(np.int8))
