"""Handlers of comparisons and choices. A truth is a float: 1 where it holds, 0 where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from boardfit.converters.ingest import onnx_arithmetic as arithmetic
from boardfit.converters.ingest.onnx_records import Build, Step, Value, make_value

_LIMIT = float(np.finfo(np.float32).max)
"""Stands for infinity in a constant that is chosen: a mask multiplies it by zero elsewhere."""


def comparison(name: str) -> Callable[[Step, Build], Value]:
    """Return the handler of an operator that is ``keras.ops.name`` of a difference and zero."""

    def handler(step: Step, build: Build) -> Value:
        from keras import ops

        difference = arithmetic.sub(replace(step, op="Sub"), build)
        truth = ops.cast(getattr(ops, name)(difference.tensor, 0.0), "float32")
        return make_value(step, truth, difference.axes, nonnegative=True)

    return handler


def negation(step: Step, build: Build) -> Value:
    """Not."""
    return _other(step, step.data(), build)


def conjunction(step: Step, build: Build) -> Value:
    """And."""
    return arithmetic.mul(replace(step, op="Mul"), build)


def disjunction(step: Step, build: Build) -> Value:
    """Or."""
    return arithmetic.extremum(replace(step, op="Max"), build)


def where(step: Step, build: Build) -> Value:
    """Where: the first tensor times the mask, and the second times what the mask leaves.

    Numbers that are not finite cannot be chosen so; in constants the largest finite ones stand for them.
    """
    mask, first, second = (_finite(value) for value in step.inputs if value is not None)
    left = _times(step, build, mask, first)
    right = _times(step, build, _other(step, mask, build), second)
    return arithmetic.add(replace(step, op="Add", inputs=(left, right)), build)


def _finite(value: Value) -> Value:
    if not value.is_const:
        return value
    arrays = (np.asarray(const, np.float32) for const in value.consts)
    return replace(value, consts=tuple(np.clip(array, -_LIMIT, _LIMIT) for array in arrays))


def _other(step: Step, mask: Value, build: Build) -> Value:
    """Return 1 - mask."""
    one = np.asarray(1.0, np.float32)
    if mask.is_const:
        return replace(mask, consts=tuple(one - const for const in mask.consts))
    ones = Value(shapes=tuple(() for _ in mask.shapes), consts=tuple(one for _ in mask.shapes))
    turned = arithmetic.sub(replace(step, op="Sub", inputs=(ones, mask), shapes=mask.shapes), build)
    return replace(turned, nonnegative=True)


def _times(step: Step, build: Build, mask: Value, other: Value) -> Value:
    shapes = arithmetic.broadcast(mask, other)
    if mask.is_const and other.is_const:
        products = (np.asarray(a * b) for a, b in zip(mask.consts, other.consts, strict=True))
        return Value(shapes=shapes, consts=tuple(products))
    return arithmetic.mul(replace(step, op="Mul", inputs=(mask, other), shapes=shapes), build)
