"""Resizing inside a training step."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.compress.resize import area_matrix, resize_batch
from boardfit.runtime.resize import resize_square


@pytest.mark.parametrize(("side", "size"), [(32, 24), (32, 16), (224, 160), (33, 7)])
def test_it_agrees_with_what_the_runtime_does(side, size):
    pixels = np.random.default_rng(side).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    found = np.asarray(resize_batch(pixels.astype(np.float32), size))
    expected = np.stack([resize_square(image, size, resize="area") for image in pixels])
    assert np.abs(found - expected).max() <= 1.0  # the runtime rounds to bytes, in two steps


def test_every_output_pixel_is_a_mean():
    assert np.allclose(area_matrix(32, 24).sum(axis=1), 1.0)
    assert (area_matrix(32, 24) >= 0.0).all()


def test_the_same_side_is_left_alone():
    images = np.ones((1, 8, 8, 3), np.float32)
    assert resize_batch(images, 8) is images
