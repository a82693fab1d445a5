"""What a build is going to do, checked as far as it can be before the long work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from boardfit.bundle import check_target
from boardfit.bundle.rules import CONTROL
from boardfit.converters.auto_sizes import require_choice, resolve_sizes
from boardfit.converters.compression import require_stages
from boardfit.converters.frameworks import load_frameworks, require_frameworks
from boardfit.converters.further import read_values, values_note
from boardfit.converters.image_specs import resolve_image_spec
from boardfit.converters.ingest import ingest, own_side
from boardfit.converters.ingest.untouched import formats_of, read_untouched
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.converters.policy_evidence import FEWEST_IMAGES, Photo, labelled_photos
from boardfit.converters.provenance import quantized_precisions
from boardfit.converters.qat_order import require_qat
from boardfit.converters.quantize.photos import choose_pictures, labels_of
from boardfit.converters.quantize.stage import Order, check_schemes
from boardfit.converters.recipe import Recipe
from boardfit.converters.samples import choose_images
from boardfit.converters.targets import find_target
from boardfit.converters.training_images import TrainingImages, choose_training_images
from boardfit.converters.verify import engine_name
from boardfit.errors import RecipeError
from boardfit.runtime.policy.two_look import NO_CERTAINTY

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A build of which everything that can be checked before the long work was checked.

    Attributes:
        recipe: What was asked for, with sizes that are numbers.
        out: Where the bundle goes.
        model: The source, imported.
        paths: The image files that parity is measured on.
        photos: The images that the policy is fitted on; empty where it is not fitted.
        not_fitted: Why it is not; empty where it is.
        order: What the int8 stage is asked for; None where nothing is quantized.
        training: The images that compress stages train on or look at; None where they need none.
        teacher: The model that teaches instead of the source; None where that does.
        values: Rows of numbers, by name, for inputs besides the image.
    """

    recipe: Recipe
    out: Path
    model: TrainedModel
    paths: tuple[Path, ...]
    photos: tuple[Photo, ...] = ()
    not_fitted: str = ""
    order: Order | None = None
    training: TrainingImages | None = None
    teacher: TrainedModel | None = None
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def partial(self) -> Path:
        """Where what is finished is kept until the bundle is written."""
        return self.out.with_name(f"{self.out.name}.partial")


def plan(recipe: Recipe, out: str | Path, *, progress: Progress = lambda _: None) -> Plan:
    """Check everything that can be checked before the long work: the dry run.

    Raises:
        RecipeError, InputError, UnsupportedModel, ToolMissing, EngineMissing, BundleError: See ``build``.
    """
    automatic = recipe.export.auto_sizes
    target = Path(out)
    _check_out(target)
    require_frameworks()
    image = resolve_image_spec(recipe.source.image_spec)
    labels = read_labels(recipe.source.labels)
    if recipe.source.pass_through:
        recipe = _as_passed_through(recipe)
    paths = choose_images(recipe.images.folder, recipe.images.limit)
    for format_name in recipe.export.formats:
        find_target(format_name).require_tools()
        engine_name(format_name)
    load_frameworks()
    source = recipe.source.torch or recipe.source.model
    progress(f"importing {source}")
    recipe, sizes_notes = resolve_sizes(recipe)
    for note in sizes_notes:
        progress(note)
    request = SourceRequest(
        source=source,
        sizes=recipe.export.sizes,
        image=image,
        labels=labels,
        assume_same_padding=recipe.source.assume_same_padding,
        task=recipe.source.task,
    )
    if recipe.source.pass_through:
        model = read_untouched(request)
    else:
        model = ingest(request, kind="torch" if recipe.source.torch else None)
    if automatic:
        require_choice(model)
        model = replace(model, notes=(*sizes_notes, *model.notes))
    model.require_sizes(recipe.export.sizes)
    if model.task != "classify":
        _require_classifier_for_nothing(recipe, model)
    if model.further:
        _require_nothing_of_one_image(recipe, model)
    values = read_values(recipe.source.inputs, model.further)
    model = replace(model, notes=(*model.notes, *values_note(model, values)))
    if recipe.policy.kind == "two-look" and model.outputs[0].activation == "none":
        raise RecipeError(NO_CERTAINTY)
    training = choose_training_images(recipe, model)
    teacher = _teacher(recipe, request, progress)
    require_stages(recipe, model, images=training, teacher=teacher)
    photos, not_fitted = _photos_to_fit(recipe, model)
    require_qat(recipe, model, training)
    return Plan(
        recipe=recipe,
        out=target,
        model=model,
        paths=tuple(paths),
        photos=photos,
        not_fitted=not_fitted,
        order=_order(recipe, model, progress),
        training=training,
        teacher=teacher,
        values=values,
    )


def _teacher(recipe: Recipe, source: SourceRequest, progress: Progress) -> TrainedModel | None:
    """Return the model that teaches instead of the source, or None.

    It is asked at the largest size of the bundle, or at its own where it takes no other.
    """
    path = recipe.distill.teacher
    if not path:
        return None
    progress(f"importing the teacher {path}")
    request = replace(source, source=path, labels=(), sizes=source.sizes[-1:])
    teacher = ingest(request)
    if teacher.fixed_size not in (None, source.sizes[-1]):
        teacher = ingest(replace(request, sizes=(own_side(path) or teacher.fixed_size,)))
    return teacher


