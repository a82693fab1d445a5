"""One format at one size on the bench: what candidates are made from, and what they are measured with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol, cast

import numpy as np

from boardfit.converters.calibrate import Range
from boardfit.converters.quantize.gate import Answers, Limits, Verdict, judge
from boardfit.converters.quantize.quality import output_error
from boardfit.converters.quantize.records import Layer, Probe
from boardfit.converters.targets import Exported
from boardfit.converters.verify import open_engine, run_artifact, top1
from boardfit.errors import EngineError, RecipeError
from boardfit.timing import usable_cores

GROUP = "boardfit.quantizers"
CHOOSING = 128
"""Calibration images on which candidates are compared: all would take longer than they tell."""

FEWEST_APART = 64
"""Images for surgery beside those of CHOOSING; with fewer left it looks at all of them."""

Run = Callable[[Exported, np.ndarray], list[np.ndarray]]
Ranges = Mapping[str, Range]


class Quantizer(Protocol):
    """A format's quantizer, see ``records``. ``SCHEMES`` are the precisions that it makes."""

    SCHEMES: tuple[str, ...]

    def layers(self, exported: Exported) -> tuple[Layer, ...]:
        """Return the layers of an artifact that hold weights."""
        ...

    def open_probe(self, exported: Exported, *, threads: int = 1) -> Probe:
        """Open an artifact so that its inner tensors can be read."""
        ...

    def quantize(
        self,
        exported: Exported,
        *,
        ranges: Mapping[str, Range],
        keep_float: frozenset[str] = frozenset(),
        scheme: str = "int8",
    ) -> Exported:
        """Quantize an fp32 artifact of one size."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What candidates of one format at one size are made from and measured with.

    Attributes:
        quantizer: Of the format.
        twin: The fp32 artifact of this size.
        calibration: (N, S, S, 3) float32.
        expected: The twin's outputs for the first CHOOSING of them.
        validation: (M, S, S, 3) float32, other images.
        validated: The twin's outputs for them.
        answers: What answers to them are compared with.
        limits: Of the gate.
        largest: Whether this is the bundle's largest size.
        estimators: Methods to try.
        variants: By name: makes the fp32 artifact of the same net after surgery, best tried in this order.
        trained: Of the twin's tensors, the ranges that a training found; empty where there was none.
        qat: Makes the fp32 artifact of the net after training in simulated int8, and its trained ranges by
            tensor; None where nothing is trained.
        qat_always: Whether it is tried even where the gate is met without it.
        run: Runs an artifact over images.
        progress: Told what is being done.
    """

    quantizer: Quantizer
    twin: Exported
    calibration: np.ndarray
    expected: Sequence[np.ndarray]
    validation: np.ndarray
    validated: Sequence[np.ndarray]
    answers: Answers
    limits: Limits
    largest: bool
    estimators: tuple[str, ...]
    variants: Mapping[str, Callable[[], Exported]]
    run: Run
    progress: Callable[[str], None]
    trained: Ranges = field(default_factory=dict)
    qat: Callable[[], tuple[Exported, Ranges]] | None = None
    qat_always: bool = False

    def error(self, exported: Exported) -> float:
        """Return the output error on calibration images; infinite where the engine refuses the artifact."""
        try:
            actual = self.run(exported, self.calibration[:CHOOSING])
        except EngineError as error:
            self.progress(f"{exported.artifact.name} cannot run: {error}")
            return float("inf")
        return output_error(actual, self.expected, exported.artifact.outputs)

    def judge(self, exported: Exported) -> tuple[Verdict, np.ndarray]:
        """Return the gate's verdict and the (M,) answers to the validation images."""
        actual = self.run(exported, self.validation)
        outputs = exported.artifact.outputs
        found = np.asarray(top1(actual[0], outputs[0].activation), np.int64)
        divergence = output_error(actual, self.validated, outputs)
        verdict = judge(found, self.answers, divergence=divergence, limits=self.limits, largest=self.largest)
        return verdict, found


def apart(calibration: np.ndarray) -> np.ndarray:
    """Return the calibration images that surgery looks at: not those on which its outcome is then compared.

    What was fitted to images answers too well on them: it would be chosen where it does harm.

    Args:
        calibration: (N, S, S, 3) float32.
    """
    rest = calibration[CHOOSING:]
    return rest if len(rest) >= FEWEST_APART else calibration


def find_quantizer(format_name: str) -> Quantizer:
    """Return a format's quantizer.

    Raises:
        RecipeError: No installed package has one.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if format_name not in found:
        raise RecipeError(
            f"the format {format_name!r} cannot be quantized: {', '.join(sorted(found)) or 'none'} can"
        )
    return cast(Quantizer, found[format_name].load())


def run_exported(exported: Exported, tensor: np.ndarray) -> list[np.ndarray]:
    """Run an artifact on its engine over (N, S, S, 3) float32 images, on every core one engine.

    Raises:
        EngineError: The engine refuses the artifact or fails.
    """
    workers = max(1, min(cores(), len(tensor) // 8))
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda rows: _run(exported, rows), np.array_split(tensor, workers)))
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _run(exported: Exported, tensor: np.ndarray) -> list[np.ndarray]:
    engine = open_engine(exported, threads=1)
    try:
        return run_artifact(engine, exported.artifact, tensor=tensor)
    finally:
        engine.close()


def cores() -> int:
    """Return how many cores the stage works on, at most 4."""
    return min(4, usable_cores())
