"""Where the axes of a tensor are: every move of axes, and the one reshape that all others are made of.

A graph is traced with one image, so that it is a function of one image: the batch is the first axis of the
Keras tensor, wherever ONNX keeps it, and may be hidden where ONNX has dropped its extent of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from boardfit.converters.ingest.onnx_records import BOUND, HIDDEN, Build, Shape, Step, Value, Whole


def align(value: Value, axes: tuple[int, ...], build: Build) -> Any:
    """Return the Keras tensor with its axes in another order; a Permute layer only where they differ.

    Args:
        value: A computed tensor.
        axes: The wanted ``Value.axes``; its batch may be another ONNX axis of extent one.
        build: The net.
    """
    if value.axes == axes:
        return value.tensor
    value = with_batch(value, axes[0], build)
    if value.axes == axes:
        return value.tensor
    order = tuple(value.axes.index(axis) for axis in axes)
    moving = [place for place in order if value.tensor.shape[place] != 1]
    if moving == sorted(moving):
        return shaped(value.tensor, [value.tensor.shape[place] for place in order[1:]], build, order=order)
    return build.layer("Permute", "permute", value.tensor, dims=order[1:])


def with_batch(value: Value, axis: int, build: Build) -> Value:
    """Return a value whose batch is another ONNX axis of extent one, or hidden."""
    now = value.axes[0]
    if now == axis:
        return value
    if any(shape[item] != 1 for item in (now, axis) if item != HIDDEN for shape in value.shapes):
        raise ValueError("it mixes images of the batch")
    kept = [place for place in range(1, len(value.axes)) if value.axes[place] != axis]
    axes = [value.axes[place] for place in kept]
    extents = [value.tensor.shape[place] for place in kept]
    order = [0, *kept]
    if now != HIDDEN:
        axes.insert(0, now)
        extents.insert(0, 1)
        order.insert(1, -1)
    tensor = shaped(value.tensor, extents, build, order=order)
    return replace(value, tensor=tensor, axes=(axis, *axes), flat=None, whole=None)


def with_rank(value: Value, rank: int, build: Build) -> Value:
    """Return a value with leading ONNX axes of one added, as broadcasting adds them."""
    more = rank - value.rank
    if more <= 0:
        return value
    shapes = tuple((1,) * more + shape for shape in value.shapes)
    batch, *rest = (axis if axis == HIDDEN else axis + more for axis in value.axes)
    fresh = list(range(more))
    if batch == HIDDEN:
        batch = fresh.pop(0)
    tensor = value.tensor
    if fresh:
        order = [0, *[-1] * len(fresh), *range(1, len(value.axes))]
        tensor = shaped(tensor, [1] * len(fresh) + list(tensor.shape[1:]), build, order=order)
    return replace(value, shapes=shapes, tensor=tensor, axes=(batch, *fresh, *rest), flat=None, whole=None)


def reshaped(value: Value, step: Step, build: Build) -> Value:
    """Return a value in the shape of a step's first output, its numbers in ONNX's order.

    Input and output axes are matched in the smallest groups of equal products, so that a reshape touches no
    axis that it does not have to, and an image stays NHWC through a channel shuffle or a patch embedding.
    """
    shapes = step.shapes
    batch = _batch_of_result(value, shapes)
    before = [axis for axis in range(value.rank) if axis != value.axes[0]]
    after = [axis for axis in range(len(shapes[0])) if axis != batch]
    groups = _groups(value.shapes, before, shapes, after)
    groups.sort(key=lambda group: _place(group, value))
    wanted = (value.axes[0], *(axis for group in groups for axis in group.before))
    tensor = align(value, wanted, build)
    order = [axis for group in groups for axis in _units_first(group.after, shapes)]
    target = _target(step, build, tensor, groups, wanted, order)
    leads = {
        group.after[0]: group.before[0] for group in groups if len(group.before) == 1 and len(group.after) > 1
    }
    whole = Whole(value, tuple(shapes), leads, tuple(range(len(shapes[0])))) if leads else None
    result = Value(
        shapes=shapes, tensor=tensor, axes=(batch, *order), nonnegative=value.nonnegative, whole=whole
    )
    if list(tensor.shape[1:]) == target and len(groups) == len(order):
        return result
    if len(order) == 1 and isinstance(target[0], int):
        return replace(result, tensor=build.layer("Flatten", "flatten", tensor))
    return replace(result, tensor=_reshape(tensor, target, build))


def shaped(tensor: Any, extents: Sequence[int | None], build: Build, *, order: Sequence[int]) -> Any:
    """Return a tensor whose axes of one were added, dropped or moved.

    Args:
        tensor: Keras tensor, batch first.
        extents: The wanted axes after the batch; None where the extent follows the input size.
        build: The net.
        order: For each wanted axis, batch included, the axis of ``tensor`` that it is; -1 for a new one.
    """
    target = [
        extent if extent is not None else {"of": 0, "axes": [place], "over": 1}
        for extent, place in zip(extents, order[1:], strict=True)
    ]
    return _reshape(tensor, target, build)


@dataclass(frozen=True, slots=True)
class _Group:
    """ONNX axes before and after a reshape whose extents have the same product at every size."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def _batch_of_result(value: Value, shapes: Sequence[Shape]) -> int:
    batch = value.axes[0]
    if batch != HIDDEN and any(shape[batch] != 1 for shape in value.shapes):
        if batch != 0 or any(new[:1] != old[:1] for new, old in zip(shapes, value.shapes, strict=True)):
            raise ValueError("it changes the batch axis")
        return 0
    units = [axis for axis in range(len(shapes[0])) if all(shape[axis] == 1 for shape in shapes)]
    return batch if batch in units else units[0] if units else HIDDEN


