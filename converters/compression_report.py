"""Measures what compressing changed: weights, multiplications, answers, files, times; reads the curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.compression_record import (
    CompressionRecord,
    Curve,
    FileChange,
    IntegerChange,
    NetFacts,
    ScoreChange,
    TimeChange,
)
from boardfit.converters.ingest.survey import layer_rows
from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_evidence import Photo
from boardfit.converters.quantize.outcome import Outcome
from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import Exported, export
from boardfit.converters.verify import engine_name, feeds_of, open_engine, run_reference, top1, verify
from boardfit.errors import EngineError, ExportError, InputError
from boardfit.runtime.engines import Engine
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import Artifact
from boardfit.timing import time_paired

ROUNDS = 25
MOST_PHOTOS = 512
"""So many labelled photographs are answered by both nets at each size."""
MOST_EPOCHS = 300
"""So many of a long training are kept, evenly spaced: measurements have a limit of size."""
_BATCH = 16
_IMAGES = 2
"""So many show that an exported source answers as it should."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """What is compared.

    Attributes:
        before: The source.
        after: What the stages made of it.
        stages: Their names, and ``qat`` where a net was trained in simulated int8.
        sizes: Input sides in pixels, ascending.
        formats: In which both are exported and timed; none where they are the same net.
        exported: Its artifacts.
        samples: Images at every size.
        photos: Labelled photographs that answers are judged on; empty where there are none.
        parity: The limits within which an exported source answers like itself.
        outcomes: What was asked for in integers.
        logs: Folder in which each stage that trained has a folder, with a ``log.csv`` in it or deeper.
    """

    before: TrainedModel
    after: TrainedModel
    stages: tuple[str, ...]
    sizes: tuple[int, ...]
    formats: tuple[str, ...]
    exported: Sequence[Exported]
    samples: Samples
    photos: Sequence[Photo]
    parity: ParitySection
    logs: Path
    outcomes: Sequence[Outcome] = ()


def record_of(
    found: Compressed, agreement: Sequence[ScoreChange], progress: Progress = lambda _: None
) -> tuple[CompressionRecord, tuple[str, ...]]:
    """Measure what compressing changed.

    Args:
        found: What is compared.
        agreement: By size, answers that are the source's at its largest size.
        progress: Told what is being done.

    Returns:
        The record, and a sentence for each format of which the source could not be compared.
    """
    pairs: list[_Pair] = []
    notes: list[str] = []
    for format_name in found.formats:
        progress(f"exporting the source as {format_name}, to be compared with")
        try:
            pairs.append(_pair(found, format_name))
        except (ExportError, EngineError) as error:
            notes.append(f"what compressing brings for {format_name} was not measured: {error}")
    right: tuple[ScoreChange, ...] = ()
    if found.photos:
        progress(f"judging both on {min(len(found.photos), MOST_PHOTOS)} labelled photographs or fewer")
        right = right_answers(found.before, found.after, sizes=found.sizes, photos=found.photos)
    if pairs:
        progress("timing the source beside the compressed model")
    record = CompressionRecord(
        stages=found.stages,
        before=_facts(found.before, found.sizes),
        after=_facts(found.after, found.sizes),
        agreement=tuple(agreement),
        right=right,
        files=tuple(_files(pair) for pair in pairs),
        times=tuple(row for pair in pairs for row in _times(pair, found.samples)),
        integers=tuple(_integers(found.outcomes)),
        curves=read_curves(found.logs, [*found.stages, *_qat_folders(found.outcomes)]),
    )
    return record, tuple(notes)


def _facts(model: TrainedModel, sizes: Sequence[int]) -> NetFacts:
    return NetFacts(
        parameters=model.at(sizes[-1]).net.count_params(),
        macs={size: _macs(model.at(size).net, size) for size in sizes},
    )


def _macs(net: Any, side: int) -> int:
    return sum(row.macs for row in layer_rows(net, side))


def _integers(outcomes: Sequence[Outcome]) -> Iterator[IntegerChange]:
    """Yield what training in simulated int8 did to each artifact."""
    for outcome in outcomes:
        taught = outcome.taught
        if taught is None:
            continue
        measure = "flips" if outcome.verdict.drop is None else "drop"
        steps = (taught.before, taught.qat)
        before, after = (getattr(step.verdict, measure) if step.verdict else None for step in steps)
        errors = [step.error if math.isfinite(step.error) else None for step in steps]
        yield IntegerChange(
            artifact=outcome.name,
            size=outcome.size,
            measure=measure,
            before=before,
            after=after,
            error_before=errors[0],
            error_after=errors[1],
            used=taught.used,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The artifacts of one format and precision, of the source and of the compressed model."""

    before: tuple[Exported, ...]
    after: tuple[Exported, ...]

    @property
    def artifact(self) -> Artifact:
        """Any of them: format and precision are the same."""
        return self.after[0].artifact


