"""The contract of a compress stage: requires, call, ensures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from boardfit.converters.model import TrainedModel


@dataclass(frozen=True, slots=True, eq=False)
class StageResult:
    """What a stage made.

    Attributes:
        model: The changed model.
        notes: Sentences for the report: what was done, what was skipped and why.
    """

    model: TrainedModel
    notes: tuple[str, ...] = ()


class Stage(Protocol):
    """One way to change a model."""

    @property
    def name(self) -> str:
        """Short name, for progress and errors."""

    def requires(self, model: TrainedModel) -> None:
        """Raise CompressError where the stage cannot work on a model. Cheap: called before anything long."""

    def __call__(self, model: TrainedModel) -> StageResult:
        """Return the changed model; the given one stays as it is."""

    def ensures(self, before: TrainedModel, after: TrainedModel) -> None:
        """Raise CompressError unless the stage kept its promise."""


def run_stage(stage: Stage, model: TrainedModel) -> StageResult:
    """Run one stage with its checks before and after.

    Raises:
        CompressError: The stage cannot work on the model, or did not keep its promise.
    """
    stage.requires(model)
    result = stage(model)
    stage.ensures(model, result.model)
    return result