def _groups(
    old: Sequence[Shape], before: Sequence[int], new: Sequence[Shape], after: Sequence[int]
) -> list[_Group]:
    groups: list[_Group] = []
    i = j = 0
    while i < len(before) and j < len(after):
        start = i, j
        i, j = i + 1, j + 1
        while (left := _products(old, before[start[0] : i])) != (
            right := _products(new, after[start[1] : j])
        ):
            if (left < right and i < len(before)) or j >= len(after):
                i += 1
            else:
                j += 1
        groups.append(_Group(tuple(before[start[0] : i]), tuple(after[start[1] : j])))
    if not groups:
        return [_Group(tuple(before), tuple(after))]
    last = groups[-1]
    groups[-1] = _Group((*last.before, *before[i:]), (*last.after, *after[j:]))
    return groups


def _products(shapes: Sequence[Shape], axes: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis] for axis in axes) for shape in shapes]


def _place(group: _Group, value: Value) -> int:
    """Return where a group stands in the Keras tensor: at its first axis that is longer than one."""
    places = [value.axes.index(axis) for axis in group.before]
    long = [p for axis, p in zip(group.before, places, strict=True) if any(s[axis] > 1 for s in value.shapes)]
    return min(long or places or [0])


def _units_first(axes: Sequence[int], shapes: Sequence[Shape]) -> list[int]:
    """Put axes of one before the others: (C) -> (C, 1, 1) becomes (1, 1, C) in Keras, an NHWC image."""
    return sorted(axes, key=lambda axis: any(shape[axis] > 1 for shape in shapes))


def _target(
    step: Step,
    build: Build,
    tensor: Any,
    groups: Sequence[_Group],
    wanted: tuple[int, ...],
    order: Sequence[int],
) -> list[Any]:
    """Return the extent of each axis after the batch; where it follows the size, as ``Regroup`` says it."""
    free = any(extent is None for extent in tensor.shape[1:])
    if build.reading != BOUND and free and len(build.sizes) == 1:
        build.bind(step)
    group_of = {axis: group for group in groups for axis in group.after}
    target: list[Any] = []
    for axis in order:
        extents = {shape[axis] for shape in step.shapes}
        if len(extents) == 1:
            target.append(extents.pop())
            continue
        group = group_of[axis]
        rest = [other for other in group.after if other != axis]
        if any(len({shape[other] for shape in step.shapes}) > 1 for other in rest):
            target.append(None)
            continue
        over = math.prod(step.shapes[0][other] for other in rest)
        target.append({"of": 0, "axes": [wanted.index(item) for item in group.before], "over": over})
    if target.count(None) > 0:
        return _target_by_likeness(step, build, target, order)
    return target


def _target_by_likeness(step: Step, build: Build, target: list[Any], order: Sequence[int]) -> list[Any]:
    """Take extents that no product tells (tokens back to an image) from an earlier tensor that has them."""
    places = [place for place, item in enumerate(target) if item is None]
    needed = [tuple(shape[order[place]] for shape in step.shapes) for place in places]
    for value in reversed(build.seen):
        have = {
            at: tuple(shape[value.axes[at]] for shape in value.shapes) for at in range(1, len(value.axes))
        }
        found: list[int] = []
        for extents in needed:
            found += [at for at in have if have[at] == extents and at not in found][:1]
        if len(found) == len(needed):
            for place, at in zip(places, found, strict=True):
                target[place] = {"of": 1, "axes": [at], "over": 1, "like": value.tensor}
            return target
    build.bind(step)
    return target


def _reshape(tensor: Any, target: Sequence[Any], build: Build) -> Any:
    moving = [item for item in target if not isinstance(item, int)]
    if len(moving) <= 1:
        dims = tuple(item if isinstance(item, int) else -1 for item in target)
        return build.layer("Reshape", "reshape", tensor, target_shape=dims)
    likes = [item.pop("like") for item in moving if "like" in item]
    return build.own_layer("Regroup", "regroup", [tensor, likes[0]] if likes else tensor, target=list(target))
