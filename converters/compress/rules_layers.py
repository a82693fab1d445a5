"""What layers with weights do to channels, and functions of one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras

from boardfit.converters.compress.channels import CARRIES, READS, SCALES, Blocked, Flow, Step, Track

Rule = Callable[[Flow, Step], None]

_FUNCTIONS = frozenset((
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "sigmoid", "hard_sigmoid",
    "hard_silu", "hard_tanh", "tanh", "softplus", "softsign", "exponential", "mish", "log_sigmoid",
    "squareplus", "tanh_shrink", "soft_shrink", "hard_shrink", "threshold",
))  # fmt: skip
_ONE_BY_ONE = (
    "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise",
    "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity", "Relu", "Relu6", "LeakyRelu",
    "Elu", "Selu", "Celu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu", "HardTanh", "Tanh",
    "Softplus", "Softsign", "Mish", "LogSigmoid", "Exp", "Log", "Sqrt", "Rsqrt", "Square", "Abs", "Absolute",
    "Negative", "Sign", "Floor", "Ceil", "Round", "Reciprocal", "Clip", "Cast", "Erf", "Sin", "Cos",
)  # fmt: skip


def dense(flow: Flow, step: Step) -> None:
    """Dense and convolutions: a kernel of (..., in, out)."""
    layer, x, y = step.operation, step.inputs[0], step.outputs[0]
    if not is_plain(layer):
        raise Blocked(f"{step.label} does not keep its channels last, or is quantized")
    groups = getattr(layer, "groups", 1)
    source = flow.last(x, f"{step.label} reads another axis")
    if groups > 1:
        _grouped(flow, step, source)
        return
    flow.hold(layer, layer.kernel, -2, source, READS, flow.why(x))
    _finish(flow, step, axis=-1, width="units" if isinstance(layer, keras.layers.Dense) else "filters")
    flow.work(layer, layer.kernel, math.prod(y.shape[:-1]))


def _grouped(flow: Flow, step: Step, source: Track | None) -> None:
    """Convolution in groups: all channels of a group, those it reads and those it makes, go together."""
    layer, x, y = step.operation, step.inputs[0], step.outputs[0]
    flow.work(layer, layer.kernel, math.prod(y.shape[:-1]))
    if source is None:
        raise Blocked(flow.why(x) or f"{step.label} reads what is not followed")
    made = flow.write(layer, layer.kernel, -1)
    rows = source.ids.reshape(layer.groups, -1)
    heads = rows[:, 0]
    for members in (*rows.T, *made.reshape(layer.groups, -1).T):
        flow.units.tie(heads, members)
    _bias(flow, layer, made)
    flow.resizes[id(layer)] = lambda kept: {"filters": kept.count(made), "groups": kept.count(heads)}
    _answer(flow, step, Track(source.axis, made))


def depthwise(flow: Flow, step: Step) -> None:
    """Depthwise convolution: a kernel of (h, w, in, multiplier)."""
    layer, x, y = step.operation, step.inputs[0], step.outputs[0]
    source = flow.last(x, f"{step.label} reads another axis")
    if not is_plain(layer) or source is None:
        raise Blocked(flow.why(x) or f"{step.label} does not keep its channels last")
    made = Track(source.axis, source.ids.repeat(layer.depth_multiplier))
    flow.hold(layer, layer.kernel, 2, source, CARRIES, "")
    if layer.bias is not None:
        flow.hold(layer, layer.bias, 0, made, CARRIES, "")
    flow.work(layer, layer.kernel, math.prod(y.shape[:-1]))
    _answer(flow, step, made)


def separable(flow: Flow, step: Step) -> None:
    """A depthwise convolution, and behind it one of a single pixel."""
    layer, x, y = step.operation, step.inputs[0], step.outputs[0]
    if not is_plain(layer):
        raise Blocked(f"{step.label} does not keep its channels last")
    source = flow.last(x, f"{step.label} reads another axis")
    between = None if source is None else Track(source.axis, source.ids.repeat(layer.depth_multiplier))
    flow.hold(layer, layer.depthwise_kernel, -2, source, CARRIES, flow.why(x))
    flow.hold(layer, layer.pointwise_kernel, -2, between, READS, flow.why(x))
    _finish(flow, step, axis=-1, width="filters", kernel=layer.pointwise_kernel)
    for kernel in (layer.depthwise_kernel, layer.pointwise_kernel):
        flow.work(layer, kernel, math.prod(y.shape[:-1]))


def transposed(flow: Flow, step: Step) -> None:
    """Transposed convolution: a kernel of (h, w, out, in)."""
    layer, x = step.operation, step.inputs[0]
    if not is_plain(layer):
        raise Blocked(f"{step.label} does not keep its channels last")
    source = flow.last(x, f"{step.label} reads another axis")
    flow.hold(layer, layer.kernel, -1, source, READS, flow.why(x))
    _finish(flow, step, axis=-2, width="filters")
    flow.work(layer, layer.kernel, math.prod(x.shape[:-1]))


def batch_norm(flow: Flow, step: Step) -> None:
    """Batch normalisation: four numbers a channel."""
    layer, x = step.operation, step.inputs[0]
    track = flow.get(x)
    axis = layer.axis if isinstance(layer.axis, int) else -1
    if track is None or track.axis != axis % len(x.shape):
        raise Blocked(flow.why(x) or f"{step.label} normalises along another axis")
    gamma = layer.gamma if layer.scale else None
    for weight in layer.weights:
        flow.hold(layer, weight, 0, track, SCALES if weight is gamma else CARRIES, "")
    flow.put(step.outputs[0], track)


def group_norm(flow: Flow, step: Step) -> None:
    """Normalisation in groups: a group's channels go together, or its statistics would change."""
    layer, x = step.operation, step.inputs[0]
    track = flow.get(x)
    if track is None or track.axis != layer.axis % len(x.shape):
        raise Blocked(flow.why(x) or f"{step.label} normalises along another axis")
    rows = track.ids.reshape(layer.groups, -1)
    for members in rows.T[1:]:
        flow.units.tie(rows[:, 0], members)
    for weight in layer.weights:
        gamma = layer.scale and weight is layer.gamma
        flow.hold(layer, weight, 0, track, SCALES if gamma else CARRIES, "")
    heads = rows[:, 0]
    flow.resizes[id(layer)] = lambda kept: {"groups": kept.count(heads)}
    flow.put(step.outputs[0], track)


