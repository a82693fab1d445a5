"""Handlers of the operators that join two or more tensors element by element, with broadcasting."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_layout import align, with_batch, with_rank
from boardfit.converters.ingest.onnx_records import (
    HIDDEN,
    NHWC_OF_NCHW,
    Build,
    Shape,
    Step,
    Value,
    make_value,
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How Keras does an operator of two tensors: a merging layer, or else an operation."""

    operation: str
    layer: str = ""
    keeps_sign: bool = True


_KINDS = {
    "Add": _Kind("add", "Add"),
    "Sub": _Kind("subtract", "Subtract", keeps_sign=False),
    "Mul": _Kind("multiply", "Multiply"),
    "Div": _Kind("divide"),
    "Pow": _Kind("power"),
    "Max": _Kind("maximum", "Maximum"),
    "Min": _Kind("minimum", "Minimum"),
}


def add(step: Step, build: Build) -> Value:
    """Add of two tensors, or of a tensor and a constant."""
    if _both_computed(step):
        return _merge(step, build)
    data, constant = _with_constant(step)
    return _affine(step, build, data, scale=_number(1), offset=constant)


def sub(step: Step, build: Build) -> Value:
    """Sub of two tensors, or of a tensor and a constant, either way round."""
    if _both_computed(step):
        return _merge(step, build)
    data, constant = _with_constant(step)
    if step.inputs[0] is data:
        return _affine(step, build, data, scale=_number(1), offset=-constant)
    return _affine(step, build, data, scale=_number(-1), offset=constant)


def mul(step: Step, build: Build) -> Value:
    """Mul of two tensors, or of a tensor and a constant."""
    if _both_computed(step):
        return _merge(step, build)
    data, constant = _with_constant(step)
    return _affine(step, build, data, scale=constant, offset=_number(0))


def div(step: Step, build: Build) -> Value:
    """Div of two tensors, or of a tensor and a constant, either way round."""
    from keras import ops

    if _both_computed(step):
        return _merge(step, build)
    data, constant = _with_constant(step)
    if step.inputs[0] is data:
        return _affine(step, build, data, scale=_number(1) / constant, offset=_number(0))
    inverse = replace(data, tensor=ops.reciprocal(data.tensor), nonnegative=False, flat=None, whole=None)
    return _affine(step, build, inverse, scale=constant, offset=_number(0))


def power(step: Step, build: Build) -> Value:
    """Pow, which is a square or a root where its exponent says so."""
    from keras import ops

    exponent = step.inputs[1]
    if exponent is None or not exponent.is_const:
        return _merge(step, build)
    constant = step.const(1)
    assert constant is not None
    data = step.data()
    if constant.size != 1:
        return _with_weight(step, build, data, np.asarray(constant, np.float32))
    number = float(constant.reshape(-1)[0])
    simple = {2.0: ops.square, 0.5: ops.sqrt, -1.0: ops.reciprocal, -0.5: ops.rsqrt}
    if number in simple:
        return make_value(step, simple[number](data.tensor), data.axes, nonnegative=number == 2.0)
    return make_value(step, ops.power(data.tensor, number), data.axes)


def extremum(step: Step, build: Build) -> Value:
    """Max and Min of any number of tensors; one number and a tensor are a clip."""
    from keras import ops

    result, *others = _terms(step)
    for other in others:
        pair = replace(step, inputs=(result, other), shapes=broadcast(result, other))
        if _both_computed(pair):
            result = _merge(pair, build)
            continue
        data, constant = _with_constant(pair)
        if constant.size == 1:
            number = float(constant.reshape(-1)[0])
            bound = ops.maximum if step.op == "Max" else ops.minimum
            positive = number >= 0 and (step.op == "Max" or data.nonnegative)
            data = with_rank(data, constant.ndim, build)
            result = make_value(pair, bound(data.tensor, number), data.axes, nonnegative=positive)
        else:
            result = _with_weight(pair, build, data, constant)
    return result


