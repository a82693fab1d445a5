from __future__ import annotations

import numpy as np
import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.policy.motion import Motion, MotionSettings, moved_share, small_grey

SCENE = np.random.RandomState(0).randint(0, 200, (60, 80, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)


def noisy(image: np.ndarray, seed: int, deviation: float = 4.0) -> np.ndarray:
    noise = np.random.RandomState(seed).normal(0.0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def with_box(left: int, side: int = 120) -> np.ndarray:
    image = SCENE.copy()
    image[200 : 200 + side, left : left + side] = (10, 250, 10)
    return image


@pytest.fixture
def motion():
    memory = Motion(MotionSettings(max_age_s=2.0))
    memory.answered(SCENE, 10.0, "the answer")
    return memory


@pytest.mark.parametrize(
    ("image", "reused"),
    [
        (SCENE, True),
        (noisy(SCENE, 1), True),
        (np.clip(SCENE.astype(np.int16) + 20, 0, 255).astype(np.uint8), True),
        (with_box(100), False),
        (SCENE[:, ::-1], False),
        (SCENE[:300], False),
    ],
    ids=["same", "noise", "brighter", "box", "mirrored", "other-size"],
)
def test_what_counts_as_motion(motion, image, reused):
    assert (motion.reusable(np.ascontiguousarray(image), 10.5) == "the answer") is reused


def test_an_answer_grows_old(motion):
    assert motion.reusable(SCENE, 12.0) == "the answer"
    assert motion.reusable(SCENE, 12.1) is None


def test_slow_motion_adds_up(motion):
    memory = Motion()
    memory.answered(with_box(0), 0.0, "at 0")
    shifts = [left for left in range(0, 80, 2) if memory.reusable(with_box(left), 0.1) is None]
    assert shifts, "the answered frame is what is compared with, not the last one"


def test_nothing_is_reused_before_there_is_an_answer():
    assert Motion().reusable(SCENE, 0.0) is None


def test_the_share_that_moved():
    before = np.zeros((10, 10), np.uint8)
    after = before.copy()
    after[:2] = 50
    assert moved_share(before, after, 12.0) == pytest.approx(0.2)
    assert moved_share(before, before + np.uint8(100), 12.0) == 0.0


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 1000, 3), (1000, 3, 3), (50, 40)], ids=str)
def test_small_pictures_of_any_frame(shape):
    small = small_grey(np.zeros(shape, np.uint8))
    assert small.dtype == np.uint8 and small.ndim == 2 and max(small.shape) <= 96


@pytest.mark.parametrize(
    "fields", [{"moved_share": 0.0}, {"moved_share": 2.0}, {"changed_grey": 0.0}, {"max_age_s": 0.0}], ids=str
)
def test_settings_that_make_no_sense(fields):
    with pytest.raises(RecipeError):
        MotionSettings(**fields)