def layer_norm(flow: Flow, step: Step) -> None:
    """Layer normalisation mixes the channels that it runs across: without one all others change."""
    layer, x = step.operation, step.inputs[0]
    track = flow.get(x)
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if track is None or track.axis in [axis % len(x.shape) for axis in axes]:
        raise Blocked(flow.why(x) or f"{step.label} normalises across channels")
    flow.put(step.outputs[0], track)


def prelu(flow: Flow, step: Step) -> None:
    """PReLU: a slope for each channel, or shared."""
    layer, x = step.operation, step.inputs[0]
    track = flow.get(x)
    if track is not None and layer.alpha.shape[track.axis - 1] > 1:
        flow.hold(layer, layer.alpha, track.axis - 1, track, CARRIES, "")
    flow.put(step.outputs[0], track, flow.why(x))


def heads(flow: Flow, step: Step) -> None:
    """Attention: its heads go one by one; what it reads and writes keeps its width."""
    layer = step.operation
    flow.block(step, f"{step.label} keeps what it reads and writes")
    projections = (layer.query_dense, layer.key_dense, layer.value_dense)
    # (D, H, K) of the three, (H, V, D) of what brings them together.
    made = flow.write(layer, projections[0].kernel, 1)
    track = Track(1, made)
    for each in projections[1:]:
        flow.hold(layer, each.kernel, 1, track, CARRIES, "")
    for each in projections:
        if each.bias is not None:
            flow.hold(layer, each.bias, 0, track, CARRIES, "")
    flow.hold(layer, layer.output_dense.kernel, 0, track, READS, "")
    flow.single.append(made)
    flow.resizes[id(layer)] = lambda kept: {"num_heads": kept.count(made)}
    query, value = step.inputs[0], step.inputs[1]
    asked, known = math.prod(query.shape[1:-1]), math.prod(value.shape[1:-1])
    places = zip((*projections, layer.output_dense), (asked, known, known, asked), strict=True)
    for each, positions in places:
        flow.work(layer, each.kernel, positions)
    wide = layer.num_heads * (layer.key_dim + layer.value_dim)
    flow.extra_work(layer, projections[0].kernel, asked * known * wide)


