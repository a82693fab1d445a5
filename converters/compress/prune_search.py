"""How much of a net must go for a measured time: the engine is asked, since multiplications are not time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from boardfit.converters.compress.allocate import Removal
from boardfit.errors import CompressError

NEAR = 0.03
"""A time is met if it is off by no more than this share of it."""
PROBES = 48
"""So many nets at most are timed to learn what each layer saves; at least one for each group of channels."""
_NOTHING = 1e-3
_ENOUGH = 0.01
_MOST_ASKED = 10
_VARIANTS = 4

Measure = Callable[[Sequence[Removal]], float]
"""Returns the time of a net without some channels, as a share of the source's."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Channels of one group, and what it promises that they go together.

    Attributes:
        chunks: The channels, what goes first first.
        gain: The share of the source's time that it saves, as measured alone.
        price: What is lost for each share of the time.
    """

    chunks: tuple[Removal, ...]
    gain: float
    price: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What meets a time.

    Attributes:
        taken: What goes.
        ratio: Time that remains, as a share of the source's.
    """

    taken: tuple[Removal, ...]
    ratio: float

    def is_near(self, target: float) -> bool:
        """Return whether a time is met."""
        return abs(self.ratio / target - 1.0) <= NEAR


def moves_by_time(order: Sequence[Removal], scores: np.ndarray, measure: Measure) -> list[Move]:
    """Return what may go, the least loss for the time that it really saves first.

    Each group is narrowed alone, to a few widths, and timed, as Yang et al. 2018 do
    (https://arxiv.org/abs/1804.03230): an engine that computes 16 channels at once saves nothing from 32 to
    24.

    Args:
        order: What may go; of each group, what goes first stands first.
        scores: (U,) float64, what is lost with each unit.
        measure: Asks the engine.
    """
    chunks: dict[int, list[Removal]] = {}
    for removal in order:
        chunks.setdefault(removal.group, []).append(removal)
    each = max(1, PROBES // len(chunks))
    moves: list[Move] = []
    for own in chunks.values():
        counts = np.unique(np.ceil(np.linspace(0, len(own), min(each, len(own)) + 1)[1:]).astype(int))
        saved = {0: 0.0, **{int(count): 1.0 - measure(own[:count]) for count in counts}}
        moves.extend(_hull(own, scores, saved))
    return sorted(moves, key=lambda move: move.price)


def _hull(own: Sequence[Removal], scores: np.ndarray, saved: dict[int, float]) -> list[Move]:
    """Return the steps of one group that save the most for what is lost, each dearer than the one before."""
    lost = np.concatenate([[0.0], np.cumsum([scores[removal.units].sum() for removal in own])])
    moves: list[Move] = []
    here = 0
    while later := [count for count in saved if count > here and saved[count] > saved[here] + _NOTHING]:
        prices = {count: (lost[count] - lost[here]) / (saved[count] - saved[here]) for count in later}
        best = min(later, key=lambda count: (prices[count], -count))
        moves.append(Move(tuple(own[here:best]), saved[best] - saved[here], float(prices[best])))
        here = best
    return moves


class Search:
    """Asks for times of more or less pruned nets, and remembers the answers."""

    def __init__(self, moves: Sequence[Move], measure: Measure, *, begin: float = 1.0) -> None:
        """Begin.

        Args:
            moves: What may go, the first first.
            measure: Asks the engine.
            begin: Time of the net from which nothing has gone yet, as a share of the source's.
        """
        self._moves = tuple(moves)
        self._measure = measure
        self._begin = begin
        self._left = [begin, *(begin - np.cumsum([move.gain for move in moves])).tolist()]
        self._asked: dict[tuple[int, ...], float] = {}

    def run(self, target: float) -> Found:
        """Return what brings the time to a share of the source's, or as near below as widths allow.

        Args:
            target: Above 0, below 1.

        Raises:
            CompressError: The time remains longer when all goes that may.
        """
        known = {0: self._begin}
        place = min(max(self._nearest(target), 1), len(self._moves))
        while len(known) <= _MOST_ASKED and place not in known:
            known[place] = self._ask(self._chunks(place))
            if abs(known[place] / target - 1.0) <= _ENOUGH:
                break
            place = self._next(known, target)
        enough = [place for place, ratio in known.items() if place and ratio <= target * (1.0 + NEAR)]
        if not enough:
            least = min(known.values())
            raise CompressError(
                f"the time cannot fall to {target:g} of the source's: {least:.2f} is the least while every "
                "layer keeps its share; ask for more time, or lower prune.keep or prune.multiple"
            )
        best = min(enough, key=lambda place: abs(known[place] / target - 1.0))
        found = self._chunks(best)
        if abs(known[best] / target - 1.0) > NEAR:
            found = self._variant(best, known[best], target)
        return Found(found, self._ask(found))

    def _chunks(self, place: int) -> tuple[Removal, ...]:
        """Return what goes with the first moves."""
        return tuple(chunk for move in self._moves[:place] for chunk in move.chunks)

    def _nearest(self, share: float) -> int:
        """Return how many moves promise to leave about a share of the time."""
        return min(range(len(self._left)), key=lambda place: (abs(self._left[place] - share), -place))

    def _next(self, known: dict[int, float], target: float) -> int:
        """Return what to ask next: between the nearest that are known, by a straight line."""
        slow = max(place for place, ratio in known.items() if ratio > target)
        fast = [place for place, ratio in known.items() if ratio <= target and place > slow]
        if not fast:
            if slow == len(self._moves):
                return slow
            kept = (self._begin - known[slow]) / max(self._begin - self._left[slow], 1e-6)
            wanted = self._begin - (self._begin - target) / kept if kept > 0.0 else 0.0
            return max(slow + 1, self._nearest(wanted))
        share = (known[slow] - target) / max(known[slow] - known[min(fast)], 1e-9)
        wanted = self._left[slow] + share * (self._left[min(fast)] - self._left[slow])
        return min(max(self._nearest(wanted), slow + 1), max(min(fast) - 1, slow + 1))

    def _variant(self, place: int, ratio: float, target: float) -> tuple[Removal, ...]:
        """Return the best of what is a little less than enough: one group takes some channels back.

        Args:
            place: So many moves are too much.
            ratio: Their time.
            target: The time that is wanted.
        """
        last = {move.chunks[0].group: move for move in self._moves[:place]}
        backs = [(move, count) for move in last.values() for count in range(1, len(move.chunks) + 1)]
        asked, kept = {self._chunks(place): ratio}, 1.0
        for _ in range(_VARIANTS):
            # What groups save together is less than what each saves alone: ``kept`` of it, as just seen.
            gap = (target - ratio) / kept
            move, count = backs.pop(min(range(len(backs)), key=lambda i: abs(_gain(*backs[i]) - gap)))
            given = {id(chunk) for chunk in move.chunks[-count:]}
            variant = tuple(chunk for chunk in self._chunks(place) if id(chunk) not in given)
            if variant:
                asked[variant] = self._ask(variant)
                kept = min(max((asked[variant] - ratio) / _gain(move, count), 0.2), 2.0)
            if not backs or any(abs(value / target - 1.0) <= NEAR for value in asked.values()):
                break
        fits = {each: value for each, value in asked.items() if value <= target * (1.0 + NEAR)}
        return min(fits, key=lambda each: abs(fits[each] / target - 1.0))

    def _ask(self, taken: Sequence[Removal]) -> float:
        """Return a time; of what was asked before the mean of both."""
        key = tuple(id(chunk) for chunk in taken)
        ratio = self._measure(taken)
        known = self._asked.get(key)
        self._asked[key] = ratio if known is None else (known + ratio) / 2.0
        return self._asked[key]


def _gain(move: Move, count: int) -> float:
    """Return the share of time that the last chunks of a move saved, if all of them saved the same."""
    return move.gain * count / len(move.chunks)
