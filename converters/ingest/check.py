"""The proof of an import: the net answers like its source, at every size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boardfit.converters.model import Reference
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec, TensorSpec

TOLERANCE = 1e-4
"""Largest accepted ``max|a-b| / max|b|`` of an import, both sides float32."""


def max_relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return ``max|actual - expected| / max|expected|``; infinity where shapes differ or one is not finite.

    Args:
        actual: Any shape, float.
        expected: The same shape, float.
    """
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    if expected.size == 0:
        return 0.0
    difference = float(np.abs(actual.astype(np.float64) - expected).max())
    scale = float(np.abs(expected).max())
    return difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))


def random_images(size: int, image: ImageSpec, *, count: int = 1, seed: int = 0) -> np.ndarray:
    """Return seeded noise as the net would get it from frames.

    Args:
        size: Side in pixels.
        image: Mean and standard deviation, in pixel units.
        count: Number of images.
        seed: Same seed, same images.

    Returns:
        (count, size, size, 3) float32.
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)).astype(np.float32)
    mean, std = np.asarray(image.mean, np.float32), np.asarray(image.std, np.float32)
    return np.asarray((pixels - mean) / std)


def random_further(
    specs: Sequence[TensorSpec], size: int, image: ImageSpec, *, count: int = 1, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Return seeded values for the inputs besides the image: 0 to 1, whole numbers where they must be.

    Args:
        specs: As ``TrainedModel.further``.
        size: Side in pixels of images.
        image: Mean and standard deviation of images.
        count: Rows of each.
        seed: Same seed, same values.

    Returns:
        float32 arrays of ``count`` rows.
    """
    random = np.random.default_rng(seed)
    rows = []
    for place, spec in enumerate(specs):
        if spec.layout:
            rows.append(random_images(size, image, count=count, seed=seed + 1000 + place))
            continue
        values = random.random((count, *(extent or 1 for extent in spec.shape[1:])))
        rows.append((values if spec.dtype == "float32" else values.round()).astype(np.float32))
    return tuple(rows)


def outputs_of(net: Any, images: np.ndarray, further: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
    """Run a Keras net, and return its outputs in order, float32.

    Args:
        net: keras.Model, its image input first.
        images: (N, S, S, 3) float32.
        further: N rows of each input besides the image.
    """
    return flat_arrays(net([images, *further] if further else images, training=False))


def flat_arrays(answer: Any) -> list[np.ndarray]:
    """Return what a Keras net answers as a list of float32 arrays.

    Args:
        answer: A tensor, or lists and dicts of them.
    """
    import keras

    found = map(keras.ops.convert_to_numpy, keras.tree.flatten(answer))
    return [np.asarray(item, np.float32) for item in found]


def check_import(
    net: Any,
    reference: Reference,
    *,
    sizes: Sequence[int],
    image: ImageSpec,
    name: str,
    further: Sequence[TensorSpec] = (),
) -> float:
    """Compare a net with its source on seeded noise.

    Args:
        net: keras.Model, (N, H, W, 3) and what ``further`` says -> its outputs.
        reference: The source in its own framework.
        sizes: Sides in pixels at which both can run.
        image: How frames are normalised.
        name: The source's name, for the message.
        further: Inputs besides the image.

    Returns:
        The largest ``max_relative_difference`` of all sizes.

    Raises:
        UnsupportedModel: It is above ``TOLERANCE``, or the source answers NaN.
    """
    worst = 0.0
    for size in sizes:
        images = random_images(size, image)
        more = random_further(further, size, image)
        expected = reference(images, more)
        if not all(np.isfinite(array).all() for array in expected):
            raise UnsupportedModel(
                f"{name} answers NaN or infinity at {size} pixels: its weights are damaged, or its training "
                "diverged. Check the source in its own framework."
            )
        actual = outputs_of(net, images, more)
        difference = max(max_relative_difference(a, b) for a, b in zip(actual, expected, strict=True))
        if difference > TOLERANCE:
            raise UnsupportedModel(
                f"{name} was read, but answers differently at {size} pixels: relative difference "
                f"{difference:.2g}, expected at most {TOLERANCE:g}. The import is wrong for this net; "
                "please report it with the model."
            )
        worst = max(worst, difference)
    return worst
