"""Which channels of a net go together, and which weights hold them: what following a net writes down.

Every place of a followed axis has a unit. Units are tied where a layer demands that channels come and go
together, and frozen where they cannot go at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WRITES, READS, SCALES, CARRIES = "writes", "reads", "scales", "carries"
"""Roles of an axis of a weight: makes channels, consumes them, is a factor of each, or has one each."""


class Blocked(Exception):
    """A step through which channels cannot be followed, with the reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The channels of a tensor.

    Attributes:
        axis: Along which they lie, the batch counted.
        ids: (C,) int64, the unit of each.
    """

    axis: int
    ids: np.ndarray


@dataclass(slots=True)
class Units:
    """Sets of units that are tied step by step."""

    parents: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def fresh(self, count: int) -> np.ndarray:
        """Return new units."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, unit: int) -> int:
        """Return what stands for all that a unit is tied to."""
        while self.parents[unit] != unit:
            self.parents[unit] = self.parents[self.parents[unit]]
            unit = self.parents[unit]
        return unit

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Tie units place by place.

        Args:
            first: (C,) int64.
            second: (C,) int64.
        """
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            one, other = self.root(a), self.root(b)
            if one != other:
                self.parents[other] = one
                if other in self.reasons:
                    self.reasons.setdefault(one, self.reasons[other])

    def freeze(self, ids: np.ndarray, reason: str) -> None:
        """Say why units cannot go."""
        for unit in ids.tolist():
            self.reasons.setdefault(self.root(unit), reason)

    def reason(self, unit: int) -> str:
        """Return why a unit cannot go; empty where it can."""
        return self.reasons.get(self.root(unit), "")


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """An axis of a weight whose places belong to units.

    Attributes:
        layer: keras.Layer.
        weight: Place in ``layer.weights``.
        axis: Of the weight, from 0.
        ids: One unit for each place of the axis.
        role: ``writes``, ``reads``, ``scales`` or ``carries``.
    """

    layer: Any
    weight: int
    axis: int
    ids: np.ndarray
    role: str


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Which units stay.

    Attributes:
        units: What is tied to what.
        gone: Roots of the units that go.
    """

    units: Units
    gone: frozenset[int]

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """Return which places of an axis stay, (C,) bool."""
        return np.array([self.units.root(unit) not in self.gone for unit in ids.tolist()], bool)

    def count(self, ids: np.ndarray) -> int:
        """Return how many places of an axis stay."""
        return int(self.mask(ids).sum())


Resize = Callable[[Kept], Mapping[str, Any]]
"""What changes in a layer's configuration."""
Rewrite = Callable[[Kept, tuple[Any, ...], Mapping[str, Any]], Any]
"""Makes a call anew, for operations that are no layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Multiplications of one call by one weight; they fall with each axis that is cut.

    Attributes:
        macs: Of one image.
        cuts: The axes, as (id of the layer, place of the weight, axis).
    """

    macs: int
    cuts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call of a layer or an operation.

    Attributes:
        place: Number of the call in the order of the net.
        operation: keras.Layer or keras.Operation.
        args: Positional arguments.
        kwargs: Named arguments.
        inputs: keras.KerasTensor each.
        outputs: keras.KerasTensor each.
    """

    place: int
    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    @property
    def label(self) -> str:
        """Name and kind, for people."""
        return f"{self.operation.name} ({type(self.operation).__name__})"


@dataclass(slots=True, eq=False)
class Flow:
    """What following a net found; filled step by step."""

    units: Units = field(default_factory=Units)
    cuts: dict[tuple[int, int, int], Cut] = field(default_factory=dict)
    resizes: dict[int, Resize] = field(default_factory=dict)
    rewrites: dict[int, Rewrite] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    layers: list[Any] = field(default_factory=list)
    single: list[np.ndarray] = field(default_factory=list)
    """Units that go one by one whatever multiple is wanted: heads of attention."""
    _tracks: dict[int, tuple[Any, Track | None, str]] = field(default_factory=dict)
    _unknown: set[tuple[int, int, int]] = field(default_factory=set)

    def get(self, tensor: Any) -> Track | None:
        """Return the channels of a tensor; None where they are not followed."""
        return self._tracks[id(tensor)][1]

    def last(self, tensor: Any, reason: str) -> Track | None:
        """Return the channels of a tensor if they lie along its last axis; else freeze them."""
        track = self.get(tensor)
        if track is not None and track.axis != len(tensor.shape) - 1:
            self.units.freeze(track.ids, reason)
            return None
        return track

    def why(self, tensor: Any) -> str:
        """Return why a tensor's channels are not followed."""
        return self._tracks[id(tensor)][2]

    def put(self, tensor: Any, track: Track | None, reason: str = "") -> None:
        """Say what the channels of a tensor are; of None say why they are not followed."""
        # The tensor is kept, so that its id stays its own.
        self._tracks[id(tensor)] = (tensor, track, reason)

    def block(self, step: Step, reason: str) -> None:
        """Freeze what a step reads, and follow nothing of what it writes."""
        for tensor in step.inputs:
            track = self.get(tensor)
            if track is not None:
                self.units.freeze(track.ids, reason)
        for tensor in step.outputs:
            self.put(tensor, None, reason)

    def write(self, layer: Any, variable: Any, axis: int) -> np.ndarray:
        """Return the units that an axis of a weight makes: new ones at the layer's first call."""
        key = self._key(layer, variable, axis)
        if key not in self.cuts:
            ids = self.units.fresh(variable.shape[axis])
            self.cuts[key] = Cut(layer, key[1], key[2], ids, WRITES)
        return self.cuts[key].ids

    def hold(self, layer: Any, variable: Any, axis: int, track: Track | None, role: str, why: str) -> None:
        """Say that an axis of a weight has a place for each channel of a tensor.

        Args:
            layer: keras.Layer.
            variable: One of its weights.
            axis: Of the weight.
            track: The channels; None where they are not followed.
            role: ``reads``, ``scales`` or ``carries``.
            why: Why they are not followed.
        """
        key = self._key(layer, variable, axis)
        known = self.cuts.get(key)
        # A layer that is called again holds the channels of all its inputs in the same places.
        if track is None or key in self._unknown:
            self._unknown.add(key)
            for ids in ([known.ids] if known else []) + ([track.ids] if track else []):
                self.units.freeze(ids, why or f"{layer.name} is called on other tensors too")
        elif known is not None:
            self.units.tie(known.ids, track.ids)
        else:
            self.cuts[key] = Cut(layer, key[1], key[2], track.ids, role)

    def work(self, layer: Any, variable: Any, positions: int) -> None:
        """Count the multiplications by a weight at so many places of the image."""
        self.extra_work(layer, variable, positions * math.prod(variable.shape))

    def extra_work(self, layer: Any, variable: Any, macs: int) -> None:
        """Count multiplications that fall with the axes of a weight."""
        index = _index(layer, variable)
        axes = range(len(variable.shape))
        self.works.append(Work(macs=macs, cuts=tuple((id(layer), index, axis) for axis in axes)))

    def _key(self, layer: Any, variable: Any, axis: int) -> tuple[int, int, int]:
        if all(layer is not known for known in self.layers):
            self.layers.append(layer)
        return id(layer), _index(layer, variable), axis % len(variable.shape)


def _index(layer: Any, variable: Any) -> int:
    return next(i for i, weight in enumerate(layer.weights) if weight is variable)
