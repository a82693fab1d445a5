"""What a net takes besides the frame: a box, a scale, the camera's tilt, a second picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boardfit.errors import InputError
from boardfit.runtime.preprocess import Preprocessor, as_bgr
from boardfit.specs import Artifact, TensorSpec

Inputs = Mapping[str, Any]
"""By the model's name of each further input: numbers in its shape, or a frame where it takes an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One frame's further inputs, checked, in the order of an artifact's.

    Attributes:
        arrays: Each HxWx3 uint8 BGR for an image, else float32 without the batch's axis.
    """

    arrays: tuple[np.ndarray, ...] = ()


NOTHING = Given()


def input_specs(artifacts: Sequence[Artifact]) -> tuple[TensorSpec, ...]:
    """Return the inputs under the model's own names, which all formats but TFLite keep; the frame first.

    Args:
        artifacts: Of one bundle.
    """
    best = min(artifacts, key=lambda artifact: artifact.format == "tflite")
    return tuple(replace(spec, name=plain_name(spec.name)) for spec in best.inputs)


def plain_name(name: str) -> str:
    """Return an input's name without what TensorFlow writes around it: ``serving_default_`` and ``:0``."""
    return name.removeprefix("serving_default_").removesuffix(":0")


def check_given(specs: Sequence[TensorSpec], inputs: Inputs | None) -> Given:
    """Check what was given besides a frame.

    Args:
        specs: Of the further inputs, under the model's names.
        inputs: Each input by name, without the batch's axis; None where there are none.

    Raises:
        InputError: One is missing, is not known, has another shape, or holds what is no finite number.
    """
    if not specs and not inputs:
        return NOTHING
    given = {} if inputs is None else inputs
    wanted = taken_text(specs)
    if not isinstance(given, Mapping):
        raise InputError(f"inputs is {type(given).__name__}: expected a mapping of {wanted}")
    unknown = [str(name) for name in given if name not in {spec.name for spec in specs}]
    if unknown:
        raise InputError(f"the net has no input {unknown[0]!r}: it takes {wanted}")
    missing = [spec.name for spec in specs if spec.name not in given]
    if missing:
        raise InputError(
            f"the input {missing[0]!r} is missing: give inputs={{{missing[0]!r}: ...}}; it takes {wanted}"
        )
    return Given(tuple(_checked(spec, given[spec.name]) for spec in specs))


def further_feeds(
    artifact: Artifact, given: Sequence[Given], size: int, preprocessor: Preprocessor
) -> dict[str, np.ndarray]:
    """Return the tensors of the further inputs for a batch of frames.

    Args:
        artifact: What runs.
        given: Of each frame.
        size: Side in pixels of images.
        preprocessor: In the artifact's layout.
    """
    feeds = {}
    for place, spec in enumerate(artifact.inputs[1:]):
        rows = [item.arrays[place] for item in given]
        tensors = [preprocessor.fit(row, size)[0] if spec.layout else row[None] for row in rows]
        feeds[spec.name] = np.concatenate(tensors).astype(spec.dtype, copy=False)
    return feeds


def neutral(specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Return something to give where nothing is known, to warm an engine: zeros, and grey images."""
    return {
        spec.name: np.full((240, 320, 3), 127, np.uint8)
        if spec.layout
        else np.zeros([extent or 1 for extent in spec.shape[1:]], np.float32)
        for spec in specs
    }


def taken_text(specs: Sequence[TensorSpec]) -> str:
    """Return names and shapes of further inputs, for people: ``box (4,), right (an image)``.

    Args:
        specs: Of the further inputs, under the model's names.
    """
    return ", ".join(f"{spec.name} {_form(spec)}" for spec in specs) or "none besides the frame"


def _form(spec: TensorSpec) -> str:
    return "(an image)" if spec.layout else str(tuple(spec.shape[1:]))


def _checked(spec: TensorSpec, value: Any) -> np.ndarray:
    if spec.layout:
        try:
            return as_bgr(value)
        except InputError as error:
            raise InputError(f"the input {spec.name!r} is an image: {error}") from error
    try:
        array = np.asarray(value)
        number = array.dtype.kind in "biuf"
    except ValueError:  # rows of unlike lengths
        array, number = np.empty(0), False
    if not number:
        raise InputError(f"the input {spec.name!r} is no array of numbers: expected {_form(spec)}")
    if array.shape != spec.shape[1:]:
        raise InputError(
            f"the input {spec.name!r} has the shape {array.shape}: expected {_form(spec)}, for one frame"
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"the input {spec.name!r} holds NaN or infinity: expected finite numbers")
    return array
