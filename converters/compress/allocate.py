"""Which channels go until a goal is met, in which order, and how many of each layer."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from boardfit.converters.compress.groups import Cost, Group, Structure, Term


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """Units of one group that go together.

    Attributes:
        group: Place of the group in the structure.
        units: (n,) int64.
    """

    group: int
    units: np.ndarray


def removals(
    structure: Structure, scores: np.ndarray, terms: tuple[Term, ...], *, multiple: int, floors: Sequence[int]
) -> list[Removal]:
    """Return all that may go, the least loss for what it saves first.

    Args:
        structure: Of the net.
        scores: (U,) float64, what is lost with each unit.
        terms: What is to be saved: ``structure.macs`` or ``structure.parameters``.
        multiple: Widths stay multiples of this.
        floors: Fewest units of each group that stay.
    """
    cost = Cost(structure, terms)
    queues = [
        _chunks(group, scores, multiple=multiple, floor=floor)
        for group, floor in zip(structure.groups, floors, strict=True)
    ]
    heap = [(0.0, place) for place, queue in enumerate(queues) if queue]
    heapq.heapify(heap)
    order = []
    while heap:
        _, place = heapq.heappop(heap)
        chunk = queues[place][0]
        price = float(scores[chunk].sum()) / max(cost.saved(chunk), 1e-9)
        # What a chunk saves falls as others go, so that its price rises only: the heap may hold an old one.
        if heap and price > heap[0][0]:
            heapq.heappush(heap, (price, place))
            continue
        cost.take(chunk)
        order.append(Removal(place, chunk))
        queues[place].pop(0)
        if queues[place]:
            heapq.heappush(heap, (0.0, place))
    return order


def until(
    structure: Structure, order: list[Removal], terms: tuple[Term, ...], limit: float
) -> list[Removal] | None:
    """Return the first removals that bring a cost down to a limit, less what turns out to be too much.

    Args:
        structure: Of the net.
        order: As ``removals`` gives it.
        terms: The cost.
        limit: What may remain of it.

    Returns:
        None where all of them do not suffice.
    """
    cost, taken = Cost(structure, terms), []
    for removal in order:
        if cost.now <= limit:
            break
        cost.take(removal.units)
        taken.append(removal)
    if cost.now > limit:
        return None
    for place in dict.fromkeys(removal.group for removal in reversed(taken)):
        # What went last of a group is given back first.
        for removal in [each for each in reversed(taken) if each.group == place]:
            cost.give(removal.units)
            if cost.now > limit:
                cost.take(removal.units)
                break
            taken.remove(removal)
    return taken


def least(structure: Structure, order: list[Removal], terms: tuple[Term, ...]) -> float:
    """Return what remains of a cost when all goes that may."""
    cost = Cost(structure, terms)
    for removal in order:
        cost.take(removal.units)
    return cost.now


def alive_after(structure: Structure, taken: Sequence[Removal]) -> np.ndarray:
    """Return which units stay, (U,) bool."""
    alive: Any = np.ones(structure.count, bool)
    for removal in taken:
        alive[removal.units] = False
    return np.asarray(alive)


def _chunks(group: Group, scores: np.ndarray, *, multiple: int, floor: int) -> list[np.ndarray]:
    """Return what may go of a group, the least first, so that what stays is a multiple each time."""
    chunk, count = group.chunk(multiple), len(group.units)
    fewest = max(chunk, -(-floor // chunk) * chunk)
    ranked = group.units[np.argsort(scores[group.units], kind="stable")]
    stays = [count, *range((count - 1) // chunk * chunk, fewest - 1, -chunk)]
    return [ranked[count - a : count - b] for a, b in pairwise(stays)]
