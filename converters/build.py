"""Flow (a): a source becomes a bundle. The only place that knows the order of the steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.bundle import Manifest, open_bundle, write_bundle
from boardfit.converters.compression import Effect, Watch, compress, effects, worse_note
from boardfit.converters.compression_record import CompressionRecord, ScoreChange
from boardfit.converters.compression_report import Compressed, record_of
from boardfit.converters.further import golden_further, golden_rows, with_further
from boardfit.converters.measure import Timed, time_artifacts
from boardfit.converters.model import TrainedModel
from boardfit.converters.plan import Plan, plan
from boardfit.converters.policy_evidence import labelled_photos
from boardfit.converters.policy_fit import Fit, goal_of
from boardfit.converters.provenance import portable, tool_versions
from boardfit.converters.qat_order import qat_order
from boardfit.converters.quantize.outcome import Outcome, Shelf, training_notes
from boardfit.converters.quantize.stage import measurements as quantized_measurements
from boardfit.converters.quantize.stage import quantize_all, refused_table
from boardfit.converters.recipe import Recipe
from boardfit.converters.refit import refit
from boardfit.converters.samples import (
    ENOUGH_IMAGES,
    GOLDEN_SEED,
    Samples,
    load_samples,
    synthetic_frame,
)
from boardfit.converters.targets import Exported, export
from boardfit.converters.training_images import overlap_notes
from boardfit.converters.verify import Parity, require_inside, run_reference, verify
from boardfit.errors import ExportError, InputError, ParityError, UnsupportedModel
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import QUANTIZED, PolicySpec, classic_policy
from boardfit.timing import machine_name

Progress = Callable[[str], None]


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
    effects: tuple[Effect, ...] = ()
    compression: CompressionRecord | None = None


def build(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    watch: Watch = lambda _: None,
    progress: Progress = lambda _: None,
) -> BuildReport:
    """Build a bundle: import, compress, export, compare, measure, write.

    Args:
        recipe: The source, the images, and what is to be made of them.
        out: Path of the bundle; one file if it ends in ``.boardfit``, else a folder.
        resume: Whether a training that was interrupted goes on. What else was finished is always taken up.
        watch: Told after every step how far a training is.
        progress: Told, in a sentence, what is being done.

    Returns:
        What was written and measured.

    Raises:
        RecipeError: An option makes no sense.
        InputError: The images cannot be used.
        UnsupportedModel: The source cannot be carried over.
        CompressError: A stage cannot work on the model, or its training failed.
        ExportError: A format's converter failed.
        ParityError: An artifact does not answer like the source. Nothing was written.
        BundleError: The bundle could not be written.
    """
    planned = plan(recipe, out, progress=progress)
    recipe = planned.recipe
    checked = _compressed(planned, resume=resume, watch=watch, progress=progress)
    checked = _with_training_of_int8(checked, resume=resume, watch=watch, progress=progress)
    model, sizes = checked.model, recipe.export.sizes
    progress(f"reading {len(checked.paths)} images at {len(sizes)} sizes")
    samples = load_samples(checked.paths, image=model.image, sizes=sizes, progress=progress)
    samples = with_further(samples, model, checked.values)
    progress(f"running the source on {samples.count} images")
    expected = {size: _expected(model, samples, size) for size in sizes}
    exported, parity = _export_all(checked, samples, expected, progress)
    require_inside(parity)
    shelf = Shelf(checked.partial)
    outcomes = quantize_all(checked.order, shelf, progress=progress) if checked.order else []
    for item in [outcome.exported for outcome in outcomes if outcome.exported]:
        exported.append(item)
        parity.extend(verify(item, samples=samples, expected=expected, gate=recipe.parity))
    require_inside(parity)
    if not exported:
        raise ParityError(f"nothing is inside the gate, nothing was written\n{refused_table(outcomes)}")
    progress("timing the artifacts")
    times = time_artifacts(exported, samples)
    trained = model.net is not planned.model.net or model.nets_by_size is not None
    changed = effects(planned.model, model, samples.tensors) if trained else ()
    # What another model taught may well differ from the source.
    worse = [note for note in [worse_note(changed)] if note and not recipe.distill.teacher]
    notes = (*model.notes, *worse, *training_notes(outcomes), *_sample_notes(samples))
    notes = (*notes, *_pictures_notes(checked))
    measurements = _measurements(samples, parity, times, notes)
    if checked.order:
        measurements["quantized"] = quantized_measurements(checked.order, outcomes)
    compression, unmeasured = _compression(planned, checked, exported, samples, changed, outcomes, progress)
    if compression:
        notes = (*notes, *unmeasured)
        measurements |= {"compressed": compression.to_dict(), "notes": list(notes)}
    fit, not_fitted = _write_fitted(checked, exported, measurements, progress)
    shelf.clear()
    if not_fitted:
        notes = (*notes, unfitted_note(not_fitted))
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
        effects=changed,
        compression=compression,
    )


def _compression(
    planned: Plan,
    checked: Plan,
    exported: Sequence[Exported],
    samples: Samples,
    changed: Sequence[Effect],
    outcomes: Sequence[Outcome],
    progress: Progress,
) -> tuple[CompressionRecord | None, tuple[str, ...]]:
    """Return what compressing changed, and what could not be measured; None where nothing was compressed."""
    taught = any(outcome.taught for outcome in outcomes)
    if not changed and not taught:
        return None, ()
    recipe, export = checked.recipe, checked.recipe.export
    photos = labelled_photos(recipe.fit.val, recipe.images.folder) if changed and recipe.fit.val else ()
    compressed = Compressed(
        before=planned.model,
        after=checked.model,
        stages=(*recipe.stage_names, *(("qat",) if taught else ())),
        sizes=export.sizes,
        formats=export.formats if changed else (),
        exported=exported,
        samples=samples,
        photos=photos,
        parity=recipe.parity,
        logs=checked.partial,
        outcomes=outcomes,
    )
    agreement = [ScoreChange(row.size, row.images, row.before, row.after) for row in changed]
    return record_of(compressed, agreement, progress)


def _compressed(checked: Plan, *, resume: bool, watch: Watch, progress: Progress) -> Plan:
    """Return the plan with the model that the compress stages make of its own."""
    if not checked.recipe.compresses:
        return checked
    model = compress(
        checked.recipe,
        checked.model,
        images=checked.training,
        teacher=checked.teacher,
        folder=checked.partial,
        resume=resume,
        watch=watch,
        progress=progress,
    )
    if checked.training is not None:
        notes = overlap_notes(
            checked.training,
            fitted_on=[photo.path for photo in checked.photos],
            compared_on=checked.paths,
        )
        model = replace(model, notes=(*model.notes, *notes))
    order = replace(checked.order, model=model) if checked.order else None
    return replace(checked, model=model, order=order)


def _with_training_of_int8(checked: Plan, *, resume: bool, watch: Watch, progress: Progress) -> Plan:
    """Return the plan whose int8 stage may train the net, where there is something to train on."""
    if checked.order is None:
        return checked
    qat, notes = qat_order(
        checked.recipe,
        checked.model,
        checked.training,
        folder=checked.partial,
        resume=resume,
        watch=watch,
        progress=progress,
    )
    model = replace(checked.model, notes=(*checked.model.notes, *notes))
    return replace(checked, model=model, order=replace(checked.order, model=model, qat=qat))


def _expected(model: TrainedModel, samples: Samples, size: int) -> list[np.ndarray]:
    outputs = run_reference(model.reference, samples.tensors[size], samples.further.get(size, ()))
    if not all(np.isfinite(array).all() for array in outputs):
        raise UnsupportedModel(
            f"{model.name} answers NaN or infinity at {size} pixels on these images: "
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
    if checked.model.nets_by_size is not None:
        return _attempt(checked, format_name, precision, [(size,) for size in sizes], samples, expected)
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
        rows.extend(verify(item, samples=samples, expected=expected, gate=gate, task=checked.model.task))
    return done, rows


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
    notes = [*measurements["notes"], unfitted_note(reason)]
    _write(checked, checked.out, exported, {**measurements, "notes": notes})
    return None, reason


def unfitted_note(reason: str) -> str:
    """Return the note that says why a bundle carries the classic thresholds."""
    return f"the policy was not fitted: {reason}"


def _write(
    checked: Plan, out: Path, exported: Sequence[Exported], measurements: Mapping[str, Any]
) -> Manifest:
    model, recipe = checked.model, checked.recipe
    frame = synthetic_frame(GOLDEN_SEED)
    preprocessor = Preprocessor(model.image, "NHWC")
    further = golden_further(model, checked.values)
    golden = {
        size: run_reference(
            model.reference,
            preprocessor.fit(frame, size)[0],
            golden_rows(model, further, preprocessor, size),
        )
        for size in recipe.export.sizes
    }
    return write_bundle(
        out,
        name=recipe.source.name or model.name,
        task=model.task,
        labels=model.labels,
        image=model.image,
        policy=_policy(recipe, model.task),
        artifacts=[item.artifact for item in exported],
        files={path: data for item in exported for path, data in item.files.items()},
        golden_frame=frame,
        golden_outputs=golden,
        golden_inputs=further,
        recipe=portable(recipe, model),
        tools=tool_versions(recipe),
        measurements=measurements,
    )


def _policy(recipe: Recipe, task: str) -> PolicySpec:
    sizes = recipe.export.sizes
    chooses = len(sizes) > 1 and task == "classify"
    return classic_policy(recipe.policy.kind if chooses else "fixed", sizes)


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


def _pictures_notes(checked: Plan) -> tuple[str, ...]:
    return checked.order.pictures.notes if checked.order else ()


def _sample_notes(samples: Samples) -> tuple[str, ...]:
    notes = []
    if samples.synthetic:
        notes.append(
            f"fewer than {ENOUGH_IMAGES} photographs were given ({samples.photographs}): {samples.synthetic} "
            "synthetic images were added to the comparison"
        )
    if samples.skipped:
        count = len(samples.skipped)
        files, were = ("file", "was") if count == 1 else ("files", "were")
        notes.append(f"{count} image {files} could not be read and {were} skipped")
    return tuple(notes)