def _pair(found: Compressed, format_name: str) -> _Pair:
    """Export the source as the compressed model was; in fp32 where that was not exported in floats.

    Raises:
        ExportError: That cannot be done, or does not answer like the source.
    """
    own = [item for item in found.exported if item.artifact.format == format_name]
    for precision in ("fp32", "fp16"):
        after = tuple(item for item in own if item.artifact.precision == precision)
        if after:
            return _Pair(_exports(found, found.before, format_name, precision), after)
    return _Pair(
        _exports(found, found.before, format_name, "fp32"), _exports(found, found.after, format_name, "fp32")
    )


def _exports(
    found: Compressed, model: TrainedModel, format_name: str, precision: str
) -> tuple[Exported, ...]:
    """Export one file for all sizes, or where that is outside the gate one per size, as a build does.

    Raises:
        ExportError: Neither can be done, or answers like the model.
    """
    if model.nets_by_size is None and len(found.sizes) > 1:
        with suppress(ExportError):
            return _proven(found, model, [found.sizes], format_name=format_name, precision=precision)
    alone = [(size,) for size in found.sizes]
    return _proven(found, model, alone, format_name=format_name, precision=precision)


def _proven(
    found: Compressed,
    model: TrainedModel,
    groups: Sequence[tuple[int, ...]],
    *,
    format_name: str,
    precision: str,
) -> tuple[Exported, ...]:
    """Export one file per group of sizes, each of which answers like the model."""
    few = Samples(
        tensors={size: tensor[:_IMAGES] for size, tensor in found.samples.tensors.items()},
        photographs=min(_IMAGES, found.samples.photographs),
    )
    expected = {size: run_reference(model.reference, few.tensors[size]) for size in found.sizes}
    items = [export(model, format_name=format_name, sizes=s, precision=precision) for s in groups]
    for item in items:
        for row in verify(item, samples=few, expected=expected, gate=found.parity, task=model.task):
            if row.fault:
                raise ExportError(f"{model.name}: {item.artifact.name} is not like its source: {row.fault}")
    return tuple(items)


def _files(pair: _Pair) -> FileChange:
    before, after = (
        sum(len(data) for item in items for data in item.files.values())
        for items in (pair.before, pair.after)
    )
    return FileChange(pair.artifact.format, pair.artifact.precision, before, after)


def _times(pair: _Pair, samples: Samples, *, threads: int = 1) -> list[TimeChange]:
    """Time both sides in turn at every size, on one thread."""
    rows = []
    for size, tensor in samples.tensors.items():
        opened: list[Engine] = []
        try:
            calls = {}
            for name, items in (("before", pair.before), ("after", pair.after)):
                item = next(item for item in items if size in item.artifact.sizes)
                opened.append(open_engine(item, threads=threads))
                calls[name] = partial(opened[-1].run, feeds_of(item.artifact, tensor, row=0))
            timed = time_paired(calls, rounds=ROUNDS)
        finally:
            for engine in opened:
                engine.close()
        rows.append(
            TimeChange(
                engine=engine_name(pair.artifact.format),
                format=pair.artifact.format,
                precision=pair.artifact.precision,
                size=size,
                threads=threads,
                before_s=timed["before"].p50_s,
                after_s=timed["after"].p50_s,
                ratio=timed["after"].ratio_to(timed["before"]),
            )
        )
    return rows