def constant(flow: Flow, step: Step) -> None:
    """A weight that is a tensor: it makes channels as a bias does."""
    layer, y = step.operation, step.outputs[0]
    made = flow.write(layer, layer.value, -1)
    flow.resizes[id(layer)] = lambda kept: {"extents": [*layer.extents[:-1], kept.count(made)]}
    flow.put(y, Track(len(y.shape) - 1, made))


def activation(flow: Flow, step: Step) -> None:
    """Activation by name."""
    if not _one_by_one(step.operation.activation):
        raise Blocked(f"{step.label} mixes channels")
    one_by_one(flow, step)


def one_by_one(flow: Flow, step: Step) -> None:
    """A function of one number."""
    x = step.inputs[0]
    if len(step.inputs) != 1 or tuple(x.shape) != tuple(step.outputs[0].shape):
        raise Blocked(f"{step.label} is more than a function of each number")
    flow.put(step.outputs[0], flow.get(x), flow.why(x))


def rescaling(flow: Flow, step: Step) -> None:
    """Rescaling by one number, not by one for each channel."""
    layer = step.operation
    if any(not isinstance(number, (int, float)) for number in (layer.scale, layer.offset)):
        raise Blocked(f"{step.label} has a scale for each channel")
    one_by_one(flow, step)


def _finish(flow: Flow, step: Step, *, axis: int, width: str, kernel: Any = None) -> None:
    """Write down what a layer makes, and its bias."""
    layer = step.operation
    made = flow.write(layer, layer.kernel if kernel is None else kernel, axis)
    _bias(flow, layer, made)
    flow.resizes[id(layer)] = lambda kept: {width: kept.count(made)}
    _answer(flow, step, Track(len(step.outputs[0].shape) - 1, made))


def _bias(flow: Flow, layer: Any, made: Any) -> None:
    if layer.bias is not None:
        flow.hold(layer, layer.bias, 0, Track(0, made), CARRIES, "")


def _answer(flow: Flow, step: Step, track: Track) -> None:
    if not _one_by_one(getattr(step.operation, "activation", None)):
        flow.units.freeze(track.ids, f"the activation of {step.label} mixes channels")
    flow.put(step.outputs[0], track)


def _one_by_one(function: Any) -> bool:
    """Return whether a function is one of Keras' that look at each number alone."""
    if function is None:
        return True
    name = getattr(function, "__name__", "")
    return name in _FUNCTIONS and function is getattr(keras.activations, name, None)


def is_plain(layer: Any) -> bool:
    """Return whether a layer keeps its channels last, and its weights in float."""
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    whole = not getattr(layer, "lora_enabled", False) and getattr(layer, "quantization_mode", None) is None
    return last and whole


LAYER_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D"), dense),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), separable),
    **dict.fromkeys(("Conv2DTranspose", "Conv1DTranspose"), transposed),
    **dict.fromkeys(_ONE_BY_ONE, one_by_one),
    "DepthwiseConv2D": depthwise,
    "BatchNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "LayerNormalization": layer_norm,
    "PReLU": prelu,
    "MultiHeadAttention": heads,
    "Constant": constant,
    "Activation": activation,
    "Rescaling": rescaling,
}