def total(step: Step, build: Build) -> Value:
    """Sum and Mean of any number of tensors."""
    from keras import ops

    result, *others = _terms(step)
    for other in others:
        pair = replace(step, op="Add", inputs=(result, other), shapes=broadcast(result, other))
        result = add(pair, build)
    if step.op == "Mean":
        mean = ops.multiply(result.tensor, 1.0 / (1 + len(others)))
        result = replace(result, tensor=mean, flat=None, whole=None)
    return result


def modulo(step: Step, build: Build) -> Value:
    """Mod: with the sign of the divisor, or like C's fmod with that of what is divided."""
    from keras import ops

    if _both_computed(step):
        left, right, axes = _aligned(step, build)
    else:
        data, constant = _with_constant(step)
        if step.inputs[0] is not data or constant.size != 1:
            raise step.refuse("expected a tensor, and one number or a tensor that divides it")
        data = with_rank(data, constant.ndim, build)
        left, right, axes = data.tensor, float(constant.reshape(-1)[0]), data.axes
    if step.attr("fmod", 0):
        divisor = abs(right) if isinstance(right, float) else ops.absolute(right)
        output = ops.multiply(ops.sign(left), ops.mod(ops.absolute(left), divisor))
    else:
        # For whole numbers only, as ONNX has it; FLOOR_MOD of floats is not in every format.
        output = ops.subtract(left, ops.multiply(ops.floor(ops.divide(left, right)), right))
    return make_value(step, output, axes)


def placed(constant: np.ndarray, rank: int, axes: tuple[int, ...]) -> np.ndarray:
    """Return a constant in the order of a Keras tensor, its batch axis of one first.

    Args:
        constant: At most ``rank`` axes, in ONNX order.
        rank: ONNX axes of the tensor.
        axes: Of the Keras tensor, see ``Value.axes``.
    """
    full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if axes[0] == HIDDEN:
        return np.asarray(full[None].transpose(0, *(axis + 1 for axis in axes[1:])))
    return np.asarray(full.transpose(axes))


def _terms(step: Step) -> list[Value]:
    """Return the inputs, constants last, so that there is always a tensor to join them to."""
    return sorted((value for value in step.inputs if value is not None), key=lambda value: value.is_const)


def broadcast(left: Value, right: Value) -> tuple[Shape, ...]:
    """Return the shape of two values joined element by element, at each size."""
    return tuple(np.broadcast_shapes(*pair) for pair in zip(left.shapes, right.shapes, strict=True))


def _both_computed(step: Step) -> bool:
    return len(step.inputs) == 2 and all(value is not None and not value.is_const for value in step.inputs)


def _with_constant(step: Step) -> tuple[Value, np.ndarray]:
    computed = next(index for index, value in enumerate(step.inputs[:2]) if value and not value.is_const)
    constant = step.const(1 - computed)
    if constant is None:
        raise step.refuse("it has one input: expected two")
    return step.data(computed), np.asarray(constant, np.float32)


def _merge(step: Step, build: Build) -> Value:
    from keras import ops

    kind = _KINDS[step.op]
    left, right, axes = _aligned(step, build)
    both = all(value is not None and value.nonnegative for value in step.inputs)
    if step.op == "Add" and math.prod(step.data(0).shapes[0]) > math.prod(step.data(1).shapes[0]):
        left, right = right, left  # see _with_weight
    if kind.layer and len(left.shape) == len(right.shape):
        output = build.layer(kind.layer, kind.operation[:3], [left, right])
    else:
        output = getattr(ops, kind.operation)(left, right)
    return make_value(step, output, axes, nonnegative=both and kind.keeps_sign)


