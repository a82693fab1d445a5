"""The image's entropy chooses the first look; an answer in doubt asks for a larger one, at most twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from boardfit.errors import RecipeError
from boardfit.runtime.policy.entropy import EntropyPolicy
from boardfit.runtime.results import Result
from boardfit.specs import PolicySpec

NO_CERTAINTY = (
    "the two-look policy judges an answer by its probabilities, but this model's output is "
    "declared with the activation 'none': use the policy 'entropy' or 'fixed'"
)

STAY_FRAMES = 100
"""In a stream, so many frames go straight to the larger size after a small look was not enough."""

OTHER_SCENE = 0.5
"""In a stream, the share of an answer's probability that must have moved to other classes."""


class TwoLookPolicy:
    """Looks again at a larger size where the two best classes contend; a spec may allow a third look.

    In a stream, a scene that needed a larger size gets it at once in the frames that follow: that
    spares the small look, and the size does not flap. The small one is tried again after STAY_FRAMES, or
    when the larger one answers otherwise than when that began, and its doubt must then lie below the bound
    by more than ``hysteresis_bits`` (by half of the bound, where that is less). So a stream needs the
    image entropy only where the thresholds do.
    """

    def __init__(self, spec: PolicySpec, stream: bool) -> None:
        self._spec = spec
        self._stream = stream
        self._entropy = EntropyPolicy(spec, stream)
        self._stay = _NONE

    @property
    def needs_entropy(self) -> bool:
        """Whether the thresholds want the next frame's entropy."""
        return self._entropy.needs_entropy

    def first(self, bits: float | None) -> int:
        """Return the size for an image entropy, or the larger one that the scene has needed."""
        size = self._entropy.first(bits)
        stay = self._stay
        if stay.frames == 0 or size >= stay.size:
            return size
        self._stay = replace(stay, frames=stay.frames - 1)
        return stay.size

    def next(self, size: int, result: Result) -> int | None:
        """Return the larger size if the answer is in doubt.

        Raises:
            RecipeError: If the output's activation is ``none``: it has no certainty.
        """
        begins = len(result.looks) == 1
        if len(result.looks) > len(self._spec.look_bits):
            return None
        if begins and size == self._stay.size:
            self._compare(result.scores)
        doubt_bits = result.doubt_bits
        if doubt_bits is None:
            raise RecipeError(NO_CERTAINTY)
        larger = self._larger(size)
        if larger is None:
            return None
        bound = self._spec.look_bits[len(result.looks) - 1]
        comes_back = begins and size < self._stay.size
        if comes_back:
            bound = max(bound - self._spec.hysteresis_bits, bound / 2)
        if doubt_bits <= bound:
            self._stay = _NONE if comes_back else self._stay
            return None
        if self._stream:
            self._stay = _Stay(size=larger, frames=STAY_FRAMES)
        return larger

    def _larger(self, size: int) -> int | None:
        if self._spec.second_size is not None:
            return self._spec.second_size if self._spec.second_size > size else None
        return next((side for side in self._spec.sizes if side > size), None)

    def _compare(self, scores: np.ndarray) -> None:
        """Remember the larger size's first answer to a scene; end the stay where a later one is another."""
        if self._stay.scores is None:
            self._stay = replace(self._stay, scores=scores)
        elif moved_probability(self._stay.scores, scores) > OTHER_SCENE:
            self._stay = replace(self._stay, frames=0)


def moved_probability(before: np.ndarray, after: np.ndarray) -> float:
    """Return which share of the probability stands elsewhere in another answer: 0.0 where they are equal.

    The total variation distance; scores of sigmoids, which need not sum to one, count by their sum.

    Args:
        before: (C,) scores, none negative.
        after: (C,) scores, likewise.
    """
    return float(np.abs(after - before).sum() / max(float(before.sum() + after.sum()), 1e-30))


@dataclass(frozen=True, slots=True, eq=False)
class _Stay:
    """A scene's larger size, for how many more frames, and its first answer there."""

    size: int
    frames: int
    scores: np.ndarray | None = None


_NONE = _Stay(size=0, frames=0)
