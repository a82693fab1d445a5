"""Handlers of the operators that take parts of a tensor: Slice, Split, Gather, TopK."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_layout import align, reshaped, with_batch
from boardfit.converters.ingest.onnx_records import HIDDEN, Build, Shape, Step, Value, make_value


def slice_(step: Step, build: Build) -> Value:
    """Slice along any axes but the batch; an end that follows the size is counted from the end."""
    data = step.data()
    cuts = [slice(None)] * len(data.axes)
    for axis, bounds in _bounds(step, data).items():
        extents = [shape[axis] for shape in data.shapes]
        cut = _one_cut(bounds, extents)
        if cut is None:
            build.bind(step)
            cut = slice(*bounds[0])
        if cut == slice(None):
            continue
        if axis == data.axes[0]:
            raise step.refuse("it takes images of the batch")
        cuts[data.axes.index(axis)] = cut
    tensor = _sliced(build, data.tensor, cuts)
    return make_value(step, tensor, data.axes, nonnegative=data.nonnegative)


def split(step: Step, build: Build) -> tuple[Value, ...]:
    """Split into several outputs."""
    from keras import ops

    data, axis = step.data(), int(step.attr("axis", 0)) % step.data().rank
    if axis == data.axes[0]:
        if any(shape[axis] != 1 for shape in data.shapes):
            raise step.refuse("it takes images of the batch")
        return (make_value(step, data.tensor, data.axes, nonnegative=data.nonnegative),)
    shapes = (step.shapes, *step.others)
    extents = [tuple(shape[axis] for shape in each) for each in shapes]
    if any(len(set(each)) > 1 for each in extents):
        build.bind(step)
    starts = [0, *np.cumsum([each[0] for each in extents])[:-1].tolist()]
    cut = [
        _cut(step, build, data, axis, start=start, count=each[0], shapes=shape)
        for start, each, shape in zip(starts, extents, shapes, strict=True)
    ]
    if all(part is not None for part in cut):
        return tuple(part for part in cut if part is not None)
    ends = np.cumsum([each[0] for each in extents])[:-1].tolist()
    if len(shapes) == 1:
        return (make_value(step, data.tensor, data.axes, nonnegative=data.nonnegative),)
    parts = ops.split(data.tensor, ends, axis=data.axes.index(axis))
    return tuple(
        Value(shapes=each, tensor=part, axes=data.axes, nonnegative=data.nonnegative)
        for each, part in zip(shapes, parts, strict=True)
    )


def gather(step: Step, build: Build) -> Value:
    """Gather with constant indices: one index drops the axis, a list picks along it, a table makes axes."""
    data, axis = step.data(), int(step.attr("axis", 0)) % step.data().rank
    indices = _const(step, 1)
    if indices.ndim == 0:
        return _pick(step, build, data, axis, indices)
    if indices.ndim > 1:
        flat = Value(
            shapes=((indices.size,),) * len(data.shapes), consts=(indices.reshape(-1),) * len(data.shapes)
        )
        listed = tuple((*shape[:axis], indices.size, *shape[axis + 1 :]) for shape in data.shapes)
        picked = gather(replace(step, inputs=(data, flat), shapes=listed), build)
        return reshaped(picked, step, build)
    if axis == data.axes[0]:
        data = with_batch(data, HIDDEN, build)
    extent = data.shapes[0][axis]
    picks = [int(index) % extent for index in indices]
    if len({shape[axis] for shape in data.shapes}) > 1:
        build.bind(step)
    place = data.axes.index(axis)
    return make_value(step, _take(data.tensor, picks, place), data.axes, nonnegative=data.nonnegative)


def top_k(step: Step, build: Build) -> tuple[Value, ...]:
    """TopK along one axis, largest or smallest first: values, and indices as whole numbers in float32."""
    from keras import ops

    data, axis = step.data(), int(step.attr("axis", -1)) % step.data().rank
    if axis == data.axes[0]:
        raise step.refuse("it compares images of the batch")
    axes = (*(item for item in data.axes if item != axis), axis)
    tensor, count = align(data, axes, build), int(_const(step, 1).reshape(-1)[0])
    if step.attr("largest", 1):
        values, indices = ops.top_k(tensor, count)
    else:
        values, indices = ops.top_k(ops.negative(tensor), count)
        values = ops.negative(values)
    first = make_value(step, values, axes, nonnegative=data.nonnegative)
    if not step.others:
        return (first,)
    return (first, Value(shapes=step.others[0], tensor=ops.cast(indices, "float32"), axes=axes))


def _sliced(build: Build, tensor: Any, cuts: list[slice]) -> Any:
    if all(cut == slice(None) for cut in cuts):
        return tensor
    others = [cut for place, cut in enumerate(cuts) if place not in (1, 2)]
    every = [cut.step or 1 for cut in cuts[1:3] if cut.start is None and cut.stop is None]
    if len(cuts) == 4 and others == [slice(None)] * 2 and len(every) == 2 and min(every) > 0:
        # Every second pixel of an image: a pooling of one pixel, which every format has.
        return build.layer("MaxPooling2D", "every", tensor, pool_size=1, strides=every, padding="valid")
    return tensor[tuple(cuts)]


def _const(step: Step, index: int) -> np.ndarray:
    constant = step.const(index)
    assert constant is not None
    return constant


def _bounds(step: Step, data: Value) -> dict[int, list[tuple[int, int | None, int]]]:
    """Return begin, end and step at each size, by ONNX axis, all counted from the front."""
    found: dict[int, list[tuple[int, int | None, int]]] = {}
    for index, shape in enumerate(data.shapes):
        rows = [_ints(step, place, index) for place in range(1, 5)]
        starts, ends = rows[0] or [], rows[1] or []
        axes = rows[2] or list(range(len(starts)))
        steps = rows[3] or [1] * len(starts)
        for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
            place = axis % data.rank
            begin, stop, stride = slice(start, end, stride).indices(shape[place])
            found.setdefault(place, []).append((begin, None if stop < 0 else stop, stride))
    return found


def _ints(step: Step, place: int, index: int) -> list[int] | None:
    value = step.inputs[place] if place < len(step.inputs) else None
    if value is None:
        return None
    if not value.is_const:
        raise step.refuse(f"its input {place} is computed: expected a constant")
    return [int(item) for item in value.consts[index].reshape(-1)]


def _one_cut(bounds: list[tuple[int, int | None, int]], extents: list[int]) -> slice | None:
    """Return the one slice that is right at every size, or None: from the front, or from the end."""
    strides = {stride for _, _, stride in bounds}
    begins = {begin for begin, _, _ in bounds}
    ends = [end for _, end, _ in bounds]
    if len(strides) > 1:
        return None
    stride = strides.pop()
    if stride < 0:
        return (
            slice(None, None, stride)
            if all(b == e - 1 and end is None for (b, end, _), e in zip(bounds, extents, strict=True))
            else (slice(begins.pop(), ends[0], stride) if len(set(extents)) == 1 else None)
        )
    from_end = {None if end is None or end >= e else end - e for end, e in zip(ends, extents, strict=True)}
    begin: int | None = None
    if len(begins) == 1:
        begin = begins.pop() or None
    else:
        back = {b - e for (b, _, _), e in zip(bounds, extents, strict=True)}
        if len(back) > 1:
            return None
        begin = back.pop()
    if from_end == {None}:
        return slice(begin, None, None if stride == 1 else stride)
    if len(set(ends)) == 1 and ends[0] is not None:
        return slice(begin, ends[0], None if stride == 1 else stride)
    if len(from_end) == 1:
        return slice(begin, from_end.pop(), None if stride == 1 else stride)
    return None


def _pick(step: Step, build: Build, data: Value, axis: int, index: np.ndarray) -> Value:
    left = [item for item in range(data.rank) if item != axis]
    if axis == data.axes[0]:
        if any(shape[axis] != 1 for shape in data.shapes):
            raise step.refuse("it takes one image of the batch")
        axes = (HIDDEN, *(left.index(item) for item in data.axes[1:]))
        return make_value(step, data.tensor, axes, nonnegative=data.nonnegative)
    number = int(index)
    if number >= 0 and any(number >= shape[axis] for shape in data.shapes):
        build.bind(step)
    if number >= 0:
        part = _cut(step, build, data, axis, start=number, count=0, shapes=step.shapes)
        if part is not None:
            return part
    place = data.axes.index(axis)
    cuts: list[Any] = [slice(None)] * len(data.axes)
    cuts[place] = number
    axes = tuple(HIDDEN if item == HIDDEN else left.index(item) for item in data.axes if item != axis)
    return make_value(step, data.tensor[tuple(cuts)], axes, nonnegative=data.nonnegative)


def _cut(
    step: Step, build: Build, data: Value, axis: int, *, start: int, count: int, shapes: tuple[Shape, ...]
) -> Value | None:
    """Cut rows of an axis from the tensor before it was split, so that no tensor of more axes is made.

    Args:
        step: The node.
        build: The net.
        data: What a reshape, and perhaps transposes, have made.
        axis: An ONNX axis of it.
        start: First row.
        count: Number of rows; 0 for one row whose axis goes away.
        shapes: Of the result.

    Returns:
        The part, or None where the axis does not lead a group of the reshape.
    """
    whole = data.whole
    if whole is None or whole.perm[axis] not in whole.leads:
        return None
    lead, before = whole.perm[axis], whole.leads[whole.perm[axis]]
    value, place = whole.value, whole.value.axes.index(before)
    rows = {shape[before] // made[lead] for shape, made in zip(value.shapes, whole.shapes, strict=True)}
    if len(rows) > 1 or place == 0:
        return None
    size = rows.pop()
    cut = slice(start * size, (start + max(count, 1)) * size)
    kept = tuple((*s[:before], cut.stop - cut.start, *s[before + 1 :]) for s in value.shapes)
    part = replace(value, shapes=kept, tensor=value.tensor[(slice(None),) * place + (cut,)], flat=None)
    middle = [count] if count else []
    made = tuple((*s[:lead], *middle, *s[lead + 1 :]) for s in whole.shapes)
    result = reshaped(replace(part, whole=None), replace(step, shapes=made), build)
    gone = 0 if count else 1
    perm = [item - gone * (item > lead) for item in whole.perm if count or item != lead]
    axes = tuple(item if item == HIDDEN else perm.index(item) for item in result.axes)
    return replace(result, shapes=shapes, axes=axes, whole=None)


def _take(tensor: Any, picks: list[int], place: int) -> Any:
    from keras import ops

    if len(picks) == 1:
        cuts = [slice(None)] * place + [slice(picks[0], picks[0] + 1)]
        return tensor[tuple(cuts)]
    return ops.take(tensor, picks, axis=place)