def _aligned(step: Step, build: Build) -> tuple[Any, Any, tuple[int, ...]]:
    left, right = step.data(0), step.data(1)
    rank = max(left.rank, right.rank)
    # The larger tensor keeps its order of axes, so that the cheaper one is permuted.
    swapped = (math.prod(right.shapes[0]), right.rank) > (math.prod(left.shapes[0]), left.rank)
    larger, smaller = (right, left) if swapped else (left, right)
    larger, smaller = with_rank(larger, rank, build), with_rank(smaller, rank, build)
    batch = larger.axes[0]
    if smaller.axes[0] != batch:
        clash = batch != HIDDEN and any(shape[batch] != 1 for shape in smaller.shapes)
        if clash:
            larger = with_batch(larger, smaller.axes[0], build)
        smaller = with_batch(smaller, larger.axes[0], build)
    other = align(smaller, larger.axes, build)
    pair = (other, larger.tensor) if swapped else (larger.tensor, other)
    return (*pair, larger.axes)


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _affine(step: Step, build: Build, data: Value, *, scale: np.ndarray, offset: np.ndarray) -> Value:
    """Scale * x + offset: a Rescaling layer where both are one number, or one per channel; else a weight."""
    rank = max(data.rank, scale.ndim, offset.ndim)
    if rank == data.rank:
        axes = data.axes
        if rank == 4 and axes[0] == 0 and any(_channel_axis(c, rank) == 1 for c in (scale, offset)):
            axes = NHWC_OF_NCHW
        both = [placed(constant, rank, axes) for constant in (scale, offset)]
        channels = data.shapes[0][axes[-1]] if rank else 1
        if all(constant.shape[-1] == constant.size and constant.size in (1, channels) for constant in both):
            first, second = (_plain(constant) for constant in both)
            output = build.layer("Rescaling", "scale", align(data, axes, build), scale=first, offset=second)
            positive = data.nonnegative and min(both[0].min(), both[1].min()) >= 0
            return make_value(step, output, axes, nonnegative=bool(positive))
    if offset.size == 1 and float(offset.reshape(-1)[0]) == 0.0:
        return _with_weight(replace(step, op="Mul"), build, data, scale)
    if scale.size == 1:
        factor = float(scale.reshape(-1)[0])
        turned = (
            build.layer("Rescaling", "scale", data.tensor, scale=factor) if factor != 1.0 else data.tensor
        )
        data = replace(data, tensor=turned, flat=None, whole=None, nonnegative=False)
    return _with_weight(replace(step, op="Add"), build, data, offset)


def _with_weight(step: Step, build: Build, data: Value, constant: np.ndarray) -> Value:
    """A tensor, and a constant that is no number and no channel's: a weight of the net, at its element."""
    from keras import ops

    kind = _KINDS[step.op]
    data = with_rank(data, constant.ndim, build)
    full = constant.reshape((1,) * (data.rank - constant.ndim) + constant.shape)
    if data.axes[0] != HIDDEN and full.shape[data.axes[0]] > 1:
        data = with_batch(data, HIDDEN, build)
    array = placed(constant, data.rank, data.axes)[0]
    if any(extent > 1 and data.tensor.shape[1 + place] is None for place, extent in enumerate(array.shape)):
        build.bind(step)
    weight = build.constant(array, data.tensor)
    positive = data.nonnegative and float(constant.min()) >= 0 and kind.keeps_sign
    # Keras 3.15 on TensorFlow takes a second summand that is long along one axis for a bias of axis 1 or of
    # the last one, whichever axis it lies on: the weight comes first.
    pair = (weight, data.tensor) if step.op == "Add" else (data.tensor, weight)
    return make_value(step, getattr(ops, kind.operation)(*pair), data.axes, nonnegative=positive)


def _channel_axis(constant: np.ndarray, rank: int) -> int | None:
    """Return the one axis of the ONNX tensor along which a constant varies, or None."""
    long = [axis + rank - constant.ndim for axis, extent in enumerate(constant.shape) if extent > 1]
    return long[0] if len(long) == 1 else None


def _plain(constant: np.ndarray) -> float | list[float]:
    numbers = [float(number) for number in constant.reshape(-1)]
    return numbers[0] if len(numbers) == 1 else numbers
