"""The compress stages that a recipe asks for, one after the other, and what they changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boardfit.converters.kept import KeptStages
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe import Recipe
from boardfit.converters.stages import Workplace, stages_of
from boardfit.converters.training_images import TrainingImages
from boardfit.converters.verify import run_reference, top1
from boardfit.errors import CompressError

if TYPE_CHECKING:
    from boardfit.converters.compress.train import Moment

Watch = Callable[["Moment"], None]
Progress = Callable[[str], None]


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


def require_stages(
    recipe: Recipe, model: TrainedModel, *, images: TrainingImages | None, teacher: TrainedModel | None
) -> None:
    """Ask every stage whether it can work on the model, before anything long.

    Args:
        recipe: What is asked for.
        model: The source.
        images: What would be trained on; None where nothing is.
        teacher: Who would teach instead of the source, or None.

    Raises:
        CompressError: One cannot, or its settings make no sense.
    """
    for stage in stages_of(recipe, model, images=images, teacher=teacher):
        stage.requires(model)


def compress(
    recipe: Recipe,
    model: TrainedModel,
    *,
    images: TrainingImages | None,
    teacher: TrainedModel | None = None,
    folder: Path,
    resume: bool = False,
    watch: Watch = lambda _: None,
    progress: Progress = lambda _: None,
) -> TrainedModel:
    """Run the stages that the recipe asks for.

    Args:
        recipe: What is asked for.
        model: The source.
        images: What is trained on; None where nothing is.
        teacher: Who teaches instead of the source, or None.
        folder: Where checkpoints and finished stages go, each in a folder of its own.
        resume: Whether what was interrupted goes on.
        watch: Told after every step how far a training is.
        progress: Told what is being read, and which files were skipped.

    Raises:
        CompressError: A stage cannot work on this model, its training failed, or a checkpoint is in the way.
        InputError: Too few images can be read.
    """
    from boardfit.converters.compress.stage import run_stage

    place = Workplace(folder=folder, resume=resume, watch=watch, progress=progress)
    stages = stages_of(recipe, model, images=images, teacher=teacher, place=place)
    places = [folder / stage.name for stage in stages]
    begun = [place for place in places if place.is_dir() and any(place.iterdir())]
    if begun and not resume:
        raise CompressError(
            f"{begun[0]} holds a training that was interrupted: add --resume to go on with it, or delete "
            f"{folder} to begin anew"
        )
    if recipe.distill.deterministic:
        be_deterministic()
    kept = KeptStages(folder, settings=recipe.stage_tables, images=images, teacher=teacher)
    for stage in stages:
        done = kept.get(stage.name, model)
        if done is None:
            progress(f"stage {stage.name}")
            done = run_stage(stage, model)
            if stage is not stages[-1]:
                kept.put(stage.name, model, done)
        model = replace(done.model, notes=(*done.model.notes, *done.notes))
    return model


def be_deterministic() -> None:
    """Have the Keras backend take only operations that give the same bits each time.

    On a CPU all three do so anyway. On GPUs, JAX decides it when it starts: ``XLA_FLAGS``.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


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
    """Return a sentence if compressing made a size worse, by more than one image in fifty; else nothing."""
    worse = [effect for effect in found if effect.before - effect.after > 2.0]
    if not worse:
        return ""
    sizes = ", ".join(f"{effect.size}: {effect.before:.0f} to {effect.after:.0f} %" for effect in worse)
    return (
        f"compressing made the model worse ({sizes} of the answers are the source's at its largest size): "
        "ask for less, give more photographs, or, where it was trained, lower --learning-rate"
    )
