"""Does this machine compute what the machine computed that built the bundle?"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from boardfit.errors import BundleError, EngineMissing
from boardfit.runtime.choose import choose_engine, default_threads
from boardfit.runtime.engines import Engine, available_engines, find_engine
from boardfit.runtime.inputs import check_given, further_feeds, input_specs, neutral
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import Artifact, TensorSpec

if TYPE_CHECKING:
    from boardfit.bundle import Bundle

FP32_TOLERANCE = 1e-3
COSINE_FLOOR = 0.999
HALF_TOLERANCE = 0.02
QUANTIZED_COSINE = 0.99
QUANTIZED_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One artifact at one size on one engine, against the expected output.

    Attributes:
        artifact: Its name.
        engine: Name of the engine.
        size: Input side in pixels.
        passed: Whether the worst output is within the bound: for fp32, ``error`` at most 1e-3; for fp16,
            ``cosine`` at least 0.999 and ``error`` at most 0.02. What is quantized is held against its own
            answer on the machine of the build, since the source's is not what it should give: ``cosine`` at
            least 0.99, ``error`` at most 0.1, for engines round differently.
        error: Largest absolute difference over the expected output's range (max - min).
        cosine: Smallest cosine between an output and the expected one.
    """

    artifact: str
    engine: str
    size: int
    passed: bool
    error: float
    cosine: float


def self_test(bundle: str | os.PathLike[str] | Bundle, *, engine: str | None = None) -> list[SelfTest]:
    """Run the golden frame through every artifact at every size, on each engine that is installed.

    Args:
        bundle: Path of a bundle, or an open one, which stays open.
        engine: Name of the one engine to test; all that are installed if None.

    Returns:
        One record per artifact, engine and size, in the order of the manifest.

    Raises:
        BundleError: If the bundle is damaged or has no golden frame.
        EngineMissing: If the named engine, or every engine for its files, is not installed.
        RecipeError: If the named engine runs none of its files.
        EngineError: If an engine refuses a file or fails.
    """
    from boardfit.bundle import Bundle, open_bundle

    if not isinstance(bundle, Bundle):
        with open_bundle(bundle) as opened:
            return self_test(opened, engine=engine)
    frame = bundle.golden_frame()
    if frame is None:
        raise BundleError(
            f"bundle {bundle.manifest.name!r} has no golden frame to test with: build it again with images"
        )
    named = None if engine is None else choose_engine(bundle.manifest.artifacts, engine=engine).engine
    records = []
    for artifact in bundle.manifest.artifacts:
        if named is not None and engine is not None:
            able = {engine: named} if artifact.format in named.formats else {}
        else:
            able = {name: find_engine(name) for name in available_engines(artifact.format)}
        for name, found in able.items():
            records += _test(bundle, artifact, name, found, frame)
    if not records:
        formats = ", ".join(sorted({artifact.format for artifact in bundle.manifest.artifacts}))
        raise EngineMissing(
            f"the bundle has {formats}, and no engine that is installed runs these: "
            "pip install 'boardfit[litert]', 'boardfit[onnx]' or 'boardfit[ncnn]'"
        )
    return records


def _test(
    bundle: Bundle, artifact: Artifact, name: str, found: type[Engine], frame: np.ndarray
) -> list[SelfTest]:
    preprocessor = Preprocessor(bundle.manifest.image, artifact.inputs[0].layout)
    running = found(artifact, bundle.artifact_files(artifact), default_threads())
    recorded = recorded_answer(bundle, artifact)
    specs = input_specs(bundle.manifest.artifacts)[1:]
    given = check_given(specs, golden_inputs(bundle, specs))
    records = []
    try:
        for size in artifact.sizes:
            tensor, _ = preprocessor.fit(frame, size)
            further = further_feeds(artifact, [given], size, preprocessor)
            outputs = running.run({artifact.inputs[0].name: tensor, **further})
            test = judge(bundle, artifact, engine=name, size=size, outputs=outputs, recorded=recorded)
            records.append(test)
    finally:
        running.close()
    return records


