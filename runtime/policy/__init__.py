"""Size policies: which input side a frame gets. Found through the entry points ``boardfit.policies``."""

from __future__ import annotations

from typing import Protocol

from boardfit.errors import RecipeError
from boardfit.runtime.results import Result
from boardfit.specs import PolicySpec


class Policy(Protocol):
    """One rule. Its class is made with ``(spec, stream)``.

    A policy may remember earlier frames only where ``stream`` is true: answers to unrelated images must
    not depend on their order.
    """

    @property
    def needs_entropy(self) -> bool:
        """Whether ``first`` wants the entropy of the next image."""
        ...

    def first(self, bits: float | None) -> int:
        """Return the side in pixels of the first look.

        Args:
            bits: Image entropy, or None where ``needs_entropy`` is false.
        """
        ...

    def next(self, size: int, result: Result) -> int | None:
        """Return the side of a further look, or None if the answer stands.

        Args:
            size: Side of the look that was just made.
            result: Its answer; ``result.looks`` are the sides of all looks so far.
        """
        ...


def make_policy(spec: PolicySpec, stream: bool = False) -> Policy:
    """Make the policy that a spec names.

    Args:
        spec: Kind, sizes and thresholds.
        stream: Whether the frames follow each other in time.

    Raises:
        RecipeError: If no installed policy has this name.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group="boardfit.policies"):
        if point.name == spec.kind:
            policy: Policy = point.load()(spec, stream)
            return policy
    names = sorted({point.name for point in entry_points(group="boardfit.policies")})
    raise RecipeError(f"there is no policy {spec.kind!r}: expected one of {', '.join(names)}")
