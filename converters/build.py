"""Flow (a): a source becomes a bundle. The only place that knows the order of the steps."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.bundle import Manifest, check_target, open_bundle, write_bundle
from boardfit.converters.frameworks import load_frameworks
from boardfit.converters.ingest import ingest
from boardfit.converters.measure import Timed, time_artifacts
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.converters.policy_evidence import FEWEST_IMAGES, Photo, labelled_photos
from boardfit.converters.policy_fit import Fit, goal_of
from boardfit.converters.provenance import portable, quantized_precisions, tool_versions
from boardfit.converters.quantize.outcome import Outcome, Shelf
from boardfit.converters.quantize.photos import choose_pictures, labels_of
from boardfit.converters.quantize.stage import Order, check_schemes, quantize_all, refused_table
from boardfit.converters.quantize.stage import measurements as quantized_measurements
from boardfit.converters.recipe import Recipe, resolve_image_spec
from boardfit.converters.refit import refit
from boardfit.converters.samples import ENOUGH_IMAGES, Samples, choose_images, load_samples, synthetic_frame
from boardfit.converters.targets import Exported, export, find_target
from boardfit.converters.verify import Parity, engine_name, require_inside, run_reference, verify
from boardfit.errors import ExportError, InputError, ParityError, RecipeError, UnsupportedModel
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import QUANTIZED, PolicySpec, classic_policy
from boardfit.timing import machine_name

Progress = Callable[[str], None]

GOLDEN_SEED = 2026


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A build of which everything that can be checked before the long work was checked.

    Attributes:
        recipe: What was asked for.
        out: Where the bundle goes.
        model: The source, imported.
        paths: The image files that parity is measured on.
        photos: The images that the policy is fitted on; empty where it is not fitted.
        not_fitted: Why it is not; empty where it is.
        order: What the int8 stage is asked for; None where nothing is quantized.
    """

    recipe: Recipe
    out: Path
    model: TrainedModel
    paths: tuple[Path, ...]
    photos: tuple[Photo, ...] = ()
    not_fitted: str = ""
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build made and measured; ``outcomes`` holds what was asked for in int8, refused or not."""

    out: Path
    manifest: Manifest
    parity: tuple[Parity, ...]
    times: tuple[Timed, ...]
    notes: tuple[str, ...]
    fit: Fit | None = None
    outcomes: tuple[Outcome, ...] = ()


def build(recipe: Recipe, out: str | Path, *, progress: Progress = lambda _: None) -> BuildReport:
    """Build a bundle: import, export, compare with the source, measure, write.

    Args:
        recipe: The source, the images, and what is to be made of them.
        out: Path of the bundle; one file if it ends in ``.boardfit``, else a folder.
        progress: Told, in a sentence, what is being done.

    Returns:
        What was written and measured.

    Raises:
        RecipeError: An option makes no sense.
        InputError: The images cannot be used.
        UnsupportedModel: The source cannot be carried over.
        ExportError: A format's converter failed.
        ParityError: An artifact does not answer like the source. Nothing was written.
        BundleError: The bundle could not be written.
    """
    checked = plan(recipe, out, progress=progress)
    model, sizes = checked.model, recipe.export.sizes
    progress(f"reading {len(checked.paths)} images at {len(sizes)} sizes")
    samples = load_samples(checked.paths, image=model.image, sizes=sizes, progress=progress)
    progress(f"running the source on {samples.count} images")
    expected = {size: _expected(model, samples.tensors[size]) for size in sizes}
    exported, parity = _export_all(checked, samples, expected, progress)
    require_inside(parity)
    shelf = Shelf(checked.out.with_name(f"{checked.out.name}.partial"))
    outcomes = quantize_all(checked.order, shelf, progress=progress) if checked.order else []
    for item in [outcome.exported for outcome in outcomes if outcome.exported]:
        exported.append(item)
        parity.extend(verify(item, samples=samples, expected=expected, gate=recipe.parity))
    require_inside(parity)
    if not exported:
        raise ParityError(f"nothing is inside the gate, nothing was written\n{refused_table(outcomes)}")
    progress("timing the artifacts")
    times = time_artifacts(exported, samples)
    notes = (*model.notes, *_sample_notes(samples), *(checked.order.pictures.notes if checked.order else ()))
    measurements = _measurements(samples, parity, times, notes)
    if checked.order:
        measurements["quantized"] = quantized_measurements(checked.order, outcomes)
    fit, not_fitted = _write_fitted(checked, exported, measurements, progress)
    shelf.clear()
    if not_fitted:
        notes = (*notes, f"the policy was not fitted: {not_fitted}")
    with open_bundle(checked.out) as bundle:
        manifest = bundle.manifest
    return BuildReport(
        out=checked.out,
        manifest=manifest,
        parity=tuple(parity),
        times=tuple(times),
        notes=notes,
        fit=fit,
        outcomes=tuple(outcomes),
    )


def plan(recipe: Recipe, out: str | Path, *, progress: Progress = lambda _: None) -> Plan:
    """Check everything that can be checked before the long work: the dry run.

    Raises:
        RecipeError, InputError, UnsupportedModel, ToolMissing, EngineMissing, BundleError: See ``build``.
    """
    target = Path(out)
    _check_out(target)
    image = resolve_image_spec(recipe.source.image_spec)
    labels = read_labels(recipe.source.labels)
    paths = choose_images(recipe.images.folder, recipe.images.limit)
    for format_name in recipe.export.formats:
        find_target(format_name).require_tools()
        engine_name(format_name)
    load_frameworks()
    source = recipe.source.torch or recipe.source.model
    progress(f"importing {source}")
    model = ingest(
        SourceRequest(
            source=source,
            sizes=recipe.export.sizes,
            image=image,
            labels=labels,
            assume_same_padding=recipe.source.assume_same_padding,
        ),
        kind="torch" if recipe.source.torch else None,
    )
    model.require_sizes(recipe.export.sizes)
    photos, not_fitted = _photos_to_fit(recipe, model)
    return Plan(
        recipe=recipe,
        out=target,
        model=model,
        paths=tuple(paths),
        photos=photos,
        not_fitted=not_fitted,
        order=_order(recipe, model, progress),
    )


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
    labels_of(pictures.validation, model.outputs[0].shape[-1])
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


def _expected(model: TrainedModel, tensor: np.ndarray) -> list[np.ndarray]:
    outputs = run_reference(model.reference, tensor)
    if not all(np.isfinite(array).all() for array in outputs):
        raise UnsupportedModel(
            f"{model.name} answers NaN or infinity at {tensor.shape[1]} pixels on these images: "
            "check the source and the image spec"
        )
    return outputs


def _export_all(
    checked: Plan,
    samples: Samples,
    expected: Mapping[int, Sequence[np.ndarray]],
    progress: Progress,
) -> tuple[list[Exported], list[Parity]]:
    """Export and compare every format and precision; one file serves all sizes where that is exact."""
    wanted = checked.recipe.export
    exported: list[Exported] = []
    parity: list[Parity] = []
    for format_name in wanted.formats:
        for precision in (each for each in wanted.precisions if each not in QUANTIZED):
            progress(f"exporting and comparing {format_name} {precision}")
            done, rows = _export_one(checked, format_name, precision, samples, expected)
            exported.extend(done)
            parity.extend(rows)
    return exported, parity


def _export_one(
    checked: Plan,
    format_name: str,
    precision: str,
    samples: Samples,
    expected: Mapping[int, Sequence[np.ndarray]],
) -> tuple[list[Exported], list[Parity]]:
    """Try one file for all sizes; where that is outside the gate, make one per size."""
    sizes = checked.recipe.export.sizes
    try:
        done, rows = _attempt(checked, format_name, precision, [sizes], samples, expected)
        if len(sizes) == 1 or not any(row.fault for row in rows):
            return done, rows
    except ExportError:
        if len(sizes) == 1:
            raise
    return _attempt(checked, format_name, precision, [(size,) for size in sizes], samples, expected)


def _attempt(
    checked: Plan,
    format_name: str,
    precision: str,
    groups: Sequence[tuple[int, ...]],
    samples: Samples,
    expected: Mapping[int, Sequence[np.ndarray]],
) -> tuple[list[Exported], list[Parity]]:
    """Export and compare one artifact per group of sizes."""
    gate = checked.recipe.parity
    done, rows = [], []
    for sizes in groups:
        item = export(checked.model, format_name=format_name, sizes=sizes, precision=precision)
        done.append(item)
        rows.extend(verify(item, samples=samples, expected=expected, gate=gate))
    return done, rows


def _photos_to_fit(recipe: Recipe, model: TrainedModel) -> tuple[tuple[Photo, ...], str]:
    """Return the images to fit the policy on, or why it is not fitted."""
    if recipe.fit.val:
        return tuple(labelled_photos(recipe.fit.val, recipe.images.folder)), ""
    if not recipe.fit.enabled:
        return (), "it was not asked for"
    if len(recipe.export.sizes) == 1:
        return (), "there is one size only"
    if model.outputs[0].activation == "none":
        return (), "the output's numbers are no probabilities"
    paths = choose_images(recipe.images.folder, recipe.fit.limit)
    if len(paths) < FEWEST_IMAGES:
        return (), f"{len(paths)} images are too few, at least {FEWEST_IMAGES} are needed"
    return tuple(Photo(path=path) for path in paths), ""


def _write_fitted(
    checked: Plan, exported: Sequence[Exported], measurements: Mapping[str, Any], progress: Progress
) -> tuple[Fit | None, str]:
    """Write the bundle with a fitted policy, or with the classic one and the reason for that."""
    reason = checked.not_fitted
    if checked.photos:
        options = checked.recipe.fit
        goal = goal_of(None, options.max_time) if options.max_time else goal_of(options.max_drop, None)
        with tempfile.TemporaryDirectory(prefix="boardfit-") as folder:
            draft = Path(folder) / "draft.boardfit"
            _write(checked, draft, exported, measurements)
            try:
                fit = refit(draft, checked.out, goal=goal, photos=checked.photos, progress=progress)
                return fit, ""
            except InputError as error:
                if options.val:
                    raise
                reason = str(error)
    progress(f"writing {checked.out}")
    _write(checked, checked.out, exported, measurements)
    return None, reason


def _write(
    checked: Plan, out: Path, exported: Sequence[Exported], measurements: Mapping[str, Any]
) -> Manifest:
    model, recipe = checked.model, checked.recipe
    frame = synthetic_frame(GOLDEN_SEED)
    preprocessor = Preprocessor(model.image, "NHWC")
    golden = {
        size: run_reference(model.reference, preprocessor.fit(frame, size)[0]) for size in recipe.export.sizes
    }
    return write_bundle(
        out,
        name=recipe.source.name or model.name,
        task=model.task,
        labels=model.labels,
        image=model.image,
        policy=_policy(recipe),
        artifacts=[item.artifact for item in exported],
        files={path: data for item in exported for path, data in item.files.items()},
        golden_frame=frame,
        golden_outputs=golden,
        recipe=portable(recipe, model),
        tools=tool_versions(recipe),
        measurements=measurements,
    )


def _policy(recipe: Recipe) -> PolicySpec:
    sizes = recipe.export.sizes
    return classic_policy(recipe.policy.kind if len(sizes) > 1 else "fixed", sizes)


def _measurements(
    samples: Samples, parity: Sequence[Parity], times: Sequence[Timed], notes: Sequence[str]
) -> dict[str, Any]:
    return {
        "schema": 1,
        "machine": machine_name(),
        "photographs": samples.photographs,
        "parity": [row.to_dict() for row in parity],
        "times": [asdict(row) for row in times],
        "notes": list(notes),
    }


def _sample_notes(samples: Samples) -> tuple[str, ...]:
    notes = []
    if samples.synthetic:
        notes.append(
            f"fewer than {ENOUGH_IMAGES} photographs were given ({samples.photographs}): {samples.synthetic} "
            "synthetic images were added to the comparison"
        )
    if samples.skipped:
        notes.append(f"{len(samples.skipped)} image files could not be read and were skipped")
    return tuple(notes)


def _check_out(out: Path) -> None:
    folder = out.absolute().parent
    if not folder.is_dir():
        raise RecipeError(f"the folder {folder} for the bundle does not exist: make it, or choose another -o")
    if not os.access(folder, os.W_OK):
        raise RecipeError(f"the folder {folder} cannot be written to: choose another -o")
    check_target(out)
