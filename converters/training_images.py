"""On which images a recipe's compress stages train, or what pruning looks at where nothing is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_evidence import labelled_photos
from boardfit.converters.recipe import Recipe
from boardfit.converters.recipe_train import FEWEST_TO_TRAIN
from boardfit.converters.samples import choose_images
from boardfit.errors import InputError, RecipeError
from boardfit.specs import ImageSpec

if TYPE_CHECKING:
    from boardfit.converters.compress.images import ImageSet


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Image files to train on or to look at, and the class index of each, or None."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None = None


def choose_training_images(recipe: Recipe, model: TrainedModel) -> TrainingImages | None:
    """Return the images of ``distill``, else those that pruning looks at; None where no stage needs any.

    Pruning without training looks at the photographs of ``images``, if they are enough.

    Raises:
        InputError: No folder, or too few images in it.
        RecipeError: The table of labels cannot be used, or a label is no class of the model.
    """
    wanted = recipe.distill
    if not wanted.folder:
        if not recipe.prune.structured or model.further or model.untouched is not None:
            return None
        paths = choose_images(recipe.images.folder, recipe.prune.images)
        return TrainingImages(paths=tuple(paths)) if len(paths) >= FEWEST_TO_TRAIN else None
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


def read_training_images(
    images: TrainingImages, image: ImageSpec, *, side: int, progress: Callable[[str], None] = lambda _: None
) -> ImageSet:
    """Decode images for the compress stages.

    Args:
        images: Their files and labels.
        image: How the net takes images.
        side: Of the result in pixels.
        progress: Told what is being read, and which files were skipped.

    Raises:
        InputError: Too few can be read.
    """
    from boardfit.converters.compress.images import load_image_set

    progress(f"reading {len(images.paths)} images at {side}")
    return load_image_set(images.paths, image=image, side=side, labels=images.labels, progress=progress)


def overlap_notes(
    trained: TrainingImages, *, fitted_on: Sequence[Path], compared_on: Sequence[Path]
) -> tuple[str, ...]:
    """Return a sentence for each use of images that the net was made with: it knows them better than others.

    Args:
        trained: What the compress stages trained on or looked at.
        fitted_on: Images on which the policy is fitted.
        compared_on: Images on which the model's answers are compared with the source's.
    """
    seen = {_sha256(path) for path in trained.paths}
    notes = []
    for paths, use in ((fitted_on, "the policy is fitted"), (compared_on, "answers are compared")):
        both = sum(_sha256(path) in seen for path in paths)
        if both:
            notes.append(
                f"{both} of the {len(paths)} images on which {use} were trained on, or pruned by: the net "
                "knows them better than what a camera will show; give other images with --distill or --images"
            )
    return tuple(notes)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return str(path)
