"""Handlers of the operators that reduce axes: means, sums, extremes, norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from boardfit.converters.ingest.onnx_layout import with_batch
from boardfit.converters.ingest.onnx_pools import global_pool
from boardfit.converters.ingest.onnx_records import HIDDEN, Build, Step, Value, make_value


def reduce_mean(step: Step, build: Build) -> Value:
    """ReduceMean; over height and width of an image it is a pooling layer."""
    return _reduce(step, build, "mean", "GlobalAveragePooling2D")


def reduce_max(step: Step, build: Build) -> Value:
    """ReduceMax; over height and width of an image it is a pooling layer."""
    return _reduce(step, build, "max", "GlobalMaxPooling2D")


def reduction(name: str) -> Callable[[Step, Build], Value]:
    """Return the handler of an operator that is ``keras.ops.name`` over some axes."""

    def handler(step: Step, build: Build) -> Value:
        return _reduce(step, build, name, "")

    return handler


def norm_l2(step: Step, build: Build) -> Value:
    """ReduceL2: the root of the sum of squares."""
    from keras import ops

    return _apply(step, build, "sum", before=ops.square, after=ops.sqrt, nonnegative=True)


def norm_l1(step: Step, build: Build) -> Value:
    """ReduceL1: the sum of absolute values."""
    from keras import ops

    return _apply(step, build, "sum", before=ops.absolute, nonnegative=True)


def sum_of_squares(step: Step, build: Build) -> Value:
    """ReduceSumSquare."""
    from keras import ops

    return _apply(step, build, "sum", before=ops.square, nonnegative=True)


def log_sum(step: Step, build: Build) -> Value:
    """ReduceLogSum: the logarithm of the sum."""
    from keras import ops

    return _apply(step, build, "sum", after=ops.log)


def log_sum_exp(step: Step, build: Build) -> Value:
    """ReduceLogSumExp, which does not overflow where its sum would."""
    return _apply(step, build, "logsumexp")


def argmax(step: Step, build: Build) -> Value:
    """ArgMax and ArgMin over one axis, as whole numbers in float32."""
    data, axis = step.data(), int(step.attr("axis", 0)) % step.data().rank
    place = data.axes.index(axis)
    if place == 0 or step.attr("select_last_index", 0):
        raise step.refuse("it compares images of the batch, or wants the last of equal numbers")
    output = build.own_layer(
        "ArgExtremum",
        "places",
        data.tensor,
        axis=place,
        smallest=step.op == "ArgMin",
        keepdims=bool(step.attr("keepdims", 1)),
    )
    return make_value(step, output, _axes_left(step, data, [axis]), nonnegative=True)


def _reduce(step: Step, build: Build, name: str, pool: str) -> Value:
    data, axes = step.data(), _axes_of(step)
    # The axes that are left over must be batch and channels, wherever the transposes have put them.
    if pool and data.rank == 4 and data.axes[0] == 0 and sorted(data.axes[1:3]) == axes:
        if step.attr("keepdims", 1):
            return global_pool(pool, step, build)
        output = build.layer(pool, "pool", data.tensor, keepdims=False)
        return make_value(step, output, (0, 1), nonnegative=data.nonnegative)
    return _apply(step, build, name, nonnegative=data.nonnegative)


def _axes_of(step: Step) -> list[int]:
    rank = step.data().rank
    given = step.ints("axes", 1)
    if not given:
        return [] if step.attr("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(axis % rank for axis in given)


def _apply(
    step: Step,
    build: Build,
    name: str,
    *,
    before: Callable[[Any], Any] | None = None,
    after: Callable[[Any], Any] | None = None,
    nonnegative: bool = False,
) -> Value:
    """Reduce by ``keras.ops.name``; ``before`` and ``after`` hold also where only the batch is reduced."""
    from keras import ops

    data, axes = step.data(), _axes_of(step)
    if data.axes[0] in axes:
        if any(shape[data.axes[0]] != 1 for shape in data.shapes):
            raise step.refuse("it reduces the batch")
        if not step.attr("keepdims", 1):
            data = with_batch(data, HIDDEN, build)
    places = tuple(place for place, axis in enumerate(data.axes) if axis in axes and place > 0)
    output = before(data.tensor) if before else data.tensor
    if places:
        output = getattr(ops, name)(output, axis=places, keepdims=bool(step.attr("keepdims", 1)))
    output = after(output) if after else output
    return make_value(step, output, _axes_left(step, data, axes), nonnegative=nonnegative)


def _axes_left(step: Step, data: Value, reduced: list[int]) -> tuple[int, ...]:
    if step.attr("keepdims", 1):
        return data.axes
    left = [axis for axis in range(data.rank) if axis not in reduced]
    kept = [axis for axis in data.axes if axis == HIDDEN or axis in left]
    return tuple(HIDDEN if axis == HIDDEN else left.index(axis) for axis in kept)
