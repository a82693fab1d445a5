from __future__ import annotations

import cv2
import numpy as np
import pytest

from boardfit.runtime import resize as module
from boardfit.runtime.resize import resize_square

ALL = ("area", "linear", "cubic", "pil-bicubic")


def smooth_square(side: int) -> np.ndarray:
    small = np.random.RandomState(side).randint(0, 256, (max(2, side // 6), max(2, side // 6), 3))
    return cv2.resize(small.astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("resize", ALL)
@pytest.mark.parametrize(("side", "size"), [(1, 8), (7, 112), (64, 64), (100, 33), (420, 112)])
def test_shape_and_type(resize, side, size):
    out = resize_square(smooth_square(side), size, resize=resize)
    assert out.shape == (size, size, 3)
    assert out.dtype == np.uint8


@pytest.mark.parametrize("resize", ALL)
@pytest.mark.parametrize(("side", "size"), [(50, 20), (20, 50)], ids=["reduce", "enlarge"])
def test_one_colour_stays_that_colour(resize, side, size):
    square = np.empty((side, side, 3), np.uint8)
    square[:] = (3, 128, 255)
    assert (resize_square(square, size, resize=resize) == (3, 128, 255)).all()


@pytest.mark.parametrize("resize", ALL)
def test_equal_sides_change_nothing(resize):
    square = smooth_square(48)
    assert (resize_square(square, 48, resize=resize) == square).all()


@pytest.mark.parametrize("resize", ALL)
def test_rows_may_be_strided(resize):
    frame = smooth_square(90)
    crop = frame[5:75, 11:81]
    assert (resize_square(crop, 30, resize=resize) == resize_square(crop.copy(), 30, resize=resize)).all()


def test_area_is_the_mean_of_each_block():
    square = np.random.RandomState(1).randint(0, 256, (60, 60, 3)).astype(np.uint8)
    means = square.reshape(20, 3, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(resize_square(square, 20, resize="area") - means).max() <= 0.5 + 1e-6


def test_area_enlarges_as_linear():
    square = smooth_square(40)
    assert (resize_square(square, 100, resize="area") == resize_square(square, 100, resize="linear")).all()


@pytest.mark.parametrize("size", [224, 160, 112])
@pytest.mark.parametrize("side", [262, 420, 945, 60, 113])
def test_pil_bicubic_is_pillows(side, size):
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference")
    square = smooth_square(side)
    expected = np.asarray(image.fromarray(square).resize((size, size), image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(resize_square(square, size, resize="pil-bicubic") - expected)
    assert difference.max() <= 1
    assert difference.mean() <= 0.01


def test_pil_bicubic_clips_the_overshoot_at_an_edge():
    square = np.zeros((80, 80, 3), np.uint8)
    square[:, 40:] = 255
    out = resize_square(square, 37, resize="pil-bicubic")
    assert (out[:, :10] == 0).all()
    assert (out[:, 27:] == 255).all()


def test_pieces_of_a_product_do_not_change_the_answer(monkeypatch):
    square = smooth_square(200)
    whole = resize_square(square, 64, resize="pil-bicubic").astype(int)
    module._bands.cache_clear()
    monkeypatch.setattr(module, "_PRODUCT_SIZE", 2000)
    try:
        # The order of float32 additions may differ, and with it a rounding.
        assert np.abs(resize_square(square, 64, resize="pil-bicubic") - whole).mean() <= 1e-3
    finally:
        module._bands.cache_clear()
