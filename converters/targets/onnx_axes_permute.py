"""A permutation of any number of axes as a chain of permutations of at most three."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise, permutations
from math import prod

Shape = tuple[int, ...]
_BLOCKS = 3


def steps_of(perm: Sequence[int], shape: Shape) -> list[tuple[Shape, Shape]]:
    """Return a permutation as a chain of reshapes and permutations of at most three axes.

    Args:
        perm: As numpy.transpose takes it, of any length.
        shape: Of what is permuted.

    Returns:
        Each step's shape, of at most three axes, and its permutation; none where the order of the numbers
        stays. The result has the right order, and the shape of the last step's.
    """
    order, extents = _blocks(perm, shape)
    steps = []
    while len(order) > 1:
        cuts, moved = _best_move(order)
        bounds = [0, *cuts, len(order)]
        parts = [range(first, last) for first, last in pairwise(bounds)]
        steps.append((tuple(prod(extents[axis] for axis in part) for part in parts), moved))
        arranged = [axis for part in moved for axis in parts[part]]
        rest = [arranged.index(axis) for axis in order]
        order, extents = _blocks(rest, tuple(extents[axis] for axis in arranged))
    return steps


def _best_move(order: Shape) -> tuple[Shape, Shape]:
    """Return where to cut axes into at most three blocks, and their permutation, so that the fewest are left.

    One always leaves fewer: where an axis stands before, but not beside, the one that shall follow it, the
    blocks from the one and from the other change places; in a reversed order the first two blocks meet.
    """

    def left(cuts: Shape, moved: Shape) -> int:
        bounds = [0, *cuts, len(order)]
        arranged = [axis for part in moved for axis in range(bounds[part], bounds[part + 1])]
        return len(_blocks([arranged.index(axis) for axis in order], (2,) * len(order))[0])

    moves = [
        (cuts, moved)
        for parts in range(2, min(_BLOCKS, len(order)) + 1)
        for cuts in combinations(range(1, len(order)), parts - 1)
        for moved in permutations(range(parts))
        if moved != tuple(range(parts))
    ]
    return min(moves, key=lambda move: left(*move))


def _blocks(perm: Sequence[int], shape: Shape) -> tuple[Shape, Shape]:
    """Return a permutation and its shape without axes of one, neighbours that stay so taken for one."""
    runs: list[list[int]] = []
    kept = [axis for axis in range(len(shape)) if shape[axis] != 1]
    place = {axis: number for number, axis in enumerate(kept)}
    for axis in (place[axis] for axis in perm if axis in place):
        if runs and runs[-1][-1] == axis - 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    ordered = sorted(runs)
    extents = tuple(prod(shape[kept[axis]] for axis in run) for run in ordered)
    return tuple(ordered.index(run) for run in runs), extents
