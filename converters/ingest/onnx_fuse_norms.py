"""Fusing: normalisations that older exports write out in small operators become one again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from boardfit.converters.ingest.onnx_look import Look
from boardfit.converters.ingest.onnx_records import Graph, Node


def fuse_layer_norms(graph: Graph) -> Graph:
    """``(x - mean) / sqrt(var + eps)`` becomes LayerNormalization, over any axes."""
    look = Look(graph)
    return replace(graph, nodes=tuple(_layer_norm(look, node) or node for node in graph.nodes))


def fuse_group_norms(graph: Graph) -> Graph:
    """Reshape, InstanceNormalization, Reshape back becomes GroupNormalization: how torch exports it."""
    look = Look(graph)
    consts = dict(graph.consts)
    nodes = [_group_norm(look, node, graph, consts) or node for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes), consts=consts)


def absorb_scales(graph: Graph) -> Graph:
    """The scale of a normalisation that has none joins it."""
    return _absorb(graph, "Mul", 1)


def absorb_shifts(graph: Graph) -> Graph:
    """The shift of a normalisation that has none joins it."""
    return _absorb(graph, "Add", 2)


def _layer_norm(look: Look, node: Node) -> Node | None:
    if node.op != "Div":
        return None
    centred, root = look.made_by(node.inputs[0], "Sub"), look.made_by(node.inputs[1], "Sqrt")
    add = look.made_by(root.inputs[0], "Add") if root else None
    parts = look.split(add) if add else None
    if centred is None or parts is None:
        return None
    variance, mean = look.made_by(parts[0], "ReduceMean"), look.made_by(centred.inputs[1], "ReduceMean")
    if variance is None or mean is None or mean.inputs[0] != centred.inputs[0]:
        return None
    axes = look.axes(mean)
    kept = mean.attrs.get("keepdims", 1) and variance.attrs.get("keepdims", 1)
    if axes is None or axes != look.axes(variance) or not kept or not _is_square(look, variance, centred):
        return None
    attrs = {"axes": axes, "epsilon": parts[1]}
    return Node("LayerNormalization", node.name, (centred.inputs[0],), node.outputs, attrs)


def _is_square(look: Look, variance: Node, centred: Node) -> bool:
    square = look.made_by(variance.inputs[0], "Pow", "Mul")
    if square is None:
        return False
    bases = square.inputs if square.op == "Mul" else square.inputs[:1]
    if square.op == "Pow" and look.scalar(square.inputs[1]) != 2.0:
        return False
    makers = [look.made_by(name, "Sub") for name in bases]
    return all(maker is not None and maker.inputs == centred.inputs for maker in makers)


def _group_norm(look: Look, node: Node, graph: Graph, consts: dict[str, np.ndarray]) -> Node | None:
    norm = look.made_by(node.inputs[0], "InstanceNormalization") if node.op == "Reshape" else None
    before = look.made_by(norm.inputs[0], "Reshape") if norm else None
    if norm is None or before is None or before.inputs[0] in consts:
        return None
    scale, shift = consts.get(norm.inputs[1]), consts.get(norm.inputs[2])
    shape, grouped = graph.shapes[before.inputs[0]], graph.shapes[norm.inputs[0]]
    plain = scale is not None and shift is not None and np.all(scale == 1) and np.all(shift == 0)
    if not plain or graph.shapes[node.outputs[0]] != shape or len(grouped) < 3 or len(shape) < 2:
        return None
    if grouped[0] != shape[0] or shape[1] % grouped[1]:
        return None
    channels, name = shape[1], node.outputs[0]
    consts[f"{name}/scale"] = np.ones(channels, np.float32)
    consts[f"{name}/shift"] = np.zeros(channels, np.float32)
    inputs = (before.inputs[0], f"{name}/scale", f"{name}/shift")
    attrs = {"num_groups": grouped[1], "epsilon": norm.attrs.get("epsilon", 1e-5)}
    return Node("GroupNormalization", node.name, inputs, node.outputs, attrs)


def _absorb(graph: Graph, op: str, place: int) -> Graph:
    look = Look(graph)
    consts = dict(graph.consts)

    def join(node: Node) -> Node:
        if node.op != op:
            return node
        for tensor, constant in (node.inputs[:2], node.inputs[1::-1]):
            norm = look.made_by(tensor, "LayerNormalization", "GroupNormalization")
            if norm is None or constant not in consts or not _lacks(norm, place, consts):
                continue
            vector = _along(norm, consts[constant], graph.shapes[tensor])
            if vector is None:
                continue
            name = f"{node.outputs[0]}/norm{place}"
            consts[name] = vector
            inputs = [*norm.inputs, *[""] * (place + 1 - len(norm.inputs))]
            inputs[place] = name
            return replace(norm, inputs=tuple(inputs), outputs=node.outputs)
        return node

    return replace(graph, nodes=tuple(join(node) for node in graph.nodes), consts=consts)


def _lacks(norm: Node, place: int, consts: Mapping[str, np.ndarray]) -> bool:
    """Return whether a normalisation has no scale, or no shift (whose scale then may be there)."""
    name = norm.inputs[place] if place < len(norm.inputs) else ""
    has_shift = len(norm.inputs) > 2 and bool(norm.inputs[2]) and bool(np.any(consts[norm.inputs[2]]))
    if place == 1 and has_shift:
        return False
    return not name or bool(np.all(consts[name] == (1 if place == 1 else 0)))


def _along(norm: Node, constant: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a constant in the form of a normalisation's weight, or None where it varies otherwise."""
    rank = len(shape)
    if constant.ndim > rank:
        return None
    full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    first = int(norm.attrs.get("axis", -1)) % rank
    over = norm.attrs.get("axes", list(range(first, rank))) if norm.op.startswith("Layer") else [1]
    if any(extent > 1 for axis, extent in enumerate(full.shape) if axis not in over):
        return None
    extents = tuple(shape[axis] for axis in over)
    return np.broadcast_to(full.reshape([full.shape[axis] for axis in over]), extents)