def _require_nothing_of_one_image(recipe: Recipe, model: TrainedModel) -> None:
    """Raise RecipeError if something is asked for that is fed with images alone."""
    wants = {
        "int8": bool(quantized_precisions(recipe)),
        "compressing": recipe.compresses,
        "--val": bool(recipe.fit.val),
    }
    asked = [name for name, wanted in wants.items() if wanted]
    if asked:
        names = ", ".join(spec.name for spec in model.further)
        raise RecipeError(
            f"{model.name} takes {names} besides the image, and {asked[0]} is done on images alone: leave it "
            "out"
        )


def _require_classifier_for_nothing(recipe: Recipe, model: TrainedModel) -> None:
    """Raise RecipeError if something is asked for that only the answers of a classifier can judge."""
    wants = {
        "int8": bool(quantized_precisions(recipe)),
        "compressing": recipe.compresses,
        "--val": bool(recipe.fit.val),
        "the policy two-look": recipe.policy.kind == "two-look",
    }
    asked = [name for name, wanted in wants.items() if wanted]
    if asked:
        raise RecipeError(
            f"{model.name} is built for the task {model.task}, and {asked[0]} is judged by a classifier's "
            "answers: leave it out"
        )


def _as_passed_through(recipe: Recipe) -> Recipe:
    """Return the recipe with the formats that its source can be passed through to, in fp32."""
    possible = formats_of(recipe.source.model or recipe.source.torch)
    wanted, export = recipe.export.formats, recipe.export
    formats = tuple(name for name in wanted if name in possible)
    others = [name for name in export.precisions if name not in ("fp32", "fp16")]
    if not formats or others or recipe.compresses:
        raise RecipeError(
            f"a source that is passed through is packed as it is, in fp32, as {' or '.join(possible)}: leave "
            f"out {', '.join(others) or 'compressing and other formats'}, or leave out --pass-through"
        )
    return replace(recipe, export=replace(export, formats=formats, precisions=("fp32",)))


def read_labels(path: str) -> tuple[str, ...]:
    """Return the class names in a text file, one a line; nothing for an empty path.

    Raises:
        RecipeError: The file cannot be read, is empty, or has an empty line.
    """
    if not path:
        return ()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"cannot read the labels in {path} ({error}): expected a text in UTF-8, one class name a line"
        ) from error
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        number = 1 + (labels.index("") if "" in labels else 0)
        raise RecipeError(f"{path}: line {number} is empty: expected one class name a line")
    strange = next((label for label in labels if CONTROL.search(label)), None)
    if strange is not None:
        raise RecipeError(f"{path}: the label {strange!r:.80} has a control character: take it out")
    return labels


def _order(recipe: Recipe, model: TrainedModel, progress: Progress) -> Order | None:
    """Return what the int8 stage is asked for, its images chosen and checked; None where nothing is."""
    schemes, options = quantized_precisions(recipe), recipe.quantize
    if not schemes:
        return None
    check_schemes(recipe.export.formats, schemes)
    progress("choosing the images for int8")
    pictures = choose_pictures(
        recipe.images.folder,
        val=recipe.fit.val,
        calibration_folder=options.calibration,
        calibration=options.calibration_images,
        validation=options.validation_images,
        progress=progress,
    )
    return Order(
        model=model,
        formats=recipe.export.formats,
        sizes=recipe.export.sizes,
        schemes=schemes,
        fp16_too="fp16" in recipe.export.precisions,
        pictures=pictures,
        options=options,
        parity=recipe.parity,
    )


def _photos_to_fit(recipe: Recipe, model: TrainedModel) -> tuple[tuple[Photo, ...], str]:
    """Return the images to fit the policy on, or why it is not fitted."""
    labelled = labelled_photos(recipe.fit.val, recipe.images.folder) if recipe.fit.val else []
    if labelled:
        labels_of(labelled, model.outputs[0].shape[-1])
    if model.task != "classify":
        return (), (
            f"it is fitted on a classifier's answers; for {model.task} the largest size is taken, and "
            "smaller ones only where they are asked for"
        )
    if model.further:
        return (), "it is fitted on images alone, and the net takes more"
    if not recipe.fit.enabled:
        return (), "it was not asked for"
    if labelled:
        return tuple(labelled), ""
    if len(recipe.export.sizes) == 1:
        return (), "there is one size only"
    if model.outputs[0].activation == "none":
        return (), "the output's numbers are no probabilities"
    paths = choose_images(recipe.images.folder, recipe.fit.limit)
    if len(paths) < FEWEST_IMAGES:
        return (), f"{len(paths)} images are too few, at least {FEWEST_IMAGES} are needed"
    return tuple(Photo(path=path) for path in paths), ""


def _check_out(out: Path) -> None:
    folder = out.absolute().parent
    if not folder.is_dir():
        raise RecipeError(f"the folder {folder} for the bundle does not exist: make it, or choose another -o")
    if not os.access(folder, os.W_OK):
        raise RecipeError(f"the folder {folder} cannot be written to: choose another -o")
    check_target(out)
