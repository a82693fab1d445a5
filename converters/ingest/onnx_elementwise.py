"""Handlers of the operators that work element by element: activations and arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_records import NHWC_OF_NCHW, Build, Step, Value, align, make_value


def relu(step: Step, build: Build) -> Value:
    """Relu."""
    return _unary(step, build, "ReLU", "relu", nonnegative=True)


def clip(step: Step, build: Build) -> Value:
    """Clip: ReLU with a ceiling where it starts at zero."""
    data = step.data()
    low, high = _bound(step, 1, "min", -math.inf), _bound(step, 2, "max", math.inf)
    if low == 0.0:
        ceiling = None if high > 3e38 else high
        return _unary(step, build, "ReLU", "relu", nonnegative=True, max_value=ceiling)
    from keras import ops

    limit = float(np.finfo(np.float32).max)
    output = ops.clip(data.tensor, max(low, -limit), min(high, limit))
    return make_value(step, output, data.axes, nonnegative=low > 0)


def leaky_relu(step: Step, build: Build) -> Value:
    """LeakyRelu."""
    return _unary(step, build, "LeakyReLU", "leaky", negative_slope=float(step.attr("alpha", 0.01)))


def elu(step: Step, build: Build) -> Value:
    """Elu."""
    return _unary(step, build, "ELU", "elu", alpha=float(step.attr("alpha", 1.0)))


def prelu(step: Step, build: Build) -> Value:
    """PRelu with one slope, or one per channel."""
    data, slope = step.data(), step.const(1)
    if slope is None or data.rank not in (2, 4):
        raise step.refuse("expected a constant slope and an input of 2 or 4 axes")
    axes = NHWC_OF_NCHW if data.rank == 4 else (0, 1)
    channels = data.shapes[0][1]
    placed = _place(step, slope, data.rank, axes)
    if placed.size not in (1, channels) or placed.shape[-1] != placed.size:
        raise step.refuse(f"its slope has the shape {slope.shape}: expected one number, or one per channel")
    weight = np.broadcast_to(placed.reshape(-1), (channels,)).reshape((1,) * (data.rank - 2) + (channels,))
    shared = [1, 2] if data.rank == 4 else None
    tensor = align(data, axes, build)
    output = build.layer("PReLU", "prelu", tensor, weights=[weight], shared_axes=shared)
    return make_value(step, output, axes)


def sigmoid(step: Step, build: Build) -> Value:
    """Sigmoid."""
    return _unary(step, build, "Activation", "sigmoid", activation="sigmoid", nonnegative=True)


def tanh(step: Step, build: Build) -> Value:
    """Tanh."""
    return _unary(step, build, "Activation", "tanh", activation="tanh")


def silu(step: Step, build: Build) -> Value:
    """The fused ``x * sigmoid(x)``."""
    return _unary(step, build, "Activation", "silu", activation="silu")


def hard_swish(step: Step, build: Build) -> Value:
    """HardSwish, or the fused ``x * hard_sigmoid(x)``."""
    return _unary(step, build, "Activation", "hard_swish", activation="hard_silu")


def hard_sigmoid(step: Step, build: Build) -> Value:
    """HardSigmoid: Keras' own where the slope is 1/6, else Rescaling and a ReLU that ends at 1."""
    slope, offset = float(step.attr("alpha", 0.2)), float(step.attr("beta", 0.5))
    if math.isclose(slope, 1 / 6, rel_tol=1e-4) and offset == 0.5:
        return _unary(step, build, "Activation", "hard_sigmoid", activation="hard_sigmoid", nonnegative=True)
    data = step.data()
    line = build.layer("Rescaling", "scale", data.tensor, scale=slope, offset=offset)
    output = build.layer("ReLU", "relu", line, max_value=1.0)
    return make_value(step, output, data.axes, nonnegative=True)


def gelu(step: Step, build: Build) -> Value:
    """Gelu by the error function."""
    if step.attr("approximate", "none") != "none":
        raise step.refuse("its tanh approximation is no Keras layer: export the net with the exact GELU")
    return _unary(step, build, "Activation", "gelu", activation="gelu")


def softmax(step: Step, build: Build) -> Value:
    """Softmax over the last axis of a matrix, or one axis from opset 13 on."""
    data = step.data()
    axis = int(step.attr("axis", -1 if step.opset >= 13 else 1)) % data.rank
    if step.opset < 13 and axis != data.rank - 1:
        raise step.refuse("before opset 13 it spans several axes: export the net with opset_version=17")
    place = data.axes.index(axis)
    output = build.layer("Softmax", "softmax", data.tensor, axis=-1 if place == data.rank - 1 else place)
    return make_value(step, output, data.axes, nonnegative=True)


def add(step: Step, build: Build) -> Value:
    """Add of two tensors, or of a tensor and a constant."""
    if _both_computed(step):
        return _merge(step, build, "Add", "add")
    data, constant = _with_constant(step)
    return _affine(step, build, data, scale=_number(1), offset=constant)


