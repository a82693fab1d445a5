"""Handlers of matrix products: Gemm, MatMul, and Einsum where it is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_layout import align, reshaped, with_batch, with_rank
from boardfit.converters.ingest.onnx_records import HIDDEN, Build, Step, Value, make_value


def gemm(step: Step, build: Build) -> Value:
    """Gemm with constant weights: Dense."""
    weight = step.const(1)
    if weight is None:
        raise step.refuse("its weight is missing")
    if step.attr("transA", 0):
        step = replace(step, inputs=(_turned(step.data()), *step.inputs[1:]))
    kernel = (weight.T if step.attr("transB", 0) else weight) * np.float32(step.attr("alpha", 1.0))
    constant = step.const(2)
    bias = None
    if constant is not None:
        scaled = constant * np.float32(step.attr("beta", 1.0))
        if scaled.size not in (1, kernel.shape[1]) or (scaled.ndim > 1 and scaled.shape[0] != 1):
            raise step.refuse(f"its bias has the shape {constant.shape}: expected one number per output")
        bias = np.broadcast_to(scaled.reshape(-1), (kernel.shape[1],))
    return _dense(step, build, kernel, bias)


def matmul(step: Step, build: Build) -> Value:
    """MatMul: Dense for a constant matrix on its right (and the bias that fusing found), else a product."""
    left, right = step.inputs[0], step.inputs[1]
    assert left is not None and right is not None
    if not left.is_const and right.is_const and right.rank == 2:
        kernel = step.const(1)
        assert kernel is not None
        return _dense(step, build, kernel, step.const(2))
    if min(left.rank, right.rank) < 2:
        return _with_vector(step, build, left, right)
    return _product(step, build, left, right)


def einsum(step: Step, build: Build) -> Value:
    """Einsum of two tensors: one index summed over, at most one that is each side's alone."""
    from keras import ops

    text = str(step.attr("equation", "")).replace(" ", "")
    terms, arrow, result = text.partition("->")
    names = terms.split(",")
    if not arrow or len(names) != 2 or "." in text or any(len(set(n)) != len(n) for n in (*names, result)):
        raise step.refuse(f"its equation {text!r} is no product of two tensors")
    values = [step.inputs[index] for index in (0, 1)]
    computed = next(value for value in values if value is not None and not value.is_const)
    letters = [
        names[place][value.axes[0]]
        for place, value in enumerate(values)
        if value is not None and not value.is_const and value.axes[0] != HIDDEN
    ]
    if len(set(letters)) > 1 or (letters and letters[0] not in result):
        raise step.refuse(f"its equation {text!r} mixes images of the batch")
    batch = letters[0] if letters else "Z"
    tensors, forms = [], []
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        assert value is not None
        if value.is_const:
            constant = step.const(index)
            assert constant is not None
            tensors.append(build.constant(constant, computed.tensor))
            # A weight has one row for the whole batch, which no letter names.
            tensors[-1] = ops.squeeze(tensors[-1], axis=0)
            forms.append(name)
        else:
            tensors.append(value.tensor)
            forms.append("".join(batch if axis == HIDDEN else name[axis] for axis in value.axes))
    order = [letter for letter in result if letter != batch]
    output = ops.einsum(f"{forms[0]},{forms[1]}->{batch}{''.join(order)}", *tensors)
    axes = (result.index(batch) if batch in result else HIDDEN, *(result.index(item) for item in order))
    return make_value(step, output, axes)


def _turned(value: Value) -> Value:
    """Return a matrix transposed, which moves no number."""
    axes = tuple(axis if axis == HIDDEN else 1 - axis for axis in value.axes)
    shapes = tuple((*shape[::-1],) for shape in value.shapes)
    return replace(value, shapes=shapes, axes=axes, flat=None, whole=None)


def _with_vector(step: Step, build: Build, left: Value, right: Value) -> Value:
    """A vector is a matrix of one row on the left, of one column on the right, whose axis then goes."""
    matrices = [
        _as_matrix(step, build, value, column=bool(place)) if value.rank == 1 else value
        for place, value in enumerate((left, right))
    ]
    pairs = zip(matrices[0].shapes, matrices[1].shapes, strict=True)
    shapes = tuple((*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]) for a, b in pairs)
    product = replace(step, inputs=tuple(matrices), shapes=shapes)
    return reshaped(matmul(product, build), step, build)


def _as_matrix(step: Step, build: Build, value: Value, *, column: bool) -> Value:
    shapes = tuple((*shape, 1) if column else (1, *shape) for shape in value.shapes)
    if value.is_const:
        arrays = zip(value.consts, shapes, strict=True)
        return Value(shapes=shapes, consts=tuple(array.reshape(shape) for array, shape in arrays))
    return reshaped(value, replace(step, shapes=shapes), build)


def _dense(step: Step, build: Build, kernel: np.ndarray, bias: np.ndarray | None) -> Value:
    data = step.data()
    last = data.rank - 1
    if data.axes[0] == last:
        data = with_batch(data, HIDDEN, build)
    axes = (*(axis for axis in data.axes if axis != last), last)
    extents = {shape[-1] for shape in data.shapes}
    if extents != {kernel.shape[0]}:
        raise step.refuse(
            f"its input has {sorted(extents)} columns: expected {kernel.shape[0]}, as its weight has rows"
        )
    tensor = align(data, axes, build)
    if tensor.shape[-1] is None:
        build.bind(step)
    output = build.layer(
        "Dense",
        "dense",
        tensor,
        weights=[kernel] if bias is None else [kernel, bias],
        units=kernel.shape[1],
        use_bias=bias is not None,
        kernel_initializer="zeros",
    )
    return make_value(step, output, axes)


def _product(step: Step, build: Build, left: Value, right: Value) -> Value:
    from keras import ops

    rank = max(left.rank, right.rank)
    sides = [value if value.is_const else with_rank(value, rank, build) for value in (left, right)]
    batch = _common_batch(sides, rank)
    sides = [value if value.is_const else with_batch(value, batch, build) for value in sides]
    computed = max(
        (value for value in sides if not value.is_const), key=lambda value: np.prod(value.shapes[0])
    )
    lead = [axis for axis in computed.axes[1:] if axis < rank - 2]
    axes = (batch, *lead, rank - 2, rank - 1)
    tensors = [
        _weight(step, build, index, axes, computed.tensor) if value.is_const else align(value, axes, build)
        for index, value in enumerate(sides)
    ]
    return make_value(step, ops.matmul(*tensors), axes)


def _common_batch(sides: list[Value], rank: int) -> int:
    """Return the axis of the batch that both sides can have: one of the matrices' own axes never is."""
    computed = [value for value in sides if not value.is_const]
    for value in computed:
        axis = value.axes[0]
        others = [other for other in computed if other is not value]
        if axis < rank - 2 and all(
            other.axes[0] == axis or all(shape[axis] == 1 for shape in other.shapes) for other in others
        ):
            return axis
    return HIDDEN


def _weight(step: Step, build: Build, index: int, axes: tuple[int, ...], like: Any) -> Any:
    constant = step.const(index)
    assert constant is not None
    full = constant.reshape((1,) * (len(axes) - (axes[0] == HIDDEN) - constant.ndim) + constant.shape)
    if axes[0] == HIDDEN:
        return build.constant(full.transpose(axes[1:]), like)
    if full.shape[axes[0]] != 1:
        raise step.refuse("its constant has a batch")
    return build.constant(full.transpose(axes)[0], like)
