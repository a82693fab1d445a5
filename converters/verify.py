"""Parity: every artifact runs on its own engine and is compared with the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boardfit.converters.masks import masks, mean_iou
from boardfit.converters.model import Reference
from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import Exported
from boardfit.errors import EngineError, EngineLost, EngineMissing, ParityError
from boardfit.runtime.engines import Engine, available_engines, engine_classes, find_engine
from boardfit.runtime.isolate.engine import isolated_engine
from boardfit.runtime.isolate.host import EngineHost
from boardfit.runtime.isolate.options import Isolation, most_memory_bytes
from boardfit.specs import Artifact

REFERENCE_BATCH = 2
"""Images at a time: TensorFlow keeps the memory that one batch took, 0.6 GB for 8 of 224 pixels in Lite0."""

_RUN_S = 120.0
"""For one image in an engine; one that hangs is killed."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How one artifact at one size answers, compared with its source.

    Attributes:
        artifact: The artifact's name.
        size: Input side in pixels.
        images: How many images were compared, synthetic ones included.
        synthetic: How many of them were synthetic.
        max_abs: Largest absolute difference of any output value.
        mean_abs: Mean absolute difference.
        cosine: Mean over images of the cosine between the two answers.
        flips: Images whose top-1 answer differs; of a net with one output, whose yes or no does.
        wide_flips: Those among them whose margin in the source exceeds four times the difference
            that fp32 is allowed.
        output_range: Largest minus smallest value of the source's output.
        iou: Of a segmenter: mean overlap of its masks with the source's; else None.
        fault: Why the artifact is outside the gate; empty if it is inside.
    """

    artifact: str
    size: int
    images: int
    synthetic: int
    max_abs: float
    mean_abs: float
    cosine: float
    flips: int
    wide_flips: int
    output_range: float
    iou: float | None = None
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values. What is not finite becomes null."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def engine_name(format_name: str) -> str:
    """Return the engine that proves a format on this machine.

    Raises:
        EngineMissing: No engine that runs the format is installed.
    """
    installed = available_engines(format_name)
    if not installed:
        could = [name for name, engine in engine_classes().items() if format_name in engine.formats]
        raise EngineMissing(
            f"no engine that runs {format_name} is installed, and every artifact is proven on its engine: "
            f"install one of {', '.join(sorted(could)) or 'none known'} (pip install 'boardfit[convert]'), "
            "or leave the format out with --formats"
        )
    return installed[0]


def open_engine(exported: Exported, *, threads: int) -> Engine:
    """Load an artifact into its engine.

    Raises:
        EngineMissing: The engine is not installed.
        EngineError: The engine refuses the artifact.
    """
    engine = find_engine(engine_name(exported.artifact.format))
    return engine(exported.artifact, exported.files, threads)


def run_reference(
    reference: Reference, tensor: np.ndarray, further: Sequence[np.ndarray] = ()
) -> list[np.ndarray]:
    """Run the source in small batches.

    Args:
        reference: The source.
        tensor: (N, S, S, 3) float32 images.
        further: N rows of each input besides the image; of an image NHWC.

    Returns:
        Outputs of N rows each, float32.
    """
    parts = []
    for start in range(0, len(tensor), REFERENCE_BATCH):
        rows = slice(start, start + REFERENCE_BATCH)
        more = [array[rows] for array in further]
        parts.append(reference(tensor[rows], more) if more else reference(tensor[rows]))
    return [np.concatenate(rows).astype(np.float32, copy=False) for rows in zip(*parts, strict=True)]


def run_artifact(
    engine: Engine, artifact: Artifact, *, tensor: np.ndarray, further: Sequence[np.ndarray] = ()
) -> list[np.ndarray]:
    """Run an artifact over (N, S, S, 3) float32 images one by one; outputs of N rows each."""
    parts = [engine.run(feeds_of(artifact, tensor, further, row=row)) for row in range(len(tensor))]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def feeds_of(
    artifact: Artifact, tensor: np.ndarray, further: Sequence[np.ndarray] = (), *, row: int
) -> dict[str, np.ndarray]:
    """Return one image and what comes with it as an engine takes them.

    Args:
        artifact: What runs.
        tensor: (N, S, S, 3) float32 images.
        further: N rows of each input besides the image; of an image NHWC.
        row: Which of the N.
    """
    feeds = {}
    for spec, array in zip(artifact.inputs, [tensor, *further], strict=True):
        one = array[row : row + 1]
        one = one.transpose(0, 3, 1, 2) if spec.layout == "NCHW" else one
        feeds[spec.name] = np.ascontiguousarray(one, spec.dtype)
    return feeds


def verify(
    exported: Exported,
    *,
    samples: Samples,
    expected: Mapping[int, Sequence[np.ndarray]],
    gate: ParitySection,
    task: str = "classify",
) -> list[Parity]:
    """Compare one artifact with its source at each of its sizes.

    Args:
        exported: The artifact and its files.
        samples: The images.
        expected: The source's outputs by size, for the same images.
        gate: The limits.
        task: What the model is for.

    Returns:
        One Parity per size; an engine that refuses the artifact becomes a fault.
    """
    artifact = exported.artifact
    try:
        with _proving_engine(exported) as engine:
            return [
                _verify_size(engine, artifact, size, samples=samples, expected=expected, gate=gate, task=task)
                for size in artifact.sizes
            ]
    except EngineError as error:
        return [_refused(artifact, size, samples, error) for size in artifact.sizes]


@contextmanager
def _proving_engine(exported: Exported) -> Iterator[Engine]:
    """Lend an artifact's engine, in a process of its own: of a file that is new to it, an engine may die.

    One thread: on a busy machine ncnn's OpenMP threads, spinning for each other, took 40 times as long.
    """
    engine = find_engine(engine_name(exported.artifact.format))
    limits = Isolation(deadline_s=_RUN_S, first_deadline_s=_RUN_S, memory_bytes=most_memory_bytes())
    host = EngineHost(engine, limits)
    try:
        yield isolated_engine(engine, host)(exported.artifact, exported.files, 1)
    finally:
        host.close()


def _verify_size(
    engine: Engine,
    artifact: Artifact,
    size: int,
    *,
    samples: Samples,
    expected: Mapping[int, Sequence[np.ndarray]],
    gate: ParitySection,
    task: str,
) -> Parity:
    try:
        further = samples.further.get(size, ())
        actual = run_artifact(engine, artifact, tensor=samples.tensors[size], further=further)
    except EngineError as error:
        return _refused(artifact, size, samples, error)
    return compare(
        actual,
        expected[size],
        artifact=artifact,
        size=size,
        synthetic=samples.synthetic,
        gate=gate,
        task=task,
    )


def compare(
    actual: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    *,
    artifact: Artifact,
    size: int,
    synthetic: int,
    gate: ParitySection,
    task: str = "classify",
) -> Parity:
    """Compare outputs of N rows each; the worst output counts. Only a classifier has answers that flip."""
    shapes = [array.shape for array in actual], [array.shape for array in expected]
    images = len(expected[0])
    if shapes[0] != shapes[1]:
        fault = f"outputs have the shapes {shapes[0]}: the source's are {shapes[1]}"
        return _faulty(artifact, size, images, synthetic, fault)
    if not all(np.isfinite(array).all() for array in actual):
        return _faulty(artifact, size, images, synthetic, "outputs hold NaN or infinity")
    differences = [np.abs(a - b) for a, b in zip(actual, expected, strict=True)]
    ranges = [float(np.ptp(array)) for array in expected]
    relative = [float(d.max()) / max(r, 1e-12) for d, r in zip(differences, ranges, strict=True)]
    worst = int(np.argmax(relative))
    activation = artifact.outputs[0].activation
    flipped = wide = np.zeros(images, bool)
    if task == "classify":
        flipped = top1(actual[0], activation) != top1(expected[0], activation)
        wide = flipped & (_margins(expected[0], activation) > 4.0 * gate.fp32_max_abs * ranges[0])
    iou = None
    if task == "segment":
        iou = mean_iou(*(masks(array, activation) for array in (actual[0], expected[0])))
    parity = Parity(
        artifact=artifact.name,
        size=size,
        images=images,
        synthetic=synthetic,
        max_abs=float(differences[worst].max()),
        mean_abs=float(differences[worst].mean()),
        cosine=min(_cosine(a, b) for a, b in zip(actual, expected, strict=True)),
        flips=int(flipped.sum()),
        wide_flips=int(wide.sum()),
        output_range=ranges[worst],
        iou=iou,
    )
    return _judged(parity, artifact.precision, gate)


def top1(array: np.ndarray, activation: str) -> np.ndarray:
    """Return each of N rows' best column; of a single column, on which side of its boundary it lies."""
    rows = _rows(array)
    return np.asarray(rows.argmax(axis=1) if rows.shape[1] > 1 else rows[:, 0] > _boundary(activation))


