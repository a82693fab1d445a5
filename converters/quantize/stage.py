"""The int8 stage of a build: every format and size that was asked for, one after the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from boardfit._version import __version__
from boardfit.converters.memory import give_back_memory
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize import surgery
from boardfit.converters.quantize.bench import (
    CHOOSING,
    Bench,
    Quantizer,
    Ranges,
    Run,
    apart,
    find_quantizer,
    run_exported,
)
from boardfit.converters.quantize.blame import IMAGES, blame
from boardfit.converters.quantize.gate import Answers, Limits
from boardfit.converters.quantize.golden import golden_text
from boardfit.converters.quantize.naming import named, share_of
from boardfit.converters.quantize.outcome import Outcome, Shelf, numbers_text
from boardfit.converters.quantize.photos import Picture, Pictures, labels_of, load_tensors
from boardfit.converters.quantize.rescue import QAT, Climb, Step, climb
from boardfit.converters.quantize.trained import QatOrder, trained_ranges
from boardfit.converters.recipe import ParitySection, QuantizeSection
from boardfit.converters.targets import Exported, export
from boardfit.converters.verify import compare, run_reference, top1
from boardfit.errors import InputError, ParityError

Progress = Callable[[str], None]
Exporter = Callable[[TrainedModel, str, int, str], Exported]
Surgeries = Callable[[TrainedModel, np.ndarray], Mapping[str, Callable[[], TrainedModel]]]


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What the stage is asked for.

    Attributes:
        model: The source.
        formats: Of the artifacts.
        sizes: Input sides in pixels, ascending.
        schemes: Among ``specs.QUANTIZED``.
        fp16_too: Whether the bundle has fp16 artifacts of these formats anyway.
        pictures: To calibrate and to validate on.
        options: The recipe's section.
        parity: The gate of float artifacts, which an fp32 twin must pass.
        qat: Trains a net in simulated int8; None where there is nothing to train on.
    """

    model: TrainedModel
    formats: tuple[str, ...]
    sizes: tuple[int, ...]
    schemes: tuple[str, ...]
    fp16_too: bool
    pictures: Pictures
    options: QuantizeSection
    parity: ParitySection
    qat: QatOrder | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stage works with; tests bring their own.

    Attributes:
        find: The quantizer of a format.
        export: Makes the artifact of one format, size and precision.
        run: Runs an artifact over images.
        surgeries: From a net and (N, S, S, 3) float32 calibration images, by name in the order in which to
            try them, what makes the net after a surgery.
    """

    find: Callable[[str], Quantizer] = find_quantizer
    export: Exporter = lambda model, format_name, size, precision: export(
        model, format_name=format_name, sizes=(size,), precision=precision
    )
    run: Run = run_exported
    surgeries: Surgeries = surgery.surgeries


def quantize_all(
    order: Order, shelf: Shelf, *, tools: Tools | None = None, progress: Progress = lambda _: None
) -> list[Outcome]:
    """Quantize every format at every size; what is finished is on the shelf when this is interrupted.

    Raises:
        InputError: An image makes the source's answer NaN, or a label is no class.
        ExportError: A converter failed.
        ParityError: A float artifact does not answer like the source.
    """
    tools = tools or Tools()
    check_schemes(order.formats, order.schemes, find=tools.find)
    weights = fingerprint(order)
    outcomes = []
    for size in order.sizes:
        jobs = [
            (format_name, scheme, f"{format_name}-{scheme}-{size}-{weights[:24]}")
            for format_name in order.formats
            for scheme in _offered(tools.find(format_name), order.schemes)
        ]
        kept = {key: shelf.get(key) for *_, key in jobs}
        lacking = tuple(dict.fromkeys(name for name, _, key in jobs if kept[key] is None))
        room = _Room(order, size, lacking, tools, progress)
        for format_name, scheme, key in jobs:
            outcome = kept[key]
            if outcome is None:
                progress(f"quantizing {format_name} {scheme} at {size}")
                outcome = _one(room, format_name, scheme)
                shelf.put(key, outcome)
                give_back_memory()
            else:
                progress(f"{format_name} {scheme} at {size} was finished before")
            outcomes.append(outcome)
    return outcomes


def check_schemes(
    formats: Sequence[str], schemes: Sequence[str], *, find: Callable[[str], Quantizer] = find_quantizer
) -> None:
    """Raise RecipeError unless every scheme is made by one of the formats at least."""
    from boardfit.errors import RecipeError

    made = {scheme for name in formats for scheme in find(name).SCHEMES}
    lacking = [scheme for scheme in schemes if scheme not in made]
    if lacking:
        raise RecipeError(
            f"none of {', '.join(formats)} can be {lacking[0]}: these can be {', '.join(sorted(made))}"
        )


def _offered(quantizer: Quantizer, schemes: Sequence[str]) -> Iterator[str]:
    return (scheme for scheme in schemes if scheme in quantizer.SCHEMES)


def fingerprint(order: Order) -> str:
    """Return a SHA-256 over all that an outcome hangs on but its format, scheme and size."""
    digest = hashlib.sha256()
    for net in [order.model.net, *(order.model.nets_by_size or {}).values()]:
        digest.update(net.to_json().encode())
        for weight in net.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    facts = {
        "boardfit": __version__,
        "image": order.model.image.to_dict(),
        "largest": order.sizes[-1],
        "fp16_too": order.fp16_too,
        "options": asdict(order.options),
        "qat": order.qat.about if order.qat else None,
        "ranges": order.model.ranges.to_dict() if order.model.ranges else None,
        "calibration": [picture.sha256 for picture in order.pictures.calibration],
        "validation": [(picture.sha256, picture.label) for picture in order.pictures.validation],
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


class _Room:
    """One size: its tensors and the source's answers are computed when the first format needs them."""

    def __init__(
        self, order: Order, size: int, formats: tuple[str, ...], tools: Tools, progress: Progress
    ) -> None:
        self.order, self.size, self.tools, self.progress = order, size, tools, progress
        self._formats = formats
        # Surgery looks at one net: the one of this size.
        self.model = order.model.at(size)
        self.largest = size == order.sizes[-1]

    @cached_property
    def twins(self) -> Mapping[str, Exported]:
        """The fp32 artifacts by format: made before any image is read, for exports take the most memory."""
        return {name: self._twin(name) for name in self._formats}

    def _twin(self, format_name: str) -> Exported:
        self.progress(f"exporting {format_name} fp32 at {self.size}")
        twin = self.tools.export(self.order.model, format_name, self.size, "fp32")
        give_back_memory()
        return twin

    @cached_property
    def calibration(self) -> np.ndarray:
        """(N, S, S, 3) float32."""
        self.progress(f"reading {len(self.order.pictures.calibration)} images at {self.size} to calibrate")
        return load_tensors(self.order.pictures.calibration, image=self.order.model.image, size=self.size)

    @cached_property
    def validation(self) -> np.ndarray:
        """(M, S, S, 3) float32."""
        return load_tensors(self.order.pictures.validation, image=self.order.model.image, size=self.size)

    @cached_property
    def source(self) -> list[np.ndarray]:
        """The source's outputs for the validation images."""
        self.progress(f"running the source on {len(self.validation)} images at {self.size}")
        outputs = run_reference(self.order.model.reference, self.validation)
        require_finite(outputs, self.order.pictures.validation)
        give_back_memory()
        return outputs

    @cached_property
    def surgeries(self) -> Mapping[str, Callable[[], TrainedModel]]:
        """The net after surgery, by name, made when asked for."""
        return self.tools.surgeries(self.model, apart(self.calibration))

    @cached_property
    def taught(self) -> TrainedModel:
        """The net of this size after training in simulated int8: trained once for all formats."""
        assert self.order.qat is not None
        trained = self.order.qat.train(self.order.model, self.size)
        give_back_memory()
        return trained

    def trained(self, model: TrainedModel, exported: Exported) -> Ranges:
        """Return the ranges that a model learned, by the tensors of its fp32 artifact."""
        quantizer = self.tools.find(exported.artifact.format)
        return trained_ranges(model, exported, quantizer, self.calibration[:1])


