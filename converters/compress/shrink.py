"""Making a net physically smaller, and the proof that it is the same net without some channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from boardfit.converters.compress.channels import READS, Cut, Kept
from boardfit.converters.compress.groups import Structure
from boardfit.converters.ingest.keras_rebuild import walk
from boardfit.converters.ingest.reference import frozen_copy
from boardfit.errors import CompressError

EXACT = 1e-4
"""Largest difference of the proof, of the largest answer: sums of float32 in another order."""


def shrink(net: Any, structure: Structure, alive: np.ndarray) -> Any:
    """Return a net without the channels that go, with weights of its own.

    Args:
        net: keras.Model, functional, flat.
        structure: Of it.
        alive: (U,) bool, which units stay.
    """
    flow, kept = structure.flow, structure.kept(alive)
    clones: dict[int, Any] = {}
    count = 0

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        place = count
        count += 1
        if place in flow.rewrites:
            return flow.rewrites[place](kept, args, kwargs)
        if not isinstance(operation, keras.Layer):
            return operation(*args, **kwargs)
        if id(operation) not in clones:
            resize = flow.resizes.get(id(operation))
            config = {**operation.get_config(), **(resize(kept) if resize else {})}
            clones[id(operation)] = type(operation).from_config(config)
        return clones[id(operation)](*args, **kwargs)

    inputs = [keras.Input(item.shape[1:], name=item.name) for item in net.inputs]
    given: Any = inputs if len(inputs) > 1 else inputs[0]
    smaller = keras.Model(given, walk(net, given, call), name=net.name)
    cuts: dict[int, list[Cut]] = {}
    for cut in flow.cuts.values():
        cuts.setdefault(id(cut.layer), []).append(cut)
    for layer in [layer for layer in net.layers if id(layer) in clones and layer.weights]:
        clones[id(layer)].set_weights(_sliced(layer, cuts.get(id(layer), ()), kept))
    return smaller


def silenced(net: Any, structure: Structure, alive: np.ndarray) -> Any:
    """Return a copy of a net in which nothing reads the channels that go: their weights there are 0.

    Args:
        net: keras.Model, functional, flat.
        structure: Of it.
        alive: (U,) bool, which units stay.
    """
    copy, kept = frozen_copy(net), structure.kept(alive)
    twins = {id(layer): twin for layer, twin in zip(net.layers, copy.layers, strict=True)}
    for cut in structure.flow.cuts.values():
        if cut.role != READS:
            continue
        weights = twins[id(cut.layer)].get_weights()
        np.moveaxis(weights[cut.weight], cut.axis, 0)[~kept.mask(cut.ids)] = 0.0
        twins[id(cut.layer)].set_weights(weights)
    return copy


def require_same(net: Any, smaller: Any, structure: Structure, alive: np.ndarray, *, side: int) -> None:
    """Raise CompressError unless a smaller net answers like the net whose channels are silenced.

    Args:
        net: keras.Model, the source.
        smaller: keras.Model, what ``shrink`` made of it.
        structure: Of the source.
        alive: (U,) bool, which units stay.
        side: Of images in pixels.
    """
    rng = np.random.default_rng(0)
    shapes = [[2, *(extent or side for extent in item.shape[1:])] for item in net.inputs]
    feeds = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    given: Any = feeds if len(feeds) > 1 else feeds[0]
    difference = _difference(silenced(net, structure, alive), smaller, given)
    if not difference <= EXACT:
        raise CompressError(
            f"without some channels {net.name} answers other than with these channels silenced, by "
            f"{difference:.1e} of its largest answer: this net cannot be pruned; please report it"
        )


def _difference(expected: Any, found: Any, feeds: Any) -> float:
    """Return the largest difference of two nets' answers, of the largest answer."""
    worst = 0.0
    answers = [keras.tree.flatten(net(feeds, training=False)) for net in (expected, found)]
    for a, b in zip(*answers, strict=True):
        one, other = (keras.ops.convert_to_numpy(item) for item in (a, b))
        if one.shape != other.shape:
            return float("inf")
        worst = max(worst, float(np.abs(one - other).max() / max(float(np.abs(one).max()), 1e-6)))
    return worst


def _sliced(layer: Any, cuts: Sequence[Cut], kept: Kept) -> list[np.ndarray]:
    weights: list[np.ndarray] = layer.get_weights()
    for cut in cuts:
        weights[cut.weight] = np.compress(kept.mask(cut.ids), weights[cut.weight], axis=cut.axis)
    return weights
