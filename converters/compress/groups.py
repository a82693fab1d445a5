"""Groups of channels that come and go together, and what a net costs without some of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from boardfit.converters.compress.channels import WRITES, Cut, Flow, Kept


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Units that the same weights hold.

    Attributes:
        name: Of the first layer that makes them.
        units: (U,) int64, ascending numbers of a structure's units.
        width: Channels of that layer that a unit is.
        single: Whether units go one by one, whatever multiple is wanted.
    """

    name: str
    units: np.ndarray
    width: int
    single: bool

    def chunk(self, multiple: int) -> int:
        """Return how many units go at once, so that widths stay multiples."""
        return 1 if self.single else multiple // math.gcd(multiple, self.width)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """An axis of a weight in numbers of units.

    Attributes:
        cut: The axis.
        units: (C,) int64, the unit of each place; -1 where it cannot go.
    """

    cut: Cut
    units: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A part of a cost: ``amount`` times the share of each of some sides that stays."""

    amount: int
    sides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """What can go from a net.

    Attributes:
        flow: What following it found.
        sides: Axes of weights.
        groups: In the order of the net.
        fixed: Why the channels of a layer stay, by the layer's name.
        macs: Parts of the multiplications, those of weights that are followed.
        parameters: Parts of the numbers that the net holds.
    """

    flow: Flow
    roots: np.ndarray
    sides: tuple[Side, ...]
    groups: tuple[Group, ...]
    fixed: dict[str, str]
    macs: tuple[Term, ...]
    parameters: tuple[Term, ...]

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.roots)

    def kept(self, alive: np.ndarray) -> Kept:
        """Return what stays.

        Args:
            alive: (U,) bool, which units do.
        """
        return Kept(self.flow.units, frozenset(self.roots[~alive].tolist()))

    @cached_property
    def counts(self) -> np.ndarray:
        """(sides, U) int64: how many places of each side are of each unit."""
        table = np.zeros((len(self.sides), self.count), np.int64)
        for row, side in zip(table, self.sides, strict=True):
            np.add.at(row, side.units[side.units >= 0], 1)
        return table


def structure_of(flow: Flow, net: Any) -> Structure:
    """Return the groups of a net that was followed.

    Args:
        flow: What was found.
        net: keras.Model.
    """
    number: dict[int, int] = {}
    sides, fixed = [], {}
    for cut in flow.cuts.values():
        places = []
        for unit in cut.ids.tolist():
            root = flow.units.root(unit)
            reason = flow.units.reason(unit)
            places.append(-1 if reason else number.setdefault(root, len(number)))
            if reason and cut.role == WRITES:
                fixed[cut.layer.name] = reason
        sides.append(Side(cut, np.array(places, np.int64)))
    roots = np.array(list(number), np.int64)
    place_of = {key: place for place, key in enumerate(flow.cuts)}
    works = [
        Term(work.macs, tuple(place_of[key] for key in work.cuts if key in place_of)) for work in flow.works
    ]
    held = {id(layer) for layer in flow.layers}
    numbers = [
        Term(
            math.prod(weight.shape),
            tuple(
                place_of[key]
                for axis in range(len(weight.shape))
                if (key := (id(layer), i, axis)) in place_of
            ),
        )
        for layer in net.layers
        for i, weight in enumerate(layer.weights)
        if id(layer) in held
    ]
    loose = sum(layer.count_params() for layer in net.layers if id(layer) not in held)
    single = {
        number[flow.units.root(unit)]
        for ids in flow.single
        for unit in ids.tolist()
        if flow.units.root(unit) in number
    }
    return Structure(
        flow=flow,
        roots=roots,
        sides=tuple(sides),
        groups=_groups(sides, len(roots), single),
        fixed=fixed,
        macs=tuple(works),
        parameters=(*numbers, Term(loose, ())),
    )


def _groups(sides: list[Side], count: int, single: set[int]) -> tuple[Group, ...]:
    """Return units by which sides hold them, and how often."""
    held: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for place, side in enumerate(sides):
        for unit, times in zip(*np.unique(side.units[side.units >= 0], return_counts=True), strict=True):
            held[unit].append((place, int(times)))
    members: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for unit, places in enumerate(held):
        members.setdefault(tuple(places), []).append(unit)
    groups = []
    for where, units in members.items():
        writers = [(place, times) for place, times in where if sides[place].cut.role == WRITES]
        place, width = max(writers, key=lambda item: item[1])
        name = sides[writers[0][0]].cut.layer.name
        groups.append(Group(name, np.array(units, np.int64), width, units[0] in single))
    return tuple(groups)


class Cost:
    """What a net costs while units go from it one chunk after the other."""

    def __init__(self, structure: Structure, terms: tuple[Term, ...]) -> None:
        """Begin with all units.

        Args:
            structure: Of the net.
            terms: ``structure.macs`` or ``structure.parameters``.
        """
        self._counts = structure.counts
        self._full = np.array([len(side.units) for side in structure.sides], np.float64)
        self._left = self._full.copy()
        self._terms = terms
        self._with_side: dict[int, list[int]] = {}
        for index, term in enumerate(terms):
            for side in term.sides:
                self._with_side.setdefault(side, []).append(index)
        self.total = float(sum(term.amount for term in terms))
        self.now = self.total

    def saved(self, units: np.ndarray) -> float:
        """Return what is saved where units go next."""
        taken = self._counts[:, units].sum(1)
        touched = {index for side in np.flatnonzero(taken) for index in self._with_side.get(int(side), [])}
        return sum(self._value(i, self._left) - self._value(i, self._left - taken) for i in touched)

    def take(self, units: np.ndarray) -> None:
        """Let units go."""
        self.now -= self.saved(units)
        self._left -= self._counts[:, units].sum(1)

    def give(self, units: np.ndarray) -> None:
        """Take units back."""
        self._left += self._counts[:, units].sum(1)
        self.now += self.saved(units)

    def _value(self, index: int, left: np.ndarray) -> float:
        term = self._terms[index]
        return float(term.amount * math.prod(left[side] / self._full[side] for side in term.sides))