def require_finite(outputs: Sequence[np.ndarray], pictures: Sequence[Picture]) -> None:
    """Raise InputError that names the first image whose answer is NaN or infinite."""
    for array in outputs:
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            first = pictures[int(np.argmax(bad))].path
            raise InputError(
                f"{int(bad.sum())} of {len(bad)} images make the model answer NaN or infinity; the first: "
                f"{first}. Check the image and the image spec, or leave it out"
            )


def _one(room: _Room, format_name: str, scheme: str) -> Outcome:
    """Climb the ladder for one artifact, and fall back to fp16 at its end."""
    bench = _bench(room, format_name)
    state = climb(bench, scheme=scheme, rescue=room.order.options.rescue)
    quantizer, best = bench.quantizer, state.best
    share = share_of(quantizer.layers(best.exported), best.exported, bench.twin)
    rows = blame(quantizer, best.exported, best.source, bench.calibration[:IMAGES])
    exported: Exported | None = named(best.exported, share)
    if not state.verdict.passed:
        exported, state = _fp16(room, bench, state, format_name)
    return Outcome(
        format=format_name,
        size=room.size,
        asked=scheme,
        exported=exported,
        verdict=state.verdict,
        share=share,
        steps=state.steps,
        blame=rows,
        source=tuple(bench.answers.source.tolist()),
        fp32=tuple(bench.answers.fp32.tolist()),
        found=tuple(state.found.tolist()),
        golden=golden_text(exported, room.order.model.image, room.tools.run)
        if exported and exported.artifact.precision != "fp16"
        else "",
        notes=room.taught.notes if any(step.name == QAT for step in state.steps) else (),
    )


