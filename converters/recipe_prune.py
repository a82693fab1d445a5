"""The recipe's section of pruning: how much goes, and by what it is chosen."""

from __future__ import annotations

from dataclasses import dataclass

from boardfit.converters.recipe_checks import check_choices, check_types
from boardfit.errors import RecipeError

CRITERIA = ("auto", "l1", "l2", "bn", "taylor", "random")


@dataclass(frozen=True, slots=True)
class PruneSection:
    """How much of a net is taken away. Of ``macs``, ``parameters`` and ``time`` one at most is given.

    Attributes:
        macs: Share of the multiplications to take away, 0.4 for 40 %; 0 for none.
        parameters: The same of the numbers that the net holds.
        time: Share of the time on ``engine`` that may remain, 0.7 for 70 %; 0 where time is no goal.
        engine: Whose time is measured on this machine, on one thread at the largest size: ``litert``,
            ``onnxruntime`` or ``ncnn``.
        criterion: What tells channels that matter: ``l1`` or ``l2`` norm of their weights, ``bn`` for the
            scale of batch normalisation, ``taylor`` for what the answer loses on photographs, those of
            ``distill`` or else of ``images``, ``random`` for none, ``auto`` for ``taylor``, or ``l2`` for a
            net that takes more than an image.
        multiple: Widths stay multiples of this, where they were.
        keep: Smallest share of a layer's channels that stays.
        steps: How many times a part is taken away; the net recovers after each where it is distilled.
        repair: Whether layers behind channels that went are fitted anew, on the photographs, to what they
            gave before; where none can be, batch normalisation takes its statistics anew.
        images: At most so many photographs for ``taylor`` and for ``repair``, which takes fewer where their
            activations would fill more than 3 GiB.
        sparsity: Share of the kernels' smallest weights that become 0. The file is as large and as slow as
            before; only a compressed copy of it gets smaller.
        seed: Of ``random``.
    """

    macs: float = 0.0
    parameters: float = 0.0
    time: float = 0.0
    engine: str = "litert"
    criterion: str = "auto"
    multiple: int = 8
    keep: float = 0.25
    steps: int = 1
    repair: bool = True
    images: int = 512
    sparsity: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "prune")
        check_choices((self.criterion,), CRITERIA, "prune.criterion")
        for name in ("macs", "parameters", "time", "sparsity"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise RecipeError(f"prune.{name} is {getattr(self, name):g}: expected 0 to below 1")
        given = [name for name in ("macs", "parameters", "time") if getattr(self, name)]
        if len(given) > 1:
            raise RecipeError(f"prune.{given[0]} and prune.{given[1]} are both given: choose one goal")
        for name in ("multiple", "steps", "images"):
            if getattr(self, name) < 1:
                raise RecipeError(f"prune.{name} is {getattr(self, name)}: expected at least 1")
        if not 0.0 <= self.keep <= 1.0:
            raise RecipeError(f"prune.keep is {self.keep:g}: expected 0 to 1")

    @property
    def structured(self) -> bool:
        """Whether whole channels go."""
        return bool(self.macs or self.parameters or self.time)
