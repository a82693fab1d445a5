"""What each operator does to tensors of many axes, said of the same numbers with four.

An operator that looks at one axis sees (1, all before it, it, all behind it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from boardfit.converters.targets.onnx_axes_permute import Shape, steps_of
from boardfit.converters.targets.onnx_axes_writer import AXES, Writer, few

_KEEP_NUMBERS = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_ONE_BY_ONE = (
    *("Abs", "Cast", "Ceil", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Sqrt"),
    "Tanh",
)
_OF_TWO = ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub")
_REDUCE = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
_AXES_OF_SOFTMAX = 13
"""Opset since which Softmax looks at one axis."""
_INPUTS_OF_SLICE = 10
"""Opset since which a Slice's bounds are inputs."""
_CUT = ("Gather", "Slice", "Split")


def write(writer: Writer, node: Any) -> None:
    """Write a node as it is, or where it touches a tensor of many axes, by its rule.

    Raises:
        ExportError: There is no rule, or it does not hold.
    """
    touched = [writer.shapes.get(name, ()) for name in (*node.input, *node.output)]
    if node.op_type == "Constant" or all(len(shape) <= AXES for shape in touched):
        writer.nodes.append(node)
        return
    rule = _RULES.get(node.op_type)
    if rule is None or any(name not in writer.shapes for name in (*node.input, *node.output) if name):
        raise writer.refusal(node)
    if node.op_type in _CUT and (writer.opset < _INPUTS_OF_SLICE or not all(node.output)):
        raise writer.refusal(node)
    rule(writer, node)


def _keeps_numbers(writer: Writer, node: Any) -> None:
    writer.renamed(node.input[0], node.output[0])


def _transposes(writer: Writer, node: Any) -> None:
    shape = writer.shapes[node.input[0]]
    perm = _attribute(node, "perm", list(range(len(shape)))[::-1])
    writer.renamed(writer.permuted(node.input[0], steps_of(perm, shape)), node.output[0])


def _one_by_one(writer: Writer, node: Any) -> None:
    shape = few(writer.shapes[node.input[0]])
    writer.emit(node, [writer.view(node.input[0], shape), *node.input[1:]], [shape])


def _of_two(writer: Writer, node: Any) -> None:
    """Neighbouring axes along which both operands are spread alike are taken for one."""
    shape = writer.shapes[node.output[0]]
    if len(node.input) != 2:
        raise writer.refusal(node)
    names = list(node.input)
    both = [(1,) * (len(shape) - len(given)) + given for given in map(writer.shapes.__getitem__, names)]
    kinds = [(one == extent, other == extent) for one, other, extent in zip(*both, shape, strict=True)]
    views = [_merged(given, shape, kinds) for given in both]
    if len(views[0]) > AXES:
        names = [_spread(writer, name, shape) for name in names]
        both = [shape if name in writer.constants else given for name, given in zip(names, both, strict=True)]
    if all(given == shape or prod(given) == 1 for given in both):
        views = [few(shape) if given == shape else (1,) * AXES for given in both]
    if len(views[0]) > AXES:
        raise writer.refusal(node)
    made = tuple(map(max, *views))
    writer.emit(node, [writer.view(*item) for item in zip(names, views, strict=True)], [made])


def _spread(writer: Writer, name: str, shape: Shape) -> str:
    """Return a constant that has a shape without being broadcast; what is computed stays."""
    if name not in writer.constants:
        return name
    # One that was reshaped has its shape of four by now.
    value = writer.constants[name].reshape(writer.shapes[name])
    return writer.constant(np.broadcast_to(value, shape).copy())


def _merged(given: Shape, shape: Shape, kinds: Sequence[Any]) -> Shape:
    """Return a shape with neighbouring axes of one kind taken for one, behind a batch of one.

    Args:
        given: What is merged.
        shape: Of the largest operand: axes that are one there are left out.
        kinds: Of each axis.
    """
    axes = [axis for axis in range(len(shape)) if shape[axis] != 1]
    runs = groupby(axes, key=kinds.__getitem__)
    return (1, *(prod(given[axis] for axis in run) for _, run in runs))


def _multiplies(writer: Writer, node: Any) -> None:
    """Matrices stand in the last two axes; what is before is one axis, alike in both or absent in one."""
    both = [writer.shapes[name] for name in node.input]
    counts = [prod(shape[:-2]) for shape in both]
    if min(map(len, both)) < 2 or (both[0][:-2] != both[1][:-2] and min(counts) > 1):
        raise writer.refusal(node)
    views = [
        shape if len(shape) == 2 else (1, number, *shape[-2:])
        for number, shape in zip(counts, both, strict=True)
    ]
    inputs = [writer.view(*item) for item in zip(node.input, views, strict=True)]
    writer.emit(node, inputs, [(1, max(counts), both[0][-2], both[1][-1])])