def require_inside(parity: Sequence[Parity]) -> None:
    """Raise ParityError with the whole table if a row is outside the gate."""
    outside = list(dict.fromkeys(row.artifact for row in parity if row.fault))
    if outside:
        raise ParityError(
            f"{', '.join(outside)} answer(s) unlike the source, nothing was written; "
            f"leave the format out, or widen the recipe's [parity] knowingly\n{parity_table(parity)}"
        )


def parity_table(rows: Sequence[Parity]) -> str:
    """Return the comparison as a table of plain text, faults last."""
    lines = [
        f"{'artifact':<14} {'size':>5} {'images':>6} {'max abs':>9} {'of range':>9} "
        f"{'cosine':>8} {'flips':>5}  gate"
    ]
    for row in rows:
        share = row.max_abs / row.output_range if row.output_range else 0.0
        lines.append(
            f"{row.artifact:<14} {row.size:>5} {row.images:>6} {row.max_abs:>9.2e} {share:>9.1e} "
            f"{row.cosine:>8.5f} {row.flips:>5}  {row.fault or 'ok'}"
        )
    return "\n".join(lines)


def _judged(parity: Parity, precision: str, gate: ParitySection) -> Parity:
    """Return the record with the reason why it is outside the gate, if it is.

    Quantized artifacts have a gate of their own, see ``boardfit.converters.quantize.gate``.
    """
    faults = []
    if precision == "fp32":
        limit = gate.fp32_max_abs * parity.output_range
        if parity.max_abs > limit:
            faults.append(f"differs by {parity.max_abs:.3g}: at most {limit:.3g} is allowed")
        if parity.wide_flips:
            faults.append(f"{parity.wide_flips} clear answers changed: none may")
    elif precision == "fp16":
        allowed = max(1, int(gate.fp16_max_flips * parity.images))
        if parity.cosine < gate.fp16_min_cosine:
            faults.append(f"cosine {parity.cosine:.5f}: at least {gate.fp16_min_cosine} is expected")
        if parity.flips > allowed:
            faults.append(f"{parity.flips} answers changed: at most {allowed} may")
        if parity.iou is not None and parity.iou < gate.fp16_min_iou:
            faults.append(f"its masks overlap by {parity.iou:.4f}: at least {gate.fp16_min_iou} is expected")
    return Parity(**{**asdict(parity), "fault": "; ".join(faults)})


