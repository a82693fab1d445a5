"""What a recipe asks of the compress stages: on which images they train, and what they changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_evidence import labelled_photos
from boardfit.converters.recipe import Recipe
from boardfit.converters.recipe_train import FEWEST_TO_TRAIN, DistillSection
from boardfit.converters.samples import choose_images
from boardfit.converters.verify import run_reference, top1
from boardfit.errors import CompressError, InputError, RecipeError

if TYPE_CHECKING:
    from boardfit.converters.compress.images import ImageSet
    from boardfit.converters.compress.stage import Stage
    from boardfit.converters.compress.train import Moment, Training

Watch = Callable[["Moment"], None]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Image files to train on, and the class index of each, or None."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What compressing changed at one size: answers that agree with the source's at the largest size.

    Attributes:
        size: Input side in pixels.
        images: How many were compared.
        before: Share of images on which the source at this size agrees, in per cent.
        after: The same of the compressed model.
    """

    size: int
    images: int
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)


def choose_training_images(recipe: Recipe, model: TrainedModel) -> TrainingImages | None:
    """Return the images of ``distill``; None where the recipe trains nothing.

    Raises:
        InputError: No folder, or too few images in it.
        RecipeError: The table of labels cannot be used, or a label is no class of the model.
    """
    wanted = recipe.distill
    if not wanted.folder:
        return None
    if wanted.labels:
        photos = labelled_photos(wanted.labels, wanted.folder)
        classes = model.outputs[0].shape[-1] or 0
        wrong = [photo for photo in photos if not 0 <= (photo.label or 0) < classes]
        if wrong:
            raise RecipeError(
                f"{wrong[0].path} has the label {wrong[0].label}, but the model answers {classes} classes, "
                "counted from 0: correct distill.labels"
            )
        # Tables are often sorted by class: the first ones would leave classes out.
        count = min(wanted.limit, len(photos))
        photos = [photos[i * len(photos) // count] for i in range(count)]
        found = TrainingImages(
            paths=tuple(photo.path for photo in photos), labels=tuple(photo.label or 0 for photo in photos)
        )
    else:
        found = TrainingImages(paths=tuple(choose_images(wanted.folder, wanted.limit)))
    if len(found.paths) < max(FEWEST_TO_TRAIN, wanted.batch):
        raise InputError(
            f"{wanted.folder} has {len(found.paths)} images to train on: expected at least "
            f"{FEWEST_TO_TRAIN}, and a batch ({wanted.batch}); thousands are better"
        )
    return found


def require_stages(recipe: Recipe, model: TrainedModel, images: TrainingImages | None) -> None:
    """Ask every stage whether it can work on the model, before anything long.

    Args:
        recipe: What is asked for.
        model: The source.
        images: What would be trained on; None where nothing is.

    Raises:
        CompressError: One cannot, or its settings make no sense.
    """
    if images is not None:
        for stage in _stages(recipe, model, images=images, training=_training(recipe.distill)):
            stage.requires(model)


def compress(
    recipe: Recipe,
    model: TrainedModel,
    images: TrainingImages,
    *,
    folder: Path,
    resume: bool = False,
    watch: Watch = lambda _: None,
    progress: Progress = lambda _: None,
) -> TrainedModel:
    """Run the stages that the recipe asks for.

    Args:
        recipe: What is asked for.
        model: The source.
        images: What is trained on.
        folder: Where checkpoints go.
        resume: Whether an interrupted training goes on.
        watch: Told after every step how far a training is.
        progress: Told what is being read, and which files were skipped.

    Raises:
        CompressError: A stage cannot work on this model, its training failed, or a checkpoint is in the way.
        InputError: Too few images can be read.
    """
    from boardfit.converters.compress.stage import run_stage

    kept = folder / "elastic"
    if (kept / "checkpoint.npz").exists() and not resume:
        raise CompressError(
            f"{kept} holds a training that was interrupted: add --resume to go on with it, or delete that "
            "folder to begin anew"
        )
    training = replace(_training(recipe.distill), folder=kept, resume=resume, watch=watch)
    for stage in _stages(recipe, model, images=images, training=training, progress=progress):
        progress(f"stage {stage.name}: {training.epochs} epochs on {len(images.paths)} images")
        result = run_stage(stage, model)
        model = replace(result.model, notes=(*result.model.notes, *result.notes))
    return model


def _training(given: DistillSection) -> Training:
    """Return the settings of a training that keeps nothing."""
    from boardfit.converters.compress.images import Augment
    from boardfit.converters.compress.train import Training

    return Training(
        epochs=given.epochs,
        batch=given.batch,
        optimizer=given.optimizer,
        learning_rate=given.learning_rate,
        warm_up=given.warm_up,
        weight_decay=given.weight_decay,
        ema=given.ema,
        augment=Augment(flip=given.flip, shift=given.shift, min_scale=given.min_scale),
        seed=given.seed,
    )


def _stages(
    recipe: Recipe,
    model: TrainedModel,
    *,
    images: TrainingImages,
    training: Training,
    progress: Progress = lambda _: None,
) -> list[Stage]:
    """Return the stages that the recipe asks for, in their order."""
    from boardfit.converters.compress.elastic import Elastic
    from boardfit.converters.compress.elastic_net import ElasticOptions
    from boardfit.converters.compress.images import load_image_set

    def read(side: int) -> ImageSet:
        progress(f"reading {len(images.paths)} images at {side} to train on")
        return load_image_set(
            images.paths, image=model.image, side=side, labels=images.labels, progress=progress
        )

    wanted = recipe.elastic
    if not wanted.enabled:
        return []
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
    labelled = images.labels is not None
    sizes = recipe.export.sizes
    return [Elastic(sizes=sizes, images=read, labelled=labelled, training=training, options=options)]


def effects(
    before: TrainedModel, after: TrainedModel, tensors: Mapping[int, np.ndarray]
) -> tuple[Effect, ...]:
    """Compare source and compressed model with the source at the largest size.

    Args:
        before: The source.
        after: The compressed model.
        tensors: By size, (N, S, S, 3) float32; the same images.
    """
    activation = before.outputs[0].activation
    largest = max(tensors)

    def answers(model: TrainedModel, size: int) -> np.ndarray:
        return np.asarray(top1(run_reference(model.reference, tensors[size])[0], activation))

    right = answers(before, largest)
    return tuple(
        Effect(
            size=size,
            images=len(tensor),
            before=100.0 * float((answers(before, size) == right).mean()),
            after=100.0 * float((answers(after, size) == right).mean()),
        )
        for size, tensor in sorted(tensors.items())
    )


def worse_note(found: Sequence[Effect]) -> str:
    """Return a sentence if training made a size worse, by more than one image in fifty; else nothing."""
    worse = [effect for effect in found if effect.before - effect.after > 2.0]
    if not worse:
        return ""
    sizes = ", ".join(f"{effect.size}: {effect.before:.0f} to {effect.after:.0f} %" for effect in worse)
    return (
        f"training made the model worse ({sizes} of the answers are the source's at its largest size): lower "
        "--learning-rate, give more photographs, or leave --elastic out"
    )


def overlap_note(trained: TrainingImages, fitted_on: Sequence[Path]) -> str:
    """Return a sentence if the policy is fitted on images that were trained on; else nothing."""
    if not fitted_on:
        return ""
    seen = {_sha256(path) for path in trained.paths}
    both = sum(_sha256(path) in seen for path in fitted_on)
    if not both:
        return ""
    return (
        f"{both} of the {len(fitted_on)} images on which the policy is fitted were trained on: the net knows "
        "them better than what a camera will show; give other images with --distill or --images"
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return str(path)
