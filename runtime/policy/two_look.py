"""The image's entropy chooses the first look; an uncertain answer asks for a larger second one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from boardfit.errors import RecipeError
from boardfit.runtime.policy.entropy import EntropyPolicy
from boardfit.runtime.results import Result
from boardfit.specs import PolicySpec

NO_CERTAINTY = (
    "the two-look policy judges an answer by the entropy of its probabilities, but this model's output is "
    "declared with the activation 'none': use the policy 'entropy' or 'fixed'"
)

STAY_FRAMES = 100
"""In a stream, so many frames go straight to the larger size after a small look was not enough."""


class TwoLookPolicy:
    """Looks again, once, at a larger size where the answer's entropy is above the bound.

    In a stream, a scene that needed the larger size gets it at once in the frames that follow: that
    spares the small look, and the size does not flap. The small one is tried again after STAY_FRAMES, or
    when the image entropy has moved by more than ``hysteresis_bits``, and must then be certain by as much.
    """

    def __init__(self, spec: PolicySpec, stream: bool) -> None:
        self.needs_entropy = spec.needs_entropy or stream
        self._spec = spec
        self._stream = stream
        self._entropy = EntropyPolicy(spec, stream)
        self._bits: float | None = None
        self._stay = _NONE

    def first(self, bits: float | None) -> int:
        """Return the size for an image entropy, or the larger one that the scene has needed."""
        size = self._entropy.first(bits)
        self._bits = bits
        stay = self._stay
        if stay.frames == 0 or size >= stay.size or self._has_moved(stay, bits):
            return size
        self._stay = replace(stay, frames=stay.frames - 1)
        return stay.size

    def next(self, size: int, result: Result) -> int | None:
        """Return the larger size if the first answer was uncertain.

        Raises:
            RecipeError: If the output's activation is ``none``: it has no certainty.
        """
        uncertain_bits = result.answer_entropy_bits
        if uncertain_bits is None:
            raise RecipeError(NO_CERTAINTY)
        larger = self._larger(size)
        if len(result.looks) > 1 or larger is None:
            return None
        stayed = self._stay is not _NONE
        if uncertain_bits <= self._spec.second_look_bits - stayed * self._spec.hysteresis_bits:
            self._stay = _NONE
            return None
        if self._stream:
            self._stay = _Stay(size=larger, frames=STAY_FRAMES, bits=self._bits)
        return larger

    def _larger(self, size: int) -> int | None:
        if self._spec.second_size is not None:
            return self._spec.second_size if self._spec.second_size > size else None
        return next((side for side in self._spec.sizes if side > size), None)

    def _has_moved(self, stay: _Stay, bits: float | None) -> bool:
        moved_bits = 0.0 if bits is None or stay.bits is None else abs(bits - stay.bits)
        return moved_bits > self._spec.hysteresis_bits


@dataclass(frozen=True, slots=True)
class _Stay:
    """A scene's larger size, for how many more frames, and the image entropy when that began."""

    size: int
    frames: int
    bits: float | None


_NONE = _Stay(size=0, frames=0, bits=None)