def _faulty(artifact: Artifact, size: int, images: int, synthetic: int, fault: str) -> Parity:
    nan = float("nan")
    return Parity(
        artifact=artifact.name,
        size=size,
        images=images,
        synthetic=synthetic,
        max_abs=nan,
        mean_abs=nan,
        cosine=nan,
        flips=images,
        wide_flips=images,
        output_range=nan,
        fault=fault,
    )


def _refused(artifact: Artifact, size: int, samples: Samples, error: EngineError) -> Parity:
    fault = f"the engine refused it: {error}"
    if isinstance(error, EngineLost):
        fault = f"the engine did not survive it: {error.__cause__ or error}"
    return _faulty(artifact, size, samples.count, samples.synthetic, fault)


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1)


def _margins(array: np.ndarray, activation: str) -> np.ndarray:
    """Return by how much each row's best value leads its second best, or a single one its boundary."""
    rows = _rows(array)
    if rows.shape[1] < 2:
        return np.abs(rows[:, 0] - _boundary(activation))
    best = np.partition(rows, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def _boundary(activation: str) -> float:
    """Return where the answer of a net with one output turns from no to yes."""
    return 0.5 if activation == "sigmoid" else 0.0


def _cosine(actual: np.ndarray, expected: np.ndarray) -> float:
    a, b = _rows(actual).astype(np.float64), _rows(expected).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.all(a == b, axis=1)
    cosines = np.where(same, 1.0, (a * b).sum(axis=1) / np.maximum(norms, 1e-30))
    return float(cosines.mean())
