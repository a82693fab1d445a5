"""Handlers of the activations, and of the functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_arithmetic import placed
from boardfit.converters.ingest.onnx_layout import align
from boardfit.converters.ingest.onnx_records import NHWC_OF_NCHW, Build, Step, Value, make_value

Function = Callable[[Step, Build], Value]


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
    """PRelu with one slope, or one per channel, or per element."""
    data, slope = step.data(), step.const(1)
    if slope is None or slope.ndim > data.rank:
        raise step.refuse("expected a constant slope with no more axes than the input")
    axes = NHWC_OF_NCHW if data.rank == 4 and data.axes[0] == 0 else data.axes
    weight = placed(slope, data.rank, axes)[0]
    tensor = align(data, axes, build)
    shared = [place for place in range(1, len(axes)) if weight.shape[place - 1] == 1]
    if weight.size == 1:
        shared = list(range(1, len(axes) - 1))
        weight = np.broadcast_to(weight, (*weight.shape[:-1], data.shapes[0][axes[-1]]))
    if any(tensor.shape[place] is None for place in range(1, len(axes)) if place not in shared):
        build.bind(step)
    output = build.layer("PReLU", "prelu", tensor, weights=[weight], shared_axes=shared or None)
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
    """Gelu by the error function, or by the hyperbolic tangent."""
    if step.attr("approximate", "none") == "none":
        return _unary(step, build, "Activation", "gelu", activation="gelu")
    from keras import ops

    data = step.data()
    return make_value(step, ops.gelu(data.tensor, approximate=True), data.axes)


def mish(step: Step, build: Build) -> Value:
    """Mish, or the fused ``x * tanh(softplus(x))``."""
    return _unary(step, build, "Activation", "mish", activation="mish")


def softplus(step: Step, build: Build) -> Value:
    """Softplus."""
    return _unary(step, build, "Activation", "softplus", activation="softplus", nonnegative=True)


def softsign(step: Step, build: Build) -> Value:
    """Softsign."""
    return _unary(step, build, "Activation", "softsign", activation="softsign")


def selu(step: Step, build: Build) -> Value:
    """Selu with the numbers of its paper, which are Keras' own."""
    alpha, gamma = float(step.attr("alpha", 1.6732632)), float(step.attr("gamma", 1.0507010))
    if not (math.isclose(alpha, 1.6732632, rel_tol=1e-5) and math.isclose(gamma, 1.0507010, rel_tol=1e-5)):
        raise step.refuse(f"its alpha {alpha} and gamma {gamma} are not those of the paper")
    return _unary(step, build, "Activation", "selu", activation="selu")


def celu(step: Step, build: Build) -> Value:  # noqa: ARG001 - every handler has this form
    """Celu."""
    from keras import ops

    data = step.data()
    return make_value(step, ops.celu(data.tensor, alpha=float(step.attr("alpha", 1.0))), data.axes)


def thresholded_relu(step: Step, build: Build) -> Value:  # noqa: ARG001 - every handler has this form
    """ThresholdedRelu."""
    from keras import ops

    data, alpha = step.data(), float(step.attr("alpha", 1.0))
    output = ops.where(ops.greater(data.tensor, alpha), data.tensor, 0.0)
    return make_value(step, output, data.axes, nonnegative=alpha >= 0.0)


def shrink(step: Step, build: Build) -> Value:
    """Shrink: two ReLUs where it is the soft one, else a choice."""
    from keras import ops

    data = step.data()
    limit, bias = float(step.attr("lambd", 0.5)), float(step.attr("bias", 0.0))
    if limit < 0.0:
        raise step.refuse(f"its lambd is {limit}: expected at least 0")
    if limit == bias:
        above = build.layer("Rescaling", "scale", data.tensor, scale=1.0, offset=-limit)
        below = build.layer("Rescaling", "scale", data.tensor, scale=-1.0, offset=-limit)
        output = ops.subtract(ops.relu(above), ops.relu(below))
        return make_value(step, output, data.axes)
    moved = ops.subtract(data.tensor, ops.multiply(ops.sign(data.tensor), bias))
    output = ops.where(ops.greater(ops.absolute(data.tensor), limit), moved, 0.0)
    return make_value(step, output, data.axes)


def log_softmax(step: Step, build: Build) -> Value:  # noqa: ARG001 - every handler has this form
    """LogSoftmax, over the axes of Softmax."""
    from keras import ops

    data, places = _softmax_places(step)
    if len(places) == 1:
        return make_value(step, ops.log_softmax(data.tensor, axis=places[0]), data.axes)
    total = ops.logsumexp(data.tensor, axis=places, keepdims=True)
    return make_value(step, ops.subtract(data.tensor, total), data.axes)


def function_of_one(name: str, *, nonnegative: bool = False) -> Function:
    """Return the handler of an operator that is ``keras.ops.name`` of each number."""

    def handler(step: Step, build: Build) -> Value:  # noqa: ARG001 - every handler has this form
        from keras import ops

        data = step.data()
        return make_value(step, getattr(ops, name)(data.tensor), data.axes, nonnegative=nonnegative)

    return handler


def softmax(step: Step, build: Build) -> Value:
    """Softmax over one axis; before opset 13 over its axis and all behind it."""
    data, places = _softmax_places(step)
    output = build.layer("Softmax", "softmax", data.tensor, axis=places[0] if len(places) == 1 else places)
    return make_value(step, output, data.axes, nonnegative=True)


def _softmax_places(step: Step) -> tuple[Value, tuple[int, ...]]:
    """Return the input and the axes of its Keras tensor that are compared; the last one is -1."""
    data = step.data()
    axis = int(step.attr("axis", -1 if step.opset >= 13 else 1)) % data.rank
    over = range(axis, data.rank if step.opset < 13 else axis + 1)
    long = [item for item in over if any(shape[item] > 1 for shape in data.shapes)]
    places = sorted(data.axes.index(item) for item in long or [axis])
    if places[0] == 0:
        raise step.refuse("it compares images of the batch")
    return data, tuple(-1 if place == len(data.axes) - 1 else place for place in places)


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