def _fp16(room: _Room, bench: Bench, state: Climb, format_name: str) -> tuple[Exported | None, Climb]:
    """Return the fp16 artifact in place of one that could not be rescued, if it is inside the gate."""
    if not room.order.options.rescue:
        return None, state
    if room.order.fp16_too:
        step = Step("fp16", "in the bundle anyway", 0.0, False, 0.0)
        return None, replace(state, steps=(*state.steps, step))
    half = room.tools.export(room.order.model, format_name, room.size, "fp16")
    verdict, found = bench.judge(half)
    step = Step("fp16", "", bench.error(half), verdict.passed, 0.0, verdict)
    if not verdict.passed:
        return None, replace(state, steps=(*state.steps, step))
    return half, replace(state, verdict=verdict, found=found, steps=(*state.steps, step))


def _bench(room: _Room, format_name: str) -> Bench:
    order, tools = room.order, room.tools
    twin = room.twins[format_name]
    validated = tools.run(twin, room.validation)
    _check_twin(room, twin, validated)
    activation = twin.artifact.outputs[0].activation
    answers = Answers(
        fp32=np.asarray(top1(validated[0], activation), np.int64),
        source=np.asarray(top1(room.source[0], activation), np.int64),
        labels=labels_of(order.pictures.validation, twin.artifact.outputs[0].shape[-1]),
    )
    expected = tools.run(twin, room.calibration[:CHOOSING])
    require_finite(expected, order.pictures.calibration)
    return Bench(
        quantizer=tools.find(format_name),
        twin=twin,
        calibration=room.calibration,
        expected=expected,
        validation=room.validation,
        validated=validated,
        answers=answers,
        limits=Limits(max_drop=order.options.max_drop, max_flips=order.options.max_flips),
        largest=room.largest,
        estimators=order.options.estimators,
        variants={
            name: partial(_export_variant, room, make, format_name) for name, make in room.surgeries.items()
        },
        run=tools.run,
        progress=room.progress,
        trained=room.trained(room.model, twin),
        qat=partial(_export_taught, room, format_name) if order.qat else None,
        qat_always=order.qat is not None and order.qat.always,
    )


def _export_variant(room: _Room, make: Callable[[], TrainedModel], format_name: str) -> Exported:
    return room.tools.export(make(), format_name, room.size, "fp32")


def _export_taught(room: _Room, format_name: str) -> tuple[Exported, Ranges]:
    exported = room.tools.export(room.taught, format_name, room.size, "fp32")
    return exported, room.trained(room.taught, exported)


def _check_twin(room: _Room, twin: Exported, validated: Sequence[np.ndarray]) -> None:
    """Raise ParityError unless the float artifact answers like the source: int8 is measured against it."""
    parity = compare(
        validated, room.source, artifact=twin.artifact, size=room.size, synthetic=0, gate=room.order.parity
    )
    if parity.fault:
        raise ParityError(
            f"{twin.artifact.name} answers unlike the source ({parity.fault}), nothing was written: "
            "leave the format out, or widen the recipe's [parity] knowingly"
        )


def measurements(order: Order, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the bundle keeps of the stage: enough to repeat the gate image by image elsewhere."""
    pictures = order.pictures
    labels = [picture.label for picture in pictures.validation if picture.label is not None]
    return {
        "schema": 1,
        "calibration_images": len(pictures.calibration),
        "max_drop": order.options.max_drop,
        "max_flips": order.options.max_flips,
        "validation": {
            "sha256": " ".join(picture.sha256[:16] for picture in pictures.validation),
            "labels": numbers_text(tuple(labels)) if labels else None,
        },
        "artifacts": [outcome.to_dict() for outcome in outcomes],
    }


def refused_table(outcomes: Sequence[Outcome]) -> str:
    """Return what was asked for and stayed outside the gate, with the layers to blame; may be empty."""
    lines = []
    for outcome in outcomes:
        if outcome.kept_integers:
            continue
        quantized = [step for step in outcome.steps if step.verdict is not None and step.name != "fp16"]
        verdict = quantized[-1].verdict if quantized else outcome.verdict
        assert verdict is not None
        instead = f", {outcome.delivered} was written instead" if outcome.delivered else ""
        lines.append(
            f"{outcome.name} is outside the gate: {verdict.text}, allowed {verdict.limit:g}{instead}"
        )
        for row in sorted(outcome.blame, key=lambda each: each.sqnr_db)[:5]:
            lines.append(f"    {row.layer:<40} {row.kind:<10} {row.sqnr_db:6.1f} dB")
    return "\n".join(lines)