def sub(step: Step, build: Build) -> Value:
    """Sub of two tensors, or of a tensor and a constant, either way round."""
    if _both_computed(step):
        return _merge(step, build, "Subtract", "sub")
    data, constant = _with_constant(step)
    if step.inputs[0] is data:
        return _affine(step, build, data, scale=_number(1), offset=-constant)
    return _affine(step, build, data, scale=_number(-1), offset=constant)


def mul(step: Step, build: Build) -> Value:
    """Mul of two tensors, or of a tensor and a constant."""
    if _both_computed(step):
        return _merge(step, build, "Multiply", "mul")
    data, constant = _with_constant(step)
    return _affine(step, build, data, scale=constant, offset=_number(0))


def div(step: Step, build: Build) -> Value:
    """Div of two tensors, or of a tensor and a constant, either way round."""
    from keras import ops

    if _both_computed(step):
        left, right, axes = _aligned(step, build)
        return make_value(step, ops.divide(left, right), axes)
    data, constant = _with_constant(step)
    if step.inputs[0] is data:
        return _affine(step, build, data, scale=_number(1) / constant, offset=_number(0))
    inverse = Value(shapes=data.shapes, tensor=ops.reciprocal(data.tensor), axes=data.axes)
    return _affine(step, build, inverse, scale=constant, offset=_number(0))


def _unary(
    step: Step, build: Build, kind: str, stem: str, *, nonnegative: bool = False, **config: Any
) -> Value:
    data = step.data()
    output = build.layer(kind, stem, data.tensor, **config)
    return make_value(step, output, data.axes, nonnegative=nonnegative)


def _bound(step: Step, index: int, name: str, default: float) -> float:
    const = step.const(index)
    return (
        float(const.reshape(-1)[0]) if const is not None and const.size else float(step.attr(name, default))
    )


def _both_computed(step: Step) -> bool:
    return len(step.inputs) == 2 and all(value is not None and not value.is_const for value in step.inputs)


def _with_constant(step: Step) -> tuple[Value, np.ndarray]:
    computed = next(index for index, value in enumerate(step.inputs[:2]) if value and not value.is_const)
    constant = step.const(1 - computed)
    if constant is None:
        raise step.refuse("it has one input: expected two")
    return step.data(computed), np.asarray(constant, np.float32)


def _merge(step: Step, build: Build, kind: str, stem: str) -> Value:
    left, right, axes = _aligned(step, build)
    both = all(value is not None and value.nonnegative for value in step.inputs)
    return make_value(
        step, build.layer(kind, stem, [left, right]), axes, nonnegative=both and kind != "Subtract"
    )


def _aligned(step: Step, build: Build) -> tuple[Any, Any, tuple[int, ...]]:
    left, right = step.data(0), step.data(1)
    if left.rank != right.rank:
        raise step.refuse(f"its inputs have {left.rank} and {right.rank} axes: expected as many")
    # The larger tensor keeps its order of axes, so that the cheaper one is permuted.
    larger = left if math.prod(left.shapes[0]) >= math.prod(right.shapes[0]) else right
    return align(left, larger.axes, build), align(right, larger.axes, build), larger.axes


def _number(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


def _affine(step: Step, build: Build, data: Value, *, scale: np.ndarray, offset: np.ndarray) -> Value:
    """Scale * x + offset, one number each, or one per channel: a Rescaling layer."""
    if any(constant.ndim > data.rank for constant in (scale, offset)):
        raise step.refuse("its constant has more axes than the tensor")
    axes = data.axes
    if data.rank == 4 and any(_channel_axis(c, data.rank) == 1 for c in (scale, offset)):
        axes = NHWC_OF_NCHW
    placed = [_place(step, constant, data.rank, axes) for constant in (scale, offset)]
    if any(constant.shape[-1] != constant.size for constant in placed):
        raise step.refuse("its constant is neither one number nor one per channel")
    channels = data.shapes[0][axes[-1]]
    if any(constant.size not in (1, channels) for constant in placed):
        raise step.refuse("its constant makes the tensor larger")
    first, second = (_plain(constant) for constant in placed)
    output = build.layer("Rescaling", "scale", align(data, axes, build), scale=first, offset=second)
    positive = data.nonnegative and min(placed[0].min(), placed[1].min()) >= 0
    return make_value(step, output, axes, nonnegative=bool(positive))


def _channel_axis(constant: np.ndarray, rank: int) -> int | None:
    """Return the one axis of the ONNX tensor along which a constant varies, or None."""
    long = [axis + rank - constant.ndim for axis, extent in enumerate(constant.shape) if extent > 1]
    return long[0] if len(long) == 1 else None


def _place(step: Step, constant: np.ndarray, rank: int, axes: tuple[int, ...]) -> np.ndarray:
    if constant.ndim > rank:
        raise step.refuse(f"its constant has {constant.ndim} axes: expected at most {rank}")
    return np.asarray(constant.reshape((1,) * (rank - constant.ndim) + constant.shape).transpose(axes))


def _plain(constant: np.ndarray) -> float | list[float]:
    numbers = [float(number) for number in constant.reshape(-1)]
    return numbers[0] if len(numbers) == 1 else numbers