def golden_or_grey(bundle: Bundle) -> np.ndarray:
    """Return the frame that a bundle is timed with: its golden one, or grey (HxWx3 uint8 BGR) without one.

    Raises:
        BundleError: The golden file is damaged.
    """
    golden = bundle.golden_frame()
    return np.full((360, 480, 3), 127, np.uint8) if golden is None else golden


def golden_inputs(bundle: Bundle, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Return what the self-test gives besides its frame, by name; zeros where the bundle has none.

    Args:
        bundle: Open bundle.
        specs: Of the further inputs, under the model's names.

    Raises:
        BundleError: A golden file is damaged.
    """
    if bundle.manifest.golden is None:
        return neutral(specs)
    return {spec.name: array for spec, array in zip(specs, bundle.golden_inputs(), strict=True)}


def judge(
    bundle: Bundle,
    artifact: Artifact,
    *,
    engine: str,
    size: int,
    outputs: Sequence[np.ndarray],
    recorded: np.ndarray | None,
) -> SelfTest:
    """Compare what an artifact answered to the golden frame with what it should have.

    Args:
        bundle: Open bundle.
        artifact: That answered.
        engine: Name of the engine that ran it.
        size: Input side in pixels.
        outputs: Its arrays for the golden frame.
        recorded: As ``recorded_answer`` returns it.

    Raises:
        BundleError: A golden file is damaged, or has another number of values.
    """
    if recorded is not None:
        outputs = [np.concatenate([output.ravel() for output in outputs])]
    error, cosine = _compare(outputs, bundle.golden_outputs(size) if recorded is None else [recorded])
    return SelfTest(artifact.name, engine, size, _passes(artifact.precision, error, cosine), error, cosine)


def recorded_answer(bundle: Bundle, artifact: Artifact) -> np.ndarray | None:
    """Return what a quantized artifact answered on the machine of the build, all outputs in a row.

    None for one in floating point, which is held against the source's answer.

    Raises:
        BundleError: The record is damaged.
    """
    if artifact.precision in ("fp32", "fp16"):
        return None
    section = (bundle.measurements or {}).get("quantized")
    rows = section.get("artifacts") if isinstance(section, Mapping) else None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("artifact") == artifact.name and row.get("golden"):
            try:
                return np.frombuffer(base64.b64decode(str(row["golden"]), validate=True), "<f4")
            except ValueError as error:
                raise BundleError(
                    f"the recorded answer of {artifact.name} is damaged: build the bundle again"
                ) from error
    return None


def _passes(precision: str, error: float, cosine: float) -> bool:
    if precision == "fp32":
        return error <= FP32_TOLERANCE
    if precision == "fp16":
        return _is_near(error, cosine)
    return cosine >= QUANTIZED_COSINE and error <= QUANTIZED_TOLERANCE


def _is_near(error: float, cosine: float) -> bool:
    """Return whether halved weights explain the difference: one number alone has no angle, but an error."""
    return cosine >= COSINE_FLOOR and error <= HALF_TOLERANCE


def _compare(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the largest relative error and the smallest cosine over all outputs."""
    if [array.size for array in outputs] != [array.size for array in expected]:
        raise BundleError(
            f"the golden outputs have {[array.size for array in expected]} numbers, the model's outputs "
            f"{[array.size for array in outputs]}: build the bundle again"
        )
    errors, cosines = [], []
    for output, wanted in zip(outputs, expected, strict=True):
        got, want = output.ravel().astype(np.float64), wanted.ravel().astype(np.float64)
        if not np.isfinite(got).all():
            return float("inf"), -1.0
        span = float(np.ptp(want)) or float(np.abs(want).max()) or 1.0
        errors.append(float(np.abs(got - want).max()) / span)
        norms = float(np.linalg.norm(got) * np.linalg.norm(want))
        cosines.append(float(np.dot(got, want)) / norms if norms > 0.0 else float(np.array_equal(got, want)))
    return max(errors), min(cosines)
