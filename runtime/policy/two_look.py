"""The image's entropy chooses the first look; an uncertain answer asks for a larger second one."""

from __future__ import annotations

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
    when the answer changes, and must then be certain by ``hysteresis_bits``.
    """

    def __init__(self, spec: PolicySpec, stream: bool) -> None:
        self._spec = spec
        self._stream = stream
        self._entropy = EntropyPolicy(spec, stream)
        self.needs_entropy = spec.needs_entropy
        self._stay = 0
        self._large: int | None = None
        self._answer: int | None = None

    def first(self, bits: float | None) -> int:
        """Return the size for an image entropy, or the larger one that the scene has needed."""
        size = self._entropy.first(bits)
        if self._large is None or self._stay == 0 or size >= self._large:
            return size
        self._stay -= 1
        return self._large

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
            self._remember(result)
            return None
        bound = self._spec.second_look_bits - (self._spec.hysteresis_bits if self._large else 0.0)
        if uncertain_bits <= bound:
            self._large = None
            return None
        if self._stream:
            self._large, self._stay = larger, STAY_FRAMES
        return larger

    def _larger(self, size: int) -> int | None:
        if self._spec.second_size is not None:
            return self._spec.second_size if self._spec.second_size > size else None
        return next((side for side in self._spec.sizes if side > size), None)

    def _remember(self, result: Result) -> None:
        """Note the answer at the larger size; another answer than before ends the stay."""
        if self._large is None:
            return
        answer = int(result.scores.argmax())
        if self._answer is not None and answer != self._answer:
            self._stay = 0
        self._answer = answer
