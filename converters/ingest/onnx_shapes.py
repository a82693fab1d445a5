"""Handlers of the operators that move numbers without changing them: Transpose, Reshape, Concat, Pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_fuse import full_pads
from boardfit.converters.ingest.onnx_layers import zero_padded
from boardfit.converters.ingest.onnx_layout import align, reshaped, with_batch
from boardfit.converters.ingest.onnx_records import HIDDEN, Build, Node, Step, Value, make_value


def transpose(step: Step, build: Build) -> Value:  # noqa: ARG001 - every handler has this form
    """Transpose: no layer; the value only remembers where its axes have gone."""
    data = step.data()
    perm = step.attr("perm", list(range(data.rank))[::-1])
    axes = tuple(axis if axis == HIDDEN else perm.index(axis) for axis in data.axes)
    if any(shape[axes[0]] != 1 for shape in step.shapes if axes[0] > 0):
        raise step.refuse("it moves the batch axis")
    whole = data.whole and replace(data.whole, perm=tuple(data.whole.perm[axis] for axis in perm))
    return replace(data, shapes=step.shapes, axes=axes, whole=whole)


def reshape(step: Step, build: Build) -> Value:
    """Reshape, Flatten, Squeeze and Unsqueeze: ONNX inference already knows the result's shape."""
    data = step.data()
    if step.shapes == data.shapes:
        return data
    pairs = zip(step.shapes, data.shapes, strict=True)
    rows = all(new[:1] == old[:1] and len(new) == 2 for new, old in pairs)
    if data.flat is not None and rows and data.axes[0] == 0:
        return make_value(step, data.flat(), (0, 1), nonnegative=data.nonnegative)
    return reshaped(data, step, build)


def expand(step: Step, build: Build) -> Value:
    """Expand and Tile: repeats along axes; what only repeats for the batch is left out."""
    from keras import ops

    data = step.data()
    rank = len(step.shapes[0])
    if rank != data.rank:
        ones = tuple((1,) * (rank - data.rank) + shape for shape in data.shapes)
        data = reshaped(data, replace(step, shapes=ones), build)
    ratios = {
        tuple(new // old for new, old in zip(shape, before, strict=True))
        for shape, before in zip(step.shapes, data.shapes, strict=True)
    }
    if len(ratios) > 1:
        build.bind(step)
    ratio = next(iter(ratios))
    if set(ratio) == {1}:
        return data
    if data.axes[0] != HIDDEN and ratio[data.axes[0]] > 1:
        data = with_batch(data, HIDDEN, build)
    repeats = [1, *(ratio[axis] for axis in data.axes[1:])]
    return make_value(step, ops.tile(data.tensor, repeats), data.axes, nonnegative=data.nonnegative)


def concat(step: Step, build: Build) -> Value:
    """Concat of tensors, constants among them."""
    values = [value for value in step.inputs if value is not None]
    first = next(value for value in values if not value.is_const)
    axis = int(step.attr("axis")) % first.rank
    batch = HIDDEN if first.axes[0] == axis else first.axes[0]
    if any(shape[axis] != 1 for shape in first.shapes if first.axes[0] == axis):
        raise step.refuse("it joins images of the batch")
    axes = with_batch(first, batch, build).axes
    tensors = [
        _repeated_constant(step, build, index, axes, first.tensor)
        if value.is_const
        else align(value, axes, build)
        for index, value in enumerate(values)
    ]
    place = axes.index(axis)
    place = -1 if place == len(axes) - 1 else place
    output = tensors[0] if len(tensors) == 1 else build.layer("Concatenate", "concat", tensors, axis=place)
    return make_value(step, output, axes, nonnegative=all(value.nonnegative for value in values))


def pad(step: Step, build: Build) -> Value:
    """Pad: ZeroPadding2D over the space of an image; else the operation itself."""
    data = step.data()
    every = {_pads_at(step, index) for index in range(len(step.shapes))}
    amounts = next(iter(every))
    if len(every) > 1:
        raise step.refuse("its padding differs from size to size")
    mode = step.attr("mode", "constant")
    batch = data.axes[0]
    outside = batch != HIDDEN and amounts is not None and (amounts[batch] or amounts[data.rank + batch])
    if amounts is None or outside or mode not in ("constant", "reflect", "edge"):
        raise step.refuse(
            "only a constant, reflection, or the edge, around other axes than the batch is carried over"
        )
    # The axes in the tensor's own order, so that padding NHWC costs no Permute.
    pairs = [(amounts[axis], amounts[data.rank + axis]) for axis in data.axes[1:]]
    value = _pad_value(step)
    tensor = data.tensor
    if mode == "constant" and value == 0 and len(pairs) == 3:
        (top, bottom), (left, right), pairs[2] = pairs
        tensor = zero_padded(tensor, (top, left, bottom, right), build)
        pairs[:2] = [(0, 0), (0, 0)]
    if mode == "edge":
        tensor = _with_edges(tensor, pairs, build)
    elif any(any(pair) for pair in pairs):
        from keras import ops

        how: dict[str, Any] = {"constant_values": value} if mode == "constant" else {}
        tensor = ops.pad(tensor, ((0, 0), *pairs), mode=mode, **how)
    return make_value(step, tensor, data.axes, nonnegative=data.nonnegative and value >= 0)


def _with_edges(tensor: Any, pairs: Sequence[tuple[int, int]], build: Build) -> Any:
    """Repeat the first and the last row of each axis after the batch."""
    for place, (before, after) in enumerate(pairs, start=1):
        if before or after:
            every = (slice(None),) * place
            first, last = tensor[(*every, slice(0, 1))], tensor[(*every, slice(-1, None))]
            rows = [*[first] * before, tensor, *[last] * after]
            tensor = build.layer("Concatenate", "edge", rows, axis=place)
    return tensor


def _pad_value(step: Step) -> float:
    constant = step.const(2) if len(step.inputs) > 2 else None
    return float(constant.reshape(-1)[0]) if constant is not None and constant.size else 0.0


def _pads_at(step: Step, index: int) -> tuple[int, ...] | None:
    names = [f"input{place}" if value is not None else "" for place, value in enumerate(step.inputs)]
    consts = {
        name: value.consts[index]
        for name, value in zip(names, step.inputs, strict=True)
        if value is not None and value.is_const
    }
    node = Node(step.op, step.name, tuple(names), (), step.attrs[index])
    return full_pads(node, consts, step.data().rank, zeros_only=False)


def _repeated_constant(step: Step, build: Build, index: int, axes: tuple[int, ...], like: Any) -> Any:
    constant = step.const(index)
    assert constant is not None
    if axes[0] == HIDDEN:
        return build.constant(np.asarray(constant, np.float32).transpose(axes[1:]), like, tiled=True)
    if constant.shape[axes[0]] != 1:
        raise step.refuse("its constant has a batch")
    return build.constant(np.asarray(constant, np.float32).transpose(axes)[0], like, tiled=True)
