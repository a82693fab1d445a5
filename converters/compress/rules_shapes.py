"""What sums, products and joins do to channels, and what moves them without changing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from boardfit.converters.compress.channels import Blocked, Flow, Kept, Step, Track

Rule = Callable[[Flow, Step], None]


def merge(flow: Flow, step: Step) -> None:
    """Sums, products and the like of tensors that fit each other, or of a tensor and a number."""
    y = step.outputs[0]
    if any(np.ndim(leaf) and np.shape(leaf)[-1] > 1 for leaf in _constants(step)):
        raise Blocked(f"{step.label} has a constant for each channel")
    tracks = [(x, flow.get(x)) for x in step.inputs]
    # Tensors of fewer axes are aligned at the last one.
    axes = {track.axis - len(x.shape) for x, track in tracks if track is not None}
    if len(axes) != 1:
        reason = next((flow.why(x) for x, track in tracks if track is None), "")
        raise Blocked(reason or f"{step.label} brings different axes together")
    axis = axes.pop()
    flow.put(y, _tied(flow, step, axis))


def _tied(flow: Flow, step: Step, axis: int) -> Track:
    """Tie the channels of tensors that are as wide as the result; a single channel serves all."""
    y = step.outputs[0]
    width = y.shape[axis]
    wide = [x for x in step.inputs if len(x.shape) >= -axis and x.shape[axis] == width]
    found = [flow.get(x) for x in wide]
    known = [track.ids for track in found if track is not None]
    ids = known[0] if known else flow.units.fresh(width)
    for other in known[1:]:
        flow.units.tie(ids, other)
    for x, track in zip(wide, found, strict=True):
        if track is None:
            flow.units.freeze(ids, flow.why(x))
    for x in step.inputs:
        alone = flow.get(x)
        if alone is not None and x.shape[axis] != width:
            flow.units.freeze(alone.ids, f"{step.label} spreads a single channel")
    if not known:
        flow.units.freeze(ids, f"{step.label} spreads a single channel")
    return Track(len(y.shape) + axis, ids)


def concatenate(flow: Flow, step: Step) -> None:
    """One behind the other: along the channels their units follow each other, else they are tied."""
    y = step.outputs[0]
    axis = step.operation.axis % len(y.shape)
    tracks = [flow.get(x) for x in step.inputs]
    axes = {track.axis for track in tracks if track is not None}
    whole = sum(x.shape[axis] or 0 for x in step.inputs) == y.shape[axis]
    if len(axes) != 1 or not whole:
        raise Blocked(flow.why(step.inputs[0]) or f"{step.label} brings different axes together")
    along = axes.pop()
    if along != axis:
        flow.put(y, _tied(flow, step, along - len(y.shape)))
        return
    parts = []
    for x, track in zip(step.inputs, tracks, strict=True):
        ids = flow.units.fresh(x.shape[axis]) if track is None else track.ids
        if track is None:
            flow.units.freeze(ids, flow.why(x))
        parts.append(ids)
    flow.put(y, Track(axis, np.concatenate(parts)))


def spatial(flow: Flow, step: Step) -> None:
    """What moves, pads, cuts or pools pixels, channel by channel."""
    x, y = step.inputs[0], step.outputs[0]
    track = flow.get(x)
    last = getattr(step.operation, "data_format", "channels_last") == "channels_last"
    if track is None or not last or track.axis != len(x.shape) - 1 or x.shape[-1] != y.shape[-1]:
        raise Blocked(flow.why(x) or f"{step.label} does not keep its channels last")
    flow.put(y, Track(len(y.shape) - 1, track.ids))


def reduce(flow: Flow, step: Step) -> None:
    """A mean or extremum along axes; along the channels it mixes them."""
    x, y, operation = step.inputs[0], step.outputs[0], step.operation
    track = flow.get(x)
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    rank = len(x.shape)
    if track is None or None in axes or track.axis in [axis % rank for axis in axes]:
        raise Blocked(flow.why(x) or f"{step.label} mixes channels")
    gone = 0 if operation.keepdims else sum(axis % rank < track.axis for axis in axes)
    flow.put(y, Track(track.axis - gone, track.ids))


def softmax(flow: Flow, step: Step) -> None:
    """Softmax along another axis than the channels."""
    x = step.inputs[0]
    track = flow.get(x)
    axis = step.operation.axis
    if track is None or not isinstance(axis, int) or axis % len(x.shape) == track.axis:
        raise Blocked(flow.why(x) or f"{step.label} mixes channels")
    flow.put(step.outputs[0], track)


def reshape(flow: Flow, step: Step) -> None:
    """Reshape, Flatten, Permute and the like: where the channels come to lie along one axis."""
    x, y, operation = step.inputs[0], step.outputs[0], step.operation
    track = _moved(flow.get(x), x.shape, y.shape, _mover(operation, y.shape))
    if track is None:
        raise Blocked(flow.why(x) or f"{step.label} splits or mixes the axis of the channels")
    kind, axis = type(operation).__name__, track.axis
    if kind == "Reshape":
        name = "target_shape" if hasattr(operation, "target_shape") else "newshape"
        if not _fits(flow, step, track, name):
            raise Blocked(f"{step.label} binds the batch or the channels")
    elif kind == "Regroup":
        if any(_counts_channels(item, flow, step) for item in operation.target):
            raise Blocked(f"{step.label} counts channels in another axis")
        if isinstance(operation.target[axis - 1], int):
            flow.resizes[id(operation)] = lambda kept: {
                "target": _with(operation.target, axis - 1, kept.count(track.ids))
            }
    flow.put(y, track)


def _fits(flow: Flow, step: Step, track: Track, name: str) -> bool:
    """Write down what a Reshape must become; False where it cannot."""
    operation, axis = step.operation, track.axis
    target = tuple(getattr(operation, name))
    place = axis - 1 if name == "target_shape" else axis
    if name == "newshape" and target[0] not in (-1, None):
        return False
    if target[place] == -1:
        return True
    if name == "target_shape":
        flow.resizes[id(operation)] = lambda kept: {name: _with(target, place, kept.count(track.ids))}
        return True

    def anew(kept: Kept, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return ops.reshape((*args, *kwargs.values())[0], _with(target, place, kept.count(track.ids)))

    flow.rewrites[step.place] = anew
    return True


def _counts_channels(item: Any, flow: Flow, step: Step) -> bool:
    """Return whether an extent of a Regroup is computed from an axis of channels."""
    if isinstance(item, int):
        return False
    track = flow.get(step.inputs[item["of"]])
    return track is not None and track.axis in item["axes"]


def _mover(operation: Any, shape: Sequence[int | None]) -> Callable[[np.ndarray], np.ndarray]:
    kind = type(operation).__name__
    if kind == "Permute":
        return lambda full: full.transpose((0, *operation.dims))
    if kind == "Transpose":
        return lambda full: full.transpose(operation.axes)
    extents = [extent or 1 for extent in shape]
    return lambda full: full.reshape(extents)


def _moved(
    track: Track | None,
    before: Sequence[int | None],
    after: Sequence[int | None],
    move: Callable[[np.ndarray], np.ndarray],
) -> Track | None:
    """Return where channels come to lie; None where that is no single axis.

    Args:
        track: The channels before.
        before: Shape before, one image.
        after: Shape after.
        move: What is done to an array of units of the shape before.
    """
    if track is None or None in tuple(before)[1:] or None in tuple(after)[1:]:
        return None
    shape = [1] * len(before)
    shape[track.axis] = -1
    extents = [extent or 1 for extent in before]
    moved = move(np.broadcast_to(track.ids.reshape(shape), extents))
    axes = [axis for axis in range(moved.ndim) if moved.shape[axis] > 1 and np.diff(moved, axis=axis).any()]
    if len(axes) != 1:
        return None
    ids = np.moveaxis(moved, axes[0], 0).reshape(moved.shape[axes[0]], -1)[:, 0]
    return Track(axes[0], np.array(ids))


def get_item(flow: Flow, step: Step) -> None:
    """Part of a tensor; along the channels one run of them."""
    x, y = step.inputs[0], step.outputs[0]
    track = flow.get(x)
    key = step.kwargs["key"] if "key" in step.kwargs else step.args[1]
    found = _moved(track, x.shape, y.shape, lambda full: full[key])
    if track is None or found is None:
        raise Blocked(flow.why(x) or f"{step.label} takes single channels")
    if len(found.ids) != len(track.ids):
        keys = key if isinstance(key, tuple) else (key,)
        place = _place_in(keys, track.axis, len(x.shape))
        if place is None or not isinstance(keys[place], slice) or keys[place].step not in (None, 1):
            raise Blocked(f"{step.label} takes single channels")
        _slice_anew(flow, step, track, keys, place)
    flow.put(y, found)


def _place_in(keys: tuple[Any, ...], axis: int, rank: int) -> int | None:
    """Return which of the keys is that of an axis; None where none is."""
    if any(key is None for key in keys):
        return None
    if Ellipsis in [key for key in keys if not isinstance(key, slice)]:
        hole = next(i for i, key in enumerate(keys) if key is Ellipsis)
        behind = axis - (rank - (len(keys) - hole - 1))
        return hole + 1 + behind if behind >= 0 else axis if axis < hole else None
    return axis if axis < len(keys) else None


def _slice_anew(flow: Flow, step: Step, track: Track, keys: tuple[Any, ...], place: int) -> None:
    begin, end, _ = keys[place].indices(len(track.ids))

    def anew(kept: Kept, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        mask = kept.mask(track.ids)
        run = slice(int(mask[:begin].sum()), int(mask[:end].sum()))
        return (*args, *kwargs.values())[0][_with(keys, place, run)]

    flow.rewrites[step.place] = anew


def split(flow: Flow, step: Step) -> None:
    """A tensor in parts, along the channels or another axis."""
    x, operation = step.inputs[0], step.operation
    track = flow.get(x)
    if track is None:
        raise Blocked(flow.why(x))
    axis = operation.axis % len(x.shape)
    if axis != track.axis:
        for y in step.outputs:
            flow.put(y, track)
        return
    ends = np.cumsum([y.shape[axis] for y in step.outputs])[:-1].tolist()
    for y, ids in zip(step.outputs, np.split(track.ids, ends), strict=True):
        flow.put(y, Track(axis, ids))

    def anew(kept: Kept, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        mask = kept.mask(track.ids)
        return ops.split((*args, *kwargs.values())[0], [int(mask[:end].sum()) for end in ends], axis=axis)

    flow.rewrites[step.place] = anew


def _constants(step: Step) -> list[Any]:
    leaves = keras.tree.flatten((step.args, dict(step.kwargs)))
    return [leaf for leaf in leaves if not isinstance(leaf, keras.KerasTensor)]


def _with(items: Sequence[Any], place: int, item: Any) -> tuple[Any, ...]:
    return (*items[:place], item, *items[place + 1 :])


_MERGES = (
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Divide", "TrueDivide", "Power", "Mod",
)  # fmt: skip
_SPATIAL = (
    "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "ZeroPadding1D", "ZeroPadding2D",
    "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D", "Resizing",
    "CornerResize",
)  # fmt: skip

SHAPE_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_MERGES, merge),
    **dict.fromkeys(_SPATIAL, spatial),
    **dict.fromkeys(("Concatenate",), concatenate),
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(
        ("Reshape", "Flatten", "Permute", "Transpose", "Regroup", "Squeeze", "ExpandDims"), reshape
    ),
    "GetItem": get_item,
    "Split": split,
}