def _softmax(writer: Writer, node: Any) -> None:
    if writer.opset < _AXES_OF_SOFTMAX:
        raise writer.refusal(node)
    made, place = _around(writer.shapes[node.input[0]], _attribute(node, "axis", -1))
    writer.emit(node, [writer.view(node.input[0], made)], [made], axis=place)


def _concat(writer: Writer, node: Any) -> None:
    axis = _attribute(node, "axis", 0)
    views = [_around(writer.shapes[name], axis) for name in node.input]
    made, place = _around(writer.shapes[node.output[0]], axis)
    inputs = [writer.view(name, shape) for name, (shape, _) in zip(node.input, views, strict=True)]
    writer.emit(node, inputs, [made], axis=place)


def _split(writer: Writer, node: Any) -> None:
    """Each part is a slice: pnnx knows no Split into parts whose extents stand in a tensor."""
    axis = _attribute(node, "axis", 0)
    first = 0
    for output in node.output:
        extent = writer.shapes[output][axis]
        _cut(writer, node.input[0], axis, range(first, first + extent), output)
        first += extent


def _slice(writer: Writer, node: Any) -> None:
    given, made = (writer.shapes[name] for name in (node.input[0], node.output[0]))
    constants = [writer.constants.get(name) for name in node.input[1:]]
    cut = [axis for axis in range(len(given)) if given[axis] != made[axis]]
    if any(item is None for item in constants) or len(cut) > 1:
        raise writer.refusal(node)
    starts, _, *others = ([int(number) for number in item] for item in constants if item is not None)
    axes = [axis % len(given) for axis in (others[0] if others else range(len(starts)))]
    if any(step != 1 for step in (others[1] if len(others) > 1 else ())):
        raise writer.refusal(node)
    if not cut:
        writer.renamed(node.input[0], node.output[0])
        return
    (axis,) = cut
    first = starts[axes.index(axis)]
    first = max(0, first + given[axis] if first < 0 else first)
    _cut(writer, node.input[0], axis, range(first, first + made[axis]), node.output[0])


def _gather(writer: Writer, node: Any) -> None:
    """One index is a slice of one."""
    axis, index = _attribute(node, "axis", 0), writer.constants.get(node.input[1])
    if index is None or index.size != 1:
        raise writer.refusal(node)
    first = int(index.reshape(-1)[0]) % writer.shapes[node.input[0]][axis]
    _cut(writer, node.input[0], axis, range(first, first + 1), node.output[0])


def _cut(writer: Writer, name: str, axis: int, kept: range, output: str) -> None:
    """Write a part of a tensor along one axis."""
    from onnx import helper

    shape, place = _around(writer.shapes[name], axis)
    bounds = [writer.constant(np.array([number], np.int64)) for number in (kept.start, kept.stop, place)]
    node = helper.make_node("Slice", [name, *bounds], [output], name=f"{output}/slice")
    made = (*shape[:place], len(kept), *shape[place + 1 :])
    writer.emit(node, [writer.view(name, shape), *bounds], [made])


def _reduces(writer: Writer, node: Any) -> None:
    """Neighbouring axes that go together are taken for one."""
    shape = writer.shapes[node.input[0]]
    given = _attribute(node, "axes", None)
    if given is None and len(node.input) > 1:
        given = writer.constants.get(node.input[1])
    if given is None or not len(given):
        raise writer.refusal(node)
    gone = {int(axis) % len(shape) for axis in given}
    kinds = [axis in gone for axis in range(len(shape))]
    view = _merged(shape, shape, kinds)
    made = _merged(tuple(1 if axis in gone else shape[axis] for axis in range(len(shape))), shape, kinds)
    axes = [axis for axis in range(len(view)) if view[axis] != made[axis]]
    if len(view) > AXES or not axes:
        raise writer.refusal(node)
    inputs = [writer.view(node.input[0], view)]
    if len(node.input) > 1:
        inputs.append(writer.constant(np.array(axes, np.int64)))
        writer.emit(node, inputs, [made], keepdims=1)
    else:
        writer.emit(node, inputs, [made], keepdims=1, axes=axes)


def _around(shape: Shape, axis: int) -> tuple[Shape, int]:
    """Return a shape of four axes in which one axis stands alone, and where it stands."""
    axis %= len(shape)
    if axis >= len(shape) - 2 and len(shape) >= AXES:
        return (1, prod(shape[:-2]), *shape[-2:]), axis - len(shape) + AXES
    return (1, prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])), 2


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


_RULES: dict[str, Callable[[Writer, Any], None]] = {
    **dict.fromkeys(_KEEP_NUMBERS, _keeps_numbers),
    **dict.fromkeys(_ONE_BY_ONE, _one_by_one),
    **dict.fromkeys(_OF_TWO, _of_two),
    **dict.fromkeys(_REDUCE, _reduces),
    "Concat": _concat,
    "Gather": _gather,
    "LogSoftmax": _softmax,
    "MatMul": _multiplies,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Transpose": _transposes,
}
