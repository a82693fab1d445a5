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


class TwoLookPolicy:
    """Looks again at the next larger size, once, where the answer's entropy is above the bound."""

    needs_entropy = True

    def __init__(self, spec: PolicySpec, stream: bool) -> None:
        self._spec = spec
        self._entropy = EntropyPolicy(spec, stream)

    def first(self, bits: float | None) -> int:
        """Return the size for an image entropy."""
        return self._entropy.first(bits)

    def next(self, size: int, result: Result) -> int | None:
        """Return the next larger size if the first answer was uncertain.

        Raises:
            RecipeError: If the output's activation is ``none``: it has no certainty.
        """
        uncertain_bits = result.answer_entropy_bits
        if uncertain_bits is None:
            raise RecipeError(NO_CERTAINTY)
        if len(result.looks) > 1 or uncertain_bits <= self._spec.second_look_bits:
            return None
        larger = [side for side in self._spec.sizes if side > size]
        return larger[0] if larger else None
