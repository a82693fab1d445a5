"""How much of a net must go for a measured time: the engine is asked, since multiplications are not time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boardfit.converters.compress.allocate import Removal
from boardfit.converters.compress.groups import Cost, Structure
from boardfit.errors import CompressError

NEAR = 0.03
"""A time is met if it is off by no more than this share of it."""
_ENOUGH = 0.01
_MOST_ASKED = 10
_VARIANTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What meets a time.

    Attributes:
        taken: What goes.
        ratio: Time that remains, as a share of the source's.
        asked: How many nets were timed.
    """

    taken: tuple[Removal, ...]
    ratio: float
    asked: int

    def is_near(self, target: float) -> bool:
        """Return whether a time is met."""
        return abs(self.ratio / target - 1.0) <= NEAR


class Search:
    """Asks for times of more or less pruned nets, and remembers the answers."""

    def __init__(
        self,
        structure: Structure,
        order: Sequence[Removal],
        measure: Callable[[Sequence[Removal]], float],
    ) -> None:
        """Begin.

        Args:
            structure: Of the net.
            order: What may go, the first first.
            measure: Returns the time of a net without some channels, as a share of the source's.
        """
        self._order = tuple(order)
        self._measure = measure
        cost = Cost(structure, structure.macs)
        self._left = [1.0]
        for removal in self._order:
            cost.take(removal.units)
            self._left.append(cost.now / cost.total)
        self._structure = structure
        self._asked: dict[tuple[int, ...], float] = {}

    def run(self, target: float) -> Found:
        """Return what brings the time to a share of the source's, or as near below as widths allow.

        Args:
            target: Above 0, below 1.

        Raises:
            CompressError: The time remains longer when all goes that may.
        """
        known = {0: 1.0}
        place = self._nearest(target)
        while len(known) <= _MOST_ASKED and place not in known:
            known[place] = self._ask(self._order[:place])
            if abs(known[place] / target - 1.0) <= _ENOUGH:
                break
            place = self._next(known, target)
        enough = [place for place, ratio in known.items() if ratio <= target * (1.0 + NEAR)]
        if not enough:
            least = min(known.values())
            raise CompressError(
                f"the time cannot fall to {target:g} of the source's: {least:.2f} is the least while every "
                "layer keeps its share; ask for more time, or lower prune.keep or prune.multiple"
            )
        best = min(known, key=lambda place: abs(known[place] / target - 1.0))
        found = self._order[:best]
        if abs(known[best] / target - 1.0) > NEAR:
            found = self._variant(min(enough), known, target)
        return Found(found, self._ask(found), len(self._asked))

    def _nearest(self, share: float) -> int:
        """Return how many go until about a share of the multiplications remains."""
        return min(range(1, len(self._left)), key=lambda place: abs(self._left[place] - share))

    def _next(self, known: dict[int, float], target: float) -> int:
        """Return what to ask next: between the nearest that are known, by a straight line."""
        slow = max(place for place, ratio in known.items() if ratio > target)
        fast = [place for place, ratio in known.items() if ratio <= target and place > slow]
        if not fast:
            if slow == len(self._order):
                return slow
            gain = (1.0 - known[slow]) / max(1.0 - self._left[slow], 1e-6)
            wanted = 1.0 - (1.0 - target) / gain if gain > 0.0 else 0.0
            return max(slow + 1, self._nearest(wanted))
        share = (known[slow] - target) / max(known[slow] - known[min(fast)], 1e-9)
        wanted = self._left[slow] + share * (self._left[min(fast)] - self._left[slow])
        return min(max(self._nearest(wanted), slow + 1), max(min(fast) - 1, slow + 1))

    def _variant(self, place: int, known: dict[int, float], target: float) -> tuple[Removal, ...]:
        """Return the best of what is a little less than enough: one layer takes its last channels back."""
        taken, ratio = self._order[:place], known[place]
        pace = (1.0 - ratio) / max(1.0 - self._left[place], 1e-6)
        last = {removal.group: index for index, removal in enumerate(taken)}
        variants = [tuple(r for i, r in enumerate(taken) if i != index) for index in last.values()]

        def promised(variant: Sequence[Removal]) -> float:
            cost = Cost(self._structure, self._structure.macs)
            for removal in variant:
                cost.take(removal.units)
            return abs(ratio + pace * (cost.now / cost.total - self._left[place]) - target)

        asked = {variant: self._ask(variant) for variant in sorted(variants, key=promised)[:_VARIANTS]}
        asked[taken] = ratio
        fits = {each: value for each, value in asked.items() if value <= target * (1.0 + NEAR)}
        return min(fits, key=lambda each: abs(fits[each] / target - 1.0))

    def _ask(self, taken: Sequence[Removal]) -> float:
        """Return a time; of what was asked before the mean of both."""
        key = tuple(id(removal) for removal in taken)
        ratio = self._measure(taken)
        known = self._asked.get(key)
        self._asked[key] = ratio if known is None else (known + ratio) / 2.0
        return self._asked[key]
