"""What a recipe asks of quantisation-aware training: on which images, and when the int8 stage may call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.converters.compression import Watch
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.photos import content_sha256
from boardfit.converters.quantize.trained import QatOrder
from boardfit.converters.recipe import Recipe
from boardfit.converters.training_images import TrainingImages
from boardfit.errors import CompressError

if TYPE_CHECKING:
    from boardfit.converters.compress.images import ImageSet
    from boardfit.converters.compress.qat import Qat
    from boardfit.converters.compress.train import Training

Progress = Callable[[str], None]


def require_qat(recipe: Recipe, model: TrainedModel, images: TrainingImages | None) -> None:
    """Ask the stage whether it can work on the model, before anything long, where it runs for certain.

    Raises:
        CompressError: It cannot.
    """
    if images is not None and recipe.qat.when == "always":
        for size in recipe.export.sizes:
            stage = _stage(recipe, model, images, size, _training(recipe), progress=lambda _: None)
            stage.requires(model)


def qat_order(
    recipe: Recipe,
    model: TrainedModel,
    images: TrainingImages | None,
    *,
    folder: Path,
    resume: bool = False,
    watch: Watch = lambda _: None,
    progress: Progress = lambda _: None,
) -> QatOrder | None:
    """Return what the int8 stage trains with; None where it is not to train.

    Args:
        recipe: What is asked for.
        model: What would be trained; one that cannot be is left out, and ``progress`` told why.
        images: What is trained on.
        folder: Where checkpoints go, in a folder for each size.
        resume: Whether an interrupted training goes on.
        watch: Told after every step how far a training is.
        progress: Told what is being done.

    Raises:
        CompressError: A checkpoint is in the way.
    """
    if images is None or not recipe.may_train_int8:
        return None
    _require_free([folder / f"qat-{size}" for size in recipe.export.sizes], resume=resume)
    training = _training(recipe)
    try:
        for size in recipe.export.sizes:
            _stage(recipe, model, images, size, training, progress).requires(model)
    except CompressError as error:
        progress(f"int8 goes without training: {error}")
        return None

    def train(model: TrainedModel, size: int) -> TrainedModel:
        from boardfit.converters.compress.stage import run_stage

        kept = replace(training, folder=folder / f"qat-{size}", resume=True, watch=watch)
        stage = _stage(recipe, model, images, size, kept, progress)
        progress(f"stage qat at {size}: {kept.epochs} epochs on {len(images.paths)} images")
        result = run_stage(stage, model)
        for note in result.notes:
            progress(note)
        return result.model

    about = {
        **asdict(recipe.qat),
        "training": training.settings(),
        "images": [content_sha256(path) for path in images.paths],
        "labels": images.labels,
    }
    return QatOrder(always=recipe.qat.when == "always", train=train, about=about)


def _require_free(folders: Sequence[Path], *, resume: bool) -> None:
    held = [folder for folder in folders if (folder / "checkpoint.npz").exists()]
    if held and not resume:
        raise CompressError(
            f"{held[0]} holds a training that was interrupted: add --resume to go on with it, or delete that "
            "folder to begin anew"
        )


def _training(recipe: Recipe) -> Training:
    """Return the settings of a training that keeps nothing."""
    from boardfit.converters.compress.images import Augment
    from boardfit.converters.compress.train import Training

    given = recipe.distill
    return Training(
        epochs=recipe.qat.epochs or given.epochs,
        batch=given.batch,
        optimizer=given.optimizer,
        learning_rate=recipe.qat.learning_rate,
        warm_up=given.warm_up,
        weight_decay=given.weight_decay,
        ema=given.ema,
        augment=Augment(flip=given.flip, shift=given.shift, min_scale=given.min_scale),
        seed=given.seed,
    )


def _stage(
    recipe: Recipe,
    model: TrainedModel,
    images: TrainingImages,
    size: int,
    training: Training,
    progress: Progress,
) -> Qat:
    from boardfit.converters.compress.images import load_image_set
    from boardfit.converters.compress.qat import Qat
    from boardfit.converters.compress.qat_net import QatOptions

    def read(side: int) -> ImageSet:
        progress(f"reading {len(images.paths)} images at {side} to train on")
        return load_image_set(
            images.paths, image=model.image, side=side, labels=images.labels, progress=progress
        )

    wanted = recipe.qat
    options = QatOptions(
        labels=wanted.label_weight, teacher=wanted.teacher_weight, temperature=wanted.temperature
    )
    return Qat(size=size, images=read, labelled=images.labels is not None, training=training, options=options)
