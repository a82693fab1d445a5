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
from boardfit.converters.stages import training_of
from boardfit.converters.training_images import TrainingImages, read_training_images
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
) -> tuple[QatOrder | None, tuple[str, ...]]:
    """Return what the int8 stage trains with, and notes for the report; None where it is not to train.

    Args:
        recipe: What is asked for.
        model: What would be trained; one that cannot be is left out, and a note says why.
        images: What is trained on.
        folder: Where checkpoints go, in a folder for each size.
        resume: Whether an interrupted training goes on.
        watch: Told after every step how far a training is.
        progress: Told what is being done.

    Raises:
        CompressError: A checkpoint is in the way.
    """
    if images is None or not recipe.may_train_int8:
        return None, ()
    _require_free([folder / f"qat-{size}" for size in recipe.export.sizes], resume=resume)
    training = _training(recipe)
    try:
        for size in recipe.export.sizes:
            _stage(recipe, model, images, size, training, progress).requires(model)
    except CompressError as error:
        note = f"qat: int8 goes without training: {error}"
        progress(note)
        return None, (note,)

    def train(model: TrainedModel, size: int) -> TrainedModel:
        from boardfit.converters.compress.stage import run_stage

        kept = replace(training, folder=folder / f"qat-{size}", resume=True, watch=watch)
        stage = _stage(recipe, model, images, size, kept, progress)
        progress(f"stage qat at {size}: {kept.epochs} epochs on {len(images.paths)} images")
        result = run_stage(stage, model)
        # What was told of the stages before stands in the report already.
        return replace(result.model, notes=(*result.notes, *_plain_notes(recipe)))

    about = {
        **asdict(recipe.qat),
        "training": training.settings(),
        "images": [content_sha256(path) for path in images.paths],
        "labels": images.labels,
    }
    return QatOrder(always=recipe.qat.when == "always", train=train, about=about), ()


def _require_free(folders: Sequence[Path], *, resume: bool) -> None:
    held = [folder for folder in folders if (folder / "checkpoint.npz").exists()]
    if held and not resume:
        raise CompressError(
            f"{held[0]} holds a training that was interrupted: add --resume to go on with it, or delete that "
            "folder to begin anew"
        )


def _training(recipe: Recipe) -> Training:
    """Return the settings of the other stages, but for what integers are not simulated in or with."""
    training = training_of(recipe, learning_rate=recipe.qat.learning_rate)
    return replace(training, epochs=recipe.qat.epochs or training.epochs, numbers="float32", recompute=False)


def _plain_notes(recipe: Recipe) -> tuple[str, ...]:
    """Return what of the training's settings this stage does not follow, in a sentence."""
    given = recipe.distill
    left = [f"distill.numbers = {given.numbers!r}"] if given.numbers != "float32" else []
    left += ["distill.recompute"] if given.recompute else []
    if not left:
        return ()
    return (
        f"qat: trained in float32 and plainly, since integers are simulated there: {' and '.join(left)} "
        f"{'is' if len(left) == 1 else 'are'} for the other stages",
    )


def _stage(
    recipe: Recipe,
    model: TrainedModel,
    images: TrainingImages,
    size: int,
    training: Training,
    progress: Progress,
) -> Qat:
    from boardfit.converters.compress.qat import Qat
    from boardfit.converters.compress.qat_net import QatOptions

    def read(side: int) -> ImageSet:
        return read_training_images(images, model.image, side=side, progress=progress)

    wanted = recipe.qat
    options = QatOptions(
        labels=wanted.label_weight, teacher=wanted.teacher_weight, temperature=wanted.temperature
    )
    return Qat(size=size, images=read, labelled=images.labels is not None, training=training, options=options)
