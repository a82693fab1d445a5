"""Handlers of the operators that move numbers without changing them."""

from __future__ import annotations

from typing import Any

from boardfit.converters.ingest.onnx_fuse import full_pads
from boardfit.converters.ingest.onnx_layers import zero_padded
from boardfit.converters.ingest.onnx_records import (
    NHWC_OF_NCHW,
    Build,
    Node,
    Shape,
    Step,
    Value,
    align,
    make_value,
)


def transpose(step: Step, build: Build) -> Value:  # noqa: ARG001 - every handler has this form
    """Transpose: no layer; the value only remembers where its axes have gone."""
    data = step.data()
    perm = step.attr("perm", list(range(data.rank))[::-1])
    if perm[0] != 0:
        raise step.refuse("it moves the batch axis")
    axes = tuple(perm.index(axis) for axis in data.axes)
    return Value(
        shapes=step.shapes, tensor=data.tensor, axes=axes, nonnegative=data.nonnegative, flat=data.flat
    )


def reshape(step: Step, build: Build) -> Value:
    """Reshape, Flatten, Squeeze and Unsqueeze: ONNX inference already knows the result's shape."""
    data = step.data()
    if any(new[:1] != old[:1] for new, old in zip(step.shapes, data.shapes, strict=True)):
        raise step.refuse("it changes the batch axis")
    if step.shapes == data.shapes:
        return Value(step.shapes, (), data.tensor, data.axes, data.nonnegative, data.flat)
    channels = _lone_channels(data.shapes)
    if channels is not None and channels == _lone_channels(step.shapes):
        return _reshape_channels(step, build, data, channels)
    return _reshape_general(step, build, data)


def concat(step: Step, build: Build) -> Value:
    """Concat of computed tensors."""
    values = [step.data(index) for index in range(len(step.inputs))]
    if len({value.rank for value in values}) > 1:
        raise step.refuse("its inputs have different numbers of axes")
    axes = values[0].axes
    axis = axes.index(int(step.attr("axis")) % values[0].rank)
    if axis == 0:
        raise step.refuse("it joins images of the batch")
    tensors = [align(value, axes, build) for value in values]
    place = -1 if axis == len(axes) - 1 else axis
    output = tensors[0] if len(tensors) == 1 else build.layer("Concatenate", "concat", tensors, axis=place)
    return make_value(step, output, axes, nonnegative=all(value.nonnegative for value in values))


def pad(step: Step, build: Build) -> Value:
    """Pad with zeros: ZeroPadding2D over space; over channels the operation itself."""
    data = step.data()
    every = {_pads_at(step, index) for index in range(len(step.shapes))}
    amounts = next(iter(every))
    if len(every) > 1:
        raise step.refuse("its padding differs from size to size")
    if amounts is None or data.rank != 4 or amounts[0] or amounts[4]:
        raise step.refuse("only constant zeros around height, width or channels are carried over")
    # The axes in the tensor's own order, so that padding NHWC costs no Permute.
    begins = [amounts[axis] for axis in data.axes]
    ends = [amounts[4 + axis] for axis in data.axes]
    tensor = zero_padded(data.tensor, (begins[1], begins[2], ends[1], ends[2]), build)
    if begins[3] or ends[3]:
        from keras import ops

        tensor = ops.pad(tensor, ((0, 0), (0, 0), (0, 0), (begins[3], ends[3])))
    return make_value(step, tensor, data.axes, nonnegative=data.nonnegative)


def _pads_at(step: Step, index: int) -> tuple[int, ...] | None:
    names = [f"input{place}" if value is not None else "" for place, value in enumerate(step.inputs)]
    consts = {
        name: value.consts[index]
        for name, value in zip(names, step.inputs, strict=True)
        if value is not None and value.is_const
    }
    node = Node(step.op, step.name, tuple(names), (), step.attrs[index])
    return full_pads(node, consts, step.data().rank)


def _lone_channels(shapes: tuple[Shape, ...]) -> int | None:
    """Return the one extent above 1 besides the batch, where it is the only one at every size."""
    found = set()
    for shape in shapes:
        long = [extent for extent in shape[1:] if extent > 1]
        found.add(long[0] if len(long) == 1 else 1 if not long else None)
    return found.pop() if len(found) == 1 else None


def _reshape_channels(step: Step, build: Build, data: Value, channels: int) -> Value:
    """One axis of numbers gains or loses axes of extent 1: the numbers stay last."""
    if any(extent is None for extent in data.tensor.shape[1:]):
        build.bind(step)
    shape = step.shapes[0]
    long = next((axis for axis in range(1, len(shape)) if shape[axis] > 1), 1)
    axes = (0, *(axis for axis in range(1, len(shape)) if axis != long), long)
    if len(shape) == 2 and data.flat is not None:
        tensor = data.flat()
    elif len(shape) == 2:
        tensor = build.layer("Flatten", "flatten", data.tensor)
    else:
        target = (1,) * (len(shape) - 2) + (channels,)
        tensor = build.layer("Reshape", "reshape", data.tensor, target_shape=target)
    return make_value(step, tensor, axes, nonnegative=data.nonnegative)


def _reshape_general(step: Step, build: Build, data: Value) -> Value:
    if any(extent is None for extent in data.tensor.shape[1:]):
        build.bind(step)
    if len(set(step.shapes)) > 1:
        raise step.refuse(f"its result has another shape at each size ({list(step.shapes)})")
    tensor: Any = align(data, tuple(range(data.rank)), build)
    shape = step.shapes[0]
    if len(shape) == 2:
        tensor = build.layer("Flatten", "flatten", tensor)
    else:
        tensor = build.layer("Reshape", "reshape", tensor, target_shape=shape[1:])
    axes = tuple(range(len(shape)))
    # An image goes on in NHWC: what follows a channel shuffle is a convolution.
    if len(shape) == 4:
        permuted = Value(step.shapes, (), tensor, axes, data.nonnegative)
        return make_value(
            step, align(permuted, NHWC_OF_NCHW, build), NHWC_OF_NCHW, nonnegative=data.nonnegative
        )
    return make_value(step, tensor, axes, nonnegative=data.nonnegative)
