"""The recipe's section of quantisation-aware training."""

from __future__ import annotations

from dataclasses import dataclass

from boardfit.converters.recipe_checks import check_choices, check_types
from boardfit.errors import RecipeError

QAT_WHEN = ("needed", "always", "never")


@dataclass(frozen=True, slots=True)
class QatSection:
    """When a net is trained in simulated int8, and how; the rest of its training is that of ``distill``.

    Integers are simulated in float32, and by layers: ``distill.numbers`` and ``distill.recompute`` are for
    the stages before.

    Attributes:
        when: ``needed``: where the gate is not met without, and ``distill.folder`` has photographs to train
            on. ``always``: before anything else is tried. ``never``.
        epochs: How often every image is seen; 0 for ``distill.epochs``.
        learning_rate: The peak, after warm-up.
        label_weight: Of the cross entropy with labels, where there are some.
        teacher_weight: Of the divergence from the float net's answer.
        temperature: Of softened answers.
    """

    when: str = "needed"
    epochs: int = 0
    learning_rate: float = 1e-4
    label_weight: float = 1.0
    teacher_weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_types(self, "qat")
        check_choices((self.when,), QAT_WHEN, "qat.when")
        if self.epochs < 0:
            raise RecipeError(f"qat.epochs is {self.epochs}: expected 0 (as many as distill.epochs) or more")
        if not self.learning_rate > 0.0:
            raise RecipeError(f"qat.learning_rate is {self.learning_rate:g}: expected above 0")
        for name in ("label_weight", "teacher_weight"):
            if getattr(self, name) < 0.0:
                raise RecipeError(f"qat.{name} is {getattr(self, name):g}: expected 0 or more")
        if self.temperature < 1.0:
            raise RecipeError(f"qat.temperature is {self.temperature:g}: expected at least 1")
