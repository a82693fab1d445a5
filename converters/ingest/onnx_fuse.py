"""Fusing: patterns of small operators become the one operation that they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_fuse_norms import (
    absorb_scales,
    absorb_shifts,
    fuse_group_norms,
    fuse_layer_norms,
)
from boardfit.converters.ingest.onnx_look import Look
from boardfit.converters.ingest.onnx_records import Graph, Node, Shape

_FLOATS = (1, 10, 11, 16)
"""TensorProto numbers of float32, float16, float64 and bfloat16."""


def fuse_graph(graph: Graph) -> Graph:
    """Return the graph with patterns fused and without nodes that no output needs.

    Padding joins its convolution; ``x * sigmoid(x)`` becomes ``Silu``, hard swish, hard sigmoid, Mish and
    GELU likewise; a bias joins its MatMul or Conv; layer and group normalisation that is written out becomes
    one operator; Identity, Dropout and casts between floats go.
    """
    for rewrite in (
        _skip_identities,
        _skip_expands,
        _swap_pad_transpose,
        _pads_into_convs,
        _fuse_activations,
        fuse_layer_norms,
        fuse_group_norms,
        absorb_scales,
        absorb_shifts,
        _fuse_biases,
    ):
        graph = _without_dead(rewrite(graph))
    return graph


def full_pads(
    node: Node, consts: Mapping[str, np.ndarray], rank: int, *, zeros_only: bool = True
) -> tuple[int, ...] | None:
    """Return begin and end of every axis (2 * rank ints) of a Pad, or None if it cuts or fills otherwise.

    Args:
        node: The Pad.
        consts: Constants by name.
        rank: Axes of its input.
        zeros_only: Whether a Pad that fills with anything but zeros counts as another.
    """
    inputs = [*node.inputs, "", "", ""][1:4]
    pads = consts.get(inputs[0])
    value = consts.get(inputs[1]) if inputs[1] else np.zeros(1)
    if pads is None or value is None:
        return None
    if zeros_only and (np.any(value) or node.attrs.get("mode", "constant") != "constant"):
        return None
    axes = [int(axis) % rank for axis in consts[inputs[2]]] if inputs[2] in consts else list(range(rank))
    amounts = [int(amount) for amount in pads.reshape(-1)]
    if len(amounts) != 2 * len(axes) or min(amounts) < 0:
        return None
    full = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        full[axis], full[rank + axis] = amounts[index], amounts[len(axes) + index]
    return tuple(full)


def _skip_identities(graph: Graph) -> Graph:
    alias: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        if node.op in ("Identity", "Dropout") or (node.op == "Cast" and node.attrs.get("to") in _FLOATS):
            alias[node.outputs[0]] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes), outputs=tuple(alias.get(name, name) for name in graph.outputs))


def _skip_expands(graph: Graph) -> Graph:
    """An Expand goes where the operator behind it would repeat its input anyway."""
    look = Look(graph)

    def skip(node: Node) -> Node:
        if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
            return node
        inputs = list(node.inputs)
        for place in (0, 1):
            expand, other = look.made_by(inputs[place], "Expand"), inputs[1 - place]
            whole = graph.shapes.get(other) == graph.shapes[node.outputs[0]]
            if expand is not None and whole and expand.inputs[0] in graph.shapes:
                inputs[place] = expand.inputs[0]
        return replace(node, inputs=tuple(inputs))

    return replace(graph, nodes=tuple(skip(node) for node in graph.nodes))


def _swap_pad_transpose(graph: Graph) -> Graph:
    """Pad, then Transpose becomes Transpose, then Pad: tf2onnx pads in NHWC in front of an NCHW Conv."""
    look = Look(graph)
    shapes: dict[str, Shape] = dict(graph.shapes)
    consts = dict(graph.consts)
    nodes: list[Node] = []
    for node in graph.nodes:
        pad = look.made_by(node.inputs[0], "Pad") if node.op == "Transpose" else None
        rank = len(graph.shapes[node.outputs[0]]) if pad else 0
        amounts = full_pads(pad, graph.consts, rank) if pad else None
        if pad is None or amounts is None:
            nodes.append(node)
            continue
        perm = node.attrs.get("perm", list(range(rank))[::-1])
        middle, table = f"{node.outputs[0]}/unpadded", f"{node.outputs[0]}/pads"
        shapes[middle] = tuple(graph.shapes[pad.inputs[0]][axis] for axis in perm)
        consts[table] = np.array([amounts[half * rank + axis] for half in (0, 1) for axis in perm], np.int64)
        nodes.append(replace(node, inputs=(pad.inputs[0],), outputs=(middle,)))
        nodes.append(Node("Pad", pad.name, (middle, table), node.outputs, {}))
    return replace(graph, nodes=tuple(nodes), shapes=shapes, consts=consts)


def _pads_into_convs(graph: Graph) -> Graph:
    look = Look(graph)

    def merge(node: Node) -> Node:
        pad = look.made_by(node.inputs[0], "Pad") if node.op == "Conv" else None
        if pad is None or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
            return node
        if len(graph.shapes[node.outputs[0]]) != 4:
            return node
        amounts = full_pads(pad, graph.consts, 4)
        if amounts is None or any(amounts[axis] for axis in (0, 1, 4, 5)):
            return node
        own = node.attrs.get("pads", [0, 0, 0, 0]) if node.attrs.get("auto_pad") != "VALID" else [0, 0, 0, 0]
        extra = (amounts[2], amounts[3], amounts[6], amounts[7])
        attrs = {**node.attrs, "auto_pad": "NOTSET", "pads": [a + b for a, b in zip(own, extra, strict=True)]}
        return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs=attrs)

    return replace(graph, nodes=tuple(merge(node) for node in graph.nodes))


def _fuse_activations(graph: Graph) -> Graph:
    look = Look(graph)

    def fuse(node: Node) -> Node:
        match = _match_activation(look, node) if node.op in ("Mul", "Div") else None
        if match is None:
            return node
        op, tensor, attrs = match
        return Node(op, node.name, (tensor,), node.outputs, attrs)

    return replace(graph, nodes=tuple(fuse(node) for node in graph.nodes))


def _match_activation(look: Look, node: Node) -> tuple[str, str, dict[str, Any]] | None:
    tensors, scalar = _factors(look, node.outputs[0], top=True)
    if len(tensors) == 1 and _near(scalar, 1 / 6):
        inner = _relu6_of_plus_3(look, tensors[0])
        return ("HardSigmoid", inner, {"alpha": 1 / 6, "beta": 0.5}) if inner else None
    if len(tensors) != 2:
        return None
    for x, gate in (tensors, tensors[::-1]):
        maker = look.maker.get(gate)
        if maker is None:
            continue
        if maker.op == "Sigmoid" and maker.inputs[0] == x and _near(scalar, 1.0):
            return "Silu", x, {}
        softplus = look.made_by(maker.inputs[0], "Softplus") if maker.op == "Tanh" else None
        if softplus is not None and softplus.inputs[0] == x and _near(scalar, 1.0):
            return "Mish", x, {}
        sixth = _near(maker.attrs.get("alpha", 0.2), 1 / 6) and _near(maker.attrs.get("beta", 0.5), 0.5)
        if maker.op == "HardSigmoid" and maker.inputs[0] == x and sixth and _near(scalar, 1.0):
            return "HardSwish", x, {}
        if _relu6_of_plus_3(look, gate) == x and _near(scalar, 1 / 6):
            return "HardSwish", x, {}
        if _one_plus_erf(look, gate) == x and _near(scalar, 0.5):
            return "Gelu", x, {}
    return None


def _factors(look: Look, name: str, *, top: bool = False, depth: int = 4) -> tuple[list[str], float]:
    """Flatten a product: its tensors, and the product of its scalars; no pattern is deeper than ``depth``."""
    scalar = look.scalar(name)
    if scalar is not None:
        return [], scalar
    node = look.made_by(name, "Mul", "Div")
    if node is None or depth == 0 or (not top and look.uses[name] > 1):
        return [name], 1.0
    left, factor = _factors(look, node.inputs[0], depth=depth - 1)
    if node.op == "Div":
        divisor = look.scalar(node.inputs[1])
        return (left, factor / divisor) if divisor else ([name], 1.0)
    right, other = _factors(look, node.inputs[1], depth=depth - 1)
    return left + right, factor * other


def _relu6_of_plus_3(look: Look, name: str) -> str | None:
    """Return x where the tensor is clip(x + 3, 0, 6)."""
    clip = look.made_by(name, "Clip")
    bounds = [look.scalar(item) for item in clip.inputs[1:3]] if clip else []
    add = look.made_by(clip.inputs[0], "Add") if clip and bounds == [0.0, 6.0] else None
    parts = look.split(add) if add else None
    return parts[0] if parts and parts[1] == 3.0 else None


def _one_plus_erf(look: Look, name: str) -> str | None:
    """Return x where the tensor is 1 + erf(x / sqrt(2))."""
    add = look.made_by(name, "Add")
    parts = look.split(add) if add else None
    erf = look.made_by(parts[0], "Erf") if parts and parts[1] == 1.0 else None
    if erf is None:
        return None
    tensors, scalar = _factors(look, erf.inputs[0])
    return tensors[0] if len(tensors) == 1 and _near(scalar, 1 / math.sqrt(2)) else None


def _fuse_biases(graph: Graph) -> Graph:
    look = Look(graph)
    consts = dict(graph.consts)

    def fuse(node: Node) -> Node:
        if node.op != "Add":
            return node
        for tensor, bias in (node.inputs[:2], node.inputs[1::-1]):
            maker = look.made_by(tensor, "MatMul", "Conv")
            if maker is None or look.uses[tensor] > 1 or len(maker.inputs) != 2 or bias not in consts:
                continue
            vector = _bias_vector(maker, consts, bias, len(graph.shapes[tensor]))
            if vector is not None:
                name = f"{node.outputs[0]}/bias"
                consts[name] = vector
                return replace(maker, inputs=(*maker.inputs, name), outputs=node.outputs)
        return node

    return replace(graph, nodes=tuple(fuse(node) for node in graph.nodes), consts=consts)


def _bias_vector(maker: Node, consts: Mapping[str, np.ndarray], bias: str, rank: int) -> np.ndarray | None:
    """Return the constant as one number per output channel, or None if it is something else."""
    weight = consts.get(maker.inputs[1])
    if weight is None or (maker.op == "MatMul" and weight.ndim != 2) or consts[bias].ndim > rank:
        return None
    axis, channels = (1, weight.shape[0]) if maker.op == "Conv" else (rank - 1, weight.shape[1])
    shape = (1,) * (rank - consts[bias].ndim) + consts[bias].shape
    expected = tuple(channels if index == axis else 1 for index in range(rank))
    return consts[bias].reshape(-1) if shape == expected else None


def _without_dead(graph: Graph) -> Graph:
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return replace(graph, nodes=tuple(kept[::-1]))


def _near(value: float, target: float) -> bool:
    return math.isclose(value, target, rel_tol=1e-5, abs_tol=1e-7)
