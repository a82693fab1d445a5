"""Handlers of the normalisations, which stay layers, since the net may be trained."""

from __future__ import annotations

import numpy as np

from boardfit.converters.ingest.onnx_layout import align, with_batch
from boardfit.converters.ingest.onnx_records import HIDDEN, NHWC_OF_NCHW, Build, Step, Value, make_value


def batch_normalization(step: Step, build: Build) -> Value:
    """BatchNormalization: the layer of that name, over ONNX axis 1."""
    data = step.data()
    if step.attr("training_mode", 0):
        raise step.refuse("it was exported in training mode: export the net in eval mode")
    if data.rank < 2:
        raise step.refuse(f"its input has {data.rank} axes: expected at least 2")
    axes = channels_last(data)
    scale, shift, mean, variance = (step.const(index) for index in range(1, 5))
    output = build.layer(
        "BatchNormalization",
        "bn",
        align(data, axes, build),
        weights=[np.asarray(item) for item in (scale, shift, mean, variance)],
        momentum=float(step.attr("momentum", 0.9)),
        epsilon=float(step.attr("epsilon", 1e-5)),
    )
    return make_value(step, output, axes)


def layer_normalization(step: Step, build: Build) -> Value:
    """LayerNormalization over the axes from ``axis`` on, or over the ``axes`` that fusing found."""
    data = step.data()
    first = int(step.attr("axis", -1)) % data.rank
    over = step.attr("axes", None) or list(range(first, data.rank))
    if data.axes[0] in over:
        data = with_batch(data, HIDDEN, build)
    kept = [axis for axis in data.axes[1:] if axis not in over]
    axes = (data.axes[0], *kept, *sorted(over))
    shape = tuple(data.shapes[0][axis] for axis in sorted(over))
    tensor = align(data, axes, build)
    if None in tensor.shape[len(axes) - len(over) :]:
        build.bind(step)
    scale, shift = _affine(step, 1, shape), _affine(step, 2, shape)
    weights = [item for item in (scale, shift) if item is not None]
    output = build.layer(
        "LayerNormalization",
        "ln",
        tensor,
        weights=weights,
        axis=-1 if len(over) == 1 else list(range(len(axes) - len(over), len(axes))),
        epsilon=float(step.attr("epsilon", 1e-5)),
        scale=scale is not None,
        center=shift is not None,
    )
    return make_value(step, output, axes)


def group_normalization(step: Step, build: Build) -> Value:
    """GroupNormalization as of opset 21, with a scale per channel."""
    scale, shift = step.const(1), step.const(2)
    assert scale is not None and shift is not None
    return _groups(step, build, int(step.attr("num_groups", 1)), scale, shift)


def local_response_normalization(step: Step, build: Build) -> Value:
    """LRN: the squares of neighbouring channels, summed by a convolution of one pixel."""
    from keras import ops

    data, size = step.data(), int(step.attr("size"))
    if data.rank != 4:
        raise step.refuse(f"its input has {data.rank} axes: expected an image of 4")
    tensor, channels = align(data, NHWC_OF_NCHW, build), data.shapes[0][1]
    reach = np.arange(channels)[:, None] - np.arange(channels)[None]
    near = (reach >= -((size - 1) // 2)) & (reach <= size // 2)
    kernel = near.astype(np.float32) * np.float32(step.attr("alpha", 1e-4) / size)
    base = build.layer(
        "Conv2D",
        "lrn",
        ops.square(tensor),
        weights=[kernel[None, None], np.full(channels, step.attr("bias", 1.0), np.float32)],
        filters=channels,
        kernel_size=1,
        trainable=False,
    )
    output = ops.multiply(tensor, ops.power(base, -float(step.attr("beta", 0.75))))
    return make_value(step, output, NHWC_OF_NCHW, nonnegative=data.nonnegative)


def instance_normalization(step: Step, build: Build) -> Value:
    """InstanceNormalization: GroupNormalization with a group per channel."""
    scale, shift = step.const(1), step.const(2)
    assert scale is not None and shift is not None
    return _groups(step, build, step.data().shapes[0][1], scale, shift)


def channels_last(data: Value) -> tuple[int, ...]:
    """Return the axes of a value with ONNX axis 1 last; an image of a batch becomes NHWC."""
    if data.rank == 4 and data.axes[0] == 0:
        return NHWC_OF_NCHW
    return (*(axis for axis in data.axes if axis != 1), 1)


def _affine(step: Step, index: int, shape: tuple[int, ...]) -> np.ndarray | None:
    constant = step.const(index)
    return None if constant is None else np.broadcast_to(constant, shape)


def _groups(step: Step, build: Build, groups: int, scale: np.ndarray, shift: np.ndarray) -> Value:
    data = step.data()
    if data.axes[0] == 1:
        raise step.refuse("it mixes images of the batch")
    axes = channels_last(data)
    output = build.layer(
        "GroupNormalization",
        "gn",
        align(data, axes, build),
        weights=[scale, shift],
        groups=groups,
        epsilon=float(step.attr("epsilon", 1e-5)),
    )
    return make_value(step, output, axes)
