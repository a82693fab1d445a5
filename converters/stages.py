"""The compress stages that a recipe asks for, in their order: prune, distill, make elastic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe import Recipe
from boardfit.converters.training_images import TrainingImages

if TYPE_CHECKING:
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
        progress: Told what is being read, and which files were skipped.
    """

    folder: Path | None = None
    resume: bool = False
    watch: Callable[[Any], None] = lambda _: None
    progress: Callable[[str], None] = lambda _: None


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
    found: list[Stage] = []
    if images is None:
        return found
    read = _reader(model, images, place)
    labelled = images.labels is not None
    if recipe.distills:
        found.append(_distill(recipe, teacher or model, read=read, labelled=labelled, place=place))
    if recipe.elastic.enabled:
        found.append(_elastic(recipe, read=read, labelled=labelled, place=place))
    return found


def _distill(
    recipe: Recipe,
    teacher: TrainedModel,
    *,
    read: Callable[[int], ImageSet],
    labelled: bool,
    place: Workplace,
) -> Stage:
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
        training=_training(recipe, "distill", rate, place),
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
        training=_training(recipe, "elastic", rate, place),
        options=options,
    )


def _training(recipe: Recipe, name: str, learning_rate: float, place: Workplace) -> Training:
    """Return the settings of a stage's training."""
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
        folder=place.folder / name if place.folder else None,
        resume=place.resume,
        watch=place.watch,
    )


def _reader(model: TrainedModel, images: TrainingImages, place: Workplace) -> Callable[[int], ImageSet]:
    """Return what decodes the images at a side; those of the last side are kept for the next stage."""
    from boardfit.converters.compress.images import load_image_set

    kept: dict[int, ImageSet] = {}

    def read(side: int) -> ImageSet:
        if side not in kept:
            kept.clear()
            place.progress(f"reading {len(images.paths)} images at {side} to train on")
            kept[side] = load_image_set(
                images.paths, image=model.image, side=side, labels=images.labels, progress=place.progress
            )
        return kept[side]

    return read
