"""Values for the inputs besides the image, on which a build compares, and which its self-test gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from boardfit.converters.ingest.check import random_further
from boardfit.converters.model import TrainedModel
from boardfit.converters.samples import GOLDEN_SEED, Samples, synthetic_frame
from boardfit.errors import RecipeError
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import TensorSpec


def read_values(words: Sequence[str], further: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Read what was given for the inputs besides the image.

    Args:
        words: ``NAME=FILE.npy`` each: (K, ...) numbers, a row for each of K frames.
        further: As ``TrainedModel.further``.

    Returns:
        float32 arrays of at least one row, by name.

    Raises:
        RecipeError: There is no such input or file, an input is an image, or the numbers have another shape.
    """
    specs = {spec.name: spec for spec in further}
    values = {}
    for word in words:
        name, _, path = word.partition("=")
        if name not in specs or specs[name].layout:
            known = ", ".join(spec.name for spec in further if not spec.layout) or "none"
            raise RecipeError(f"--input {word}: the net has no such input; it takes numbers for: {known}")
        values[name] = _read(path, specs[name], word)
    return values


def _read(path: str, spec: TensorSpec, word: str) -> np.ndarray:
    try:
        array = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecipeError(f"--input {word}: {path} cannot be read as .npy ({error})") from error
    expected = f"(K, {', '.join(map(str, spec.shape[1:]))})" if spec.shape[1:] else "(K,)"
    fits = isinstance(array, np.ndarray) and array.ndim > 0 and array.shape[1:] == spec.shape[1:]
    if not fits or len(array) == 0 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        shape = getattr(array, "shape", "no array")
        raise RecipeError(f"--input {word}: it holds {shape}: expected finite numbers {expected}")
    return np.asarray(array, np.float32)


def with_further(samples: Samples, model: TrainedModel, values: Mapping[str, np.ndarray]) -> Samples:
    """Return samples with a row of every further input beside each image.

    Given rows are repeated as often as it takes. A second image is the photograph before; where no numbers
    were given, they are random from 0 to 1.

    Args:
        samples: Of the images.
        model: What takes them.
        values: As ``read_values`` returns them.
    """
    if not model.further:
        return samples
    further = {}
    for size, tensor in samples.tensors.items():
        made = random_further(model.further, size, model.image, count=len(tensor))
        further[size] = tuple(
            np.roll(tensor, 1, axis=0)
            if spec.layout
            else np.resize(values[spec.name], rows.shape)
            if spec.name in values
            else rows
            for spec, rows in zip(model.further, made, strict=True)
        )
    return replace(samples, further=further)


def values_note(model: TrainedModel, values: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Return the sentence that says for which inputs made-up numbers stand in."""
    made_up = [spec.name for spec in model.further if not spec.layout and spec.name not in values]
    if not made_up:
        return ()
    return (
        f"no values were given for {', '.join(made_up)}: the comparison took random ones from 0 to 1; give "
        "those of real use with --input NAME=FILE.npy",
    )


def golden_further(model: TrainedModel, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return what the self-test gives besides its frame; see ``boardfit.bundle.manifest.Golden.inputs``."""
    made = random_further(model.further, 1, model.image)
    return [
        synthetic_frame(GOLDEN_SEED + 1 + place) if spec.layout else values.get(spec.name, rows)[0]
        for place, (spec, rows) in enumerate(zip(model.further, made, strict=True))
    ]


def golden_rows(
    model: TrainedModel, golden: Sequence[np.ndarray], preprocessor: Preprocessor, size: int
) -> list[np.ndarray]:
    """Return the same as one row of tensors for the source, at one size."""
    return [
        preprocessor.fit(array, size)[0] if spec.layout else array[None]
        for spec, array in zip(model.further, golden, strict=True)
    ]
