from __future__ import annotations

import math
from collections import Counter

import cv2
import numpy as np
import pytest

from boardfit.runtime.entropy import (
    GRID_PIXELS,
    entropy_bits,
    exact_entropy_bits,
    grey_histogram,
    grid_step,
)


def bits_in_plain_python(frame: np.ndarray) -> float:
    pixels = frame.reshape(-1, 3).tolist()
    counts = Counter((29 * b + 150 * g + 77 * r + 128) >> 8 for b, g, r in pixels)
    return -sum(n / len(pixels) * math.log2(n / len(pixels)) for n in counts.values())


def test_exact_entropy_follows_the_written_formula(random_frame):
    assert exact_entropy_bits(random_frame) == pytest.approx(bits_in_plain_python(random_frame), abs=1e-9)


def test_grid_takes_every_step_th_pixel():
    frame = np.random.RandomState(0).randint(0, 256, (300, 301, 3)).astype(np.uint8)
    assert grid_step(300, 301) == 2
    assert entropy_bits(frame) == pytest.approx(bits_in_plain_python(frame[::2, ::2]), abs=1e-9)


@pytest.mark.parametrize(
    ("height", "width", "step"),
    [(1, 1, 1), (130, 200, 1), (131, 200, 2), (480, 640, 4), (1080, 1920, 9), (1, 26_001, 2)],
)
def test_step_is_the_smallest_that_fits(height, width, step):
    def left(s):
        return math.ceil(height / s) * math.ceil(width / s)

    assert grid_step(height, width) == step
    assert left(step) <= GRID_PIXELS
    assert step == 1 or left(step - 1) > GRID_PIXELS


def test_step_is_the_smallest_for_many_shapes():
    random = np.random.RandomState(3)
    for height, width in random.randint(1, 5000, (200, 2)).tolist():
        fitting = (s for s in range(1, 5001) if math.ceil(height / s) * math.ceil(width / s) <= GRID_PIXELS)
        assert grid_step(height, width) == next(fitting), (height, width)


def test_all_grey_extremes_land_in_their_bins():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    counts = grey_histogram(colours)
    assert np.flatnonzero(counts).tolist() == [0, 29, 77, 149, 255]
    assert counts.sum() == 5


def test_one_grey_has_no_entropy_and_no_sign():
    bits = entropy_bits(np.full((40, 40, 3), 9, np.uint8))
    assert bits == 0.0
    assert math.copysign(1.0, bits) == 1.0


def test_every_grey_equally_often_has_eight_bits():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert entropy_bits(ramp) == pytest.approx(8.0, abs=1e-12)


def test_histogram_is_exact_over_several_blocks(monkeypatch, random_frame):
    whole = grey_histogram(random_frame)
    monkeypatch.setattr("boardfit.runtime.entropy._BLOCK_PIXELS", 200)
    assert (grey_histogram(random_frame) == whole).all()
    assert whole.sum() == random_frame.shape[0] * random_frame.shape[1]


def test_strided_views_count_like_copies(random_frame):
    view = random_frame[::-2, ::3]
    assert (grey_histogram(view) == grey_histogram(view.copy())).all()


def test_grid_is_close_to_the_exact_value_on_photographs(data_dir):
    photos = sorted((data_dir / "photos_score").glob("*.jpg"))[::10]
    frames = [cv2.imread(str(path)) for path in photos]
    frames += [cv2.resize(frame, (1920, 1080)) for frame in frames[::5]]
    errors = [abs(entropy_bits(frame) - exact_entropy_bits(frame)) for frame in frames]
    assert len(errors) >= 60
    assert np.quantile(errors, 0.99) <= 0.05
