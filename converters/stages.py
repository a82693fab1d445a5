"""The compress stages that a recipe asks for, in their order: prune, distill, sparsify, make elastic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.converters.kept import begun_with, fingerprint
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe import Recipe
from boardfit.converters.training_images import TrainingImages, read_training_images

if TYPE_CHECKING:
    from boardfit.converters.compress.distill import Distill
    from boardfit.converters.compress.images import ImageSet
    from boardfit.converters.compress.stage import Stage
    from boardfit.converters.compress.train import Training


@dataclass(frozen=True, slots=True, eq=False)
class Workplace:
    """Where stages keep what they began, and whom they tell.

    Attributes:
        folder: Of all stages; each has a folder of its own in it. None where nothing is run.
        resume: Whether what was interrupted goes on.
        watch: Told after every step how far a training is.
        progress: Told what is being done, and which files were skipped.
    """

    folder: Path | None = None
    resume: bool = False
    watch: Callable[[Any], None] = lambda _: None
    progress: Callable[[str], None] = lambda _: None

    def settle(self, training: Training, name: str) -> Training:
        """Return a stage's training with a folder of this place's, and with those who are told."""
        folder = self.folder / name if self.folder else None
        return replace(training, folder=folder, resume=self.resume, watch=self.watch)


def stages_of(
    recipe: Recipe,
    model: TrainedModel,
    *,
    images: TrainingImages | None,
    teacher: TrainedModel | None = None,
    place: Workplace | None = None,
) -> list[Stage]:
    """Return the stages that the recipe asks for, in their order.

    Args:
        recipe: What is asked for.
        model: The source, which teaches where ``teacher`` is None.
        images: What is trained on; None where nothing is.
        teacher: Who teaches instead of the source.
        place: Where they work; None to ask them only whether they could.

    Raises:
        CompressError: Settings make no sense.
    """
    place = place or Workplace()
    read = None if images is None else _reader(model, images, place)
    labelled = images is not None and images.labels is not None
    found: list[Stage] = []
    distill = None
    if read is not None and recipe.distills:
        distill = _distill(recipe, teacher or model, read=read, labelled=labelled, place=place)
    if recipe.prune.structured:
        steps = recipe.prune.steps
        between = None
        if distill is not None and steps > 1:
            taught = [teacher] if teacher else []
            about = fingerprint(recipe.stage_tables("prune"), images, [model, *taught])
            between = Recovery(distill, place, belongs_to=about)
        found.append(_prune(recipe, read=read, recover=between, progress=place.progress))
        if distill is not None and between is not None:
            distill = replace(distill, training=between.last(steps))
    if distill is not None:
        found.append(distill)
    if recipe.prune.sparsity:
        found.append(_sparsify(recipe))
    if read is not None and recipe.elastic.enabled:
        found.append(_elastic(recipe, read=read, labelled=labelled, place=place))
    return found


class Recovery:
    """Trains a net between the steps of pruning; the epochs are those of distilling, shared out.

    What a step began with is kept: measured times differ when they are measured again, and a net that was
    trained in part would not be found again.
    """

    def __init__(self, stage: Distill, place: Workplace, *, belongs_to: str) -> None:
        """Remember how to train.

        Args:
            stage: Distilling, as it would be after all steps.
            place: Where each step has a folder of its own.
            belongs_to: What the net after a step hangs on.
        """
        self._belongs_to = belongs_to
        self._stage = stage
        self._place = place

    def __call__(self, model: TrainedModel, step: int, steps: int) -> TrainedModel:
        """Return a model trained for its share of the epochs.

        Args:
            model: What the step left.
            step: Counted from 1.
            steps: How many there are.
        """
        training = replace(self._stage.training, epochs=self._between(steps))
        if self._place.folder is not None:
            folder = self._place.folder / "prune" / f"step-{step}"
            training = replace(training, folder=folder)
            model = begun_with(folder, model, resume=self._place.resume, belongs_to=self._belongs_to)
        self._place.progress(f"recovering from step {step} of {steps}: {training.epochs} epochs")
        return replace(self._stage, training=training)(model).model

    def last(self, steps: int) -> Training:
        """Return the training after the last step: what the others leave of the epochs."""
        training = self._stage.training
        left = training.epochs - (steps - 1) * self._between(steps)
        return replace(training, epochs=max(1, left))

    def _between(self, steps: int) -> int:
        return max(1, self._stage.training.epochs // (2 * steps))


def _prune(
    recipe: Recipe,
    *,
    read: Callable[[int], ImageSet] | None,
    recover: Recovery | None,
    progress: Callable[[str], None],
) -> Stage:
    from boardfit.converters.compress.prune import Prune
    from boardfit.converters.compress.prune_time import EngineClock

    side, clock = recipe.export.sizes[-1], None
    if recipe.prune.time:
        clock = EngineClock(engine=recipe.prune.engine, side=side)
        clock.require()
    return Prune(recipe.prune, side, images=read, clock=clock, recover=recover, progress=progress)


def _sparsify(recipe: Recipe) -> Stage:
    from boardfit.converters.compress.sparsify import Sparsify

    return Sparsify(share=recipe.prune.sparsity)


def _distill(
    recipe: Recipe,
    teacher: TrainedModel,
    *,
    read: Callable[[int], ImageSet],
    labelled: bool,
    place: Workplace,
) -> Distill:
    from boardfit.converters.compress.distill import Distill
    from boardfit.converters.compress.distill_net import DistillOptions

    wanted = recipe.distill
    options = DistillOptions(
        teacher=wanted.teacher_weight,
        temperature=wanted.temperature,
        labels=wanted.label_weight,
        hint=wanted.hint_weight,
        contrast=wanted.contrast_weight,
        contrast_temperature=wanted.contrast_temperature,
        decouple=wanted.decouple_weight,
        groups=wanted.decouple_groups,
        norms=wanted.norms,
    )
    rate = wanted.rate_of(kernels="trained", norms=wanted.norms)
    return Distill(
        size=recipe.export.sizes[-1],
        images=read,
        labelled=labelled,
        training=place.settle(training_of(recipe, learning_rate=rate), "distill"),
        options=options,
        teacher=teacher,
    )


def _elastic(recipe: Recipe, *, read: Callable[[int], ImageSet], labelled: bool, place: Workplace) -> Stage:
    from boardfit.converters.compress.elastic import Elastic
    from boardfit.converters.compress.elastic_net import ElasticOptions

    wanted = recipe.elastic
    first, second, third = wanted.shares
    options = ElasticOptions(
        shares=(first, second, third),
        labels=wanted.label_weight,
        teacher=wanted.teacher_weight,
        hint=wanted.hint_weight,
        temperature=wanted.temperature,
        norms=wanted.norms,
        kernels=wanted.kernels,
    )
    rate = recipe.distill.rate_of(kernels=wanted.kernels, norms=wanted.norms)
    return Elastic(
        sizes=recipe.export.sizes,
        images=read,
        labelled=labelled,
        training=place.settle(training_of(recipe, learning_rate=rate), "elastic"),
        options=options,
    )


def training_of(recipe: Recipe, *, learning_rate: float) -> Training:
    """Return the settings of a training as ``distill`` gives them; it keeps nothing, and tells nobody.

    Args:
        recipe: What is asked for.
        learning_rate: The peak, which depends on the stage.
    """
    from boardfit.converters.compress.images import Augment
    from boardfit.converters.compress.train import Training

    given = recipe.distill
    return Training(
        epochs=given.epochs,
        batch=given.batch,
        accumulate=given.accumulate,
        optimizer=given.optimizer,
        learning_rate=learning_rate,
        warm_up=given.warm_up,
        weight_decay=given.weight_decay,
        ema=given.ema,
        augment=Augment(flip=given.flip, shift=given.shift, min_scale=given.min_scale),
        numbers=given.numbers,
        recompute=given.recompute,
        seed=given.seed,
    )


def _reader(model: TrainedModel, images: TrainingImages, place: Workplace) -> Callable[[int], ImageSet]:
    """Return what decodes the images at a side; those of the last side are kept for the next stage."""
    kept: dict[int, ImageSet] = {}

    def read(side: int) -> ImageSet:
        if side not in kept:
            kept.clear()
            kept[side] = read_training_images(images, model.image, side=side, progress=place.progress)
        return kept[side]

    return read