def right_answers(
    before: TrainedModel, after: TrainedModel, *, sizes: Sequence[int], photos: Sequence[Photo]
) -> tuple[ScoreChange, ...]:
    """Return the share of right answers of both models at each size, on the same photographs.

    Args:
        before: The source.
        after: The compressed model.
        sizes: Input sides in pixels.
        photos: Labelled; MOST_PHOTOS of them at most are read, evenly spaced, and what cannot be is skipped.
    """
    step = max(1, -(-len(photos) // MOST_PHOTOS))
    fit = Preprocessor(before.image, "NHWC").fit
    # By size, the number of images that (source, compressed model) answer rightly (1) or not (0).
    counts = {size: np.zeros((2, 2), int) for size in sizes}
    for frames, labels in _batches(photos[::step]):
        for size in sizes:
            tensor = np.concatenate([fit(frame, size)[0] for frame in frames])
            hits = [_hits(model, tensor, labels) for model in (before, after)]
            np.add.at(counts[size], tuple(hits), 1)
    return tuple(_score(size, count) for size, count in counts.items() if count.any())


def _hits(model: TrainedModel, tensor: np.ndarray, labels: np.ndarray) -> np.ndarray:
    scores = run_reference(model.reference, tensor)[0]
    return np.asarray(top1(scores, model.outputs[0].activation) == labels, int)


def _score(size: int, counts: np.ndarray) -> ScoreChange:
    images = int(counts.sum())
    before, after = (100.0 * float(share) / images for share in (counts[1].sum(), counts[:, 1].sum()))
    return ScoreChange(size, images, before, after, lost=int(counts[1, 0]), gained=int(counts[0, 1]))


def _batches(photos: Sequence[Photo]) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Yield frames with their labels, a few at a time: they are held in full."""
    for first in range(0, len(photos), _BATCH):
        frames, labels = [], []
        for photo in photos[first : first + _BATCH]:
            with suppress(InputError):  # it was named when the images were chosen
                frames.append(read_image(photo.path))
                labels.append(photo.label)
        if frames:
            yield frames, np.asarray(labels)


def _qat_folders(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"qat-{outcome.size}" for outcome in outcomes if outcome.taught]


def read_curves(folder: Path, stages: Collection[str]) -> tuple[Curve, ...]:
    """Return the curves of stages' trainings whose logs lie in a folder, the first one first.

    Args:
        folder: With a folder for each stage, and a ``log.csv`` in it, or deeper, where it trained.
        stages: Names of folders. Others may lie there: of a stage that was interrupted and is asked for no
            longer.
    """
    found = (path for name in sorted(set(stages)) for path in (folder / name).glob("**/log.csv"))
    logs = sorted(found, key=lambda path: path.stat().st_mtime_ns)
    return tuple(_curve(path, " ".join(path.parent.relative_to(folder).parts)) for path in logs)


def _curve(path: Path, stage: str) -> Curve:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    step = max(1, -(-len(rows) // MOST_EPOCHS))
    kept = rows[::-1][::step][::-1]  # the last epoch stays
    names = [name for name in rows[0] if name not in ("epoch", "phase", "steps")]
    return Curve(
        stage=stage,
        epochs=tuple(int(row["epoch"]) for row in kept),
        phases=tuple(row["phase"] for row in kept),
        series={name: tuple(_number(row[name]) for row in kept) for name in names},
    )


def _number(text: str) -> float | None:
    value = float(text)
    return float(f"{value:.6g}") if math.isfinite(value) else None
