from __future__ import annotations

import cv2
import numpy as np
import pytest

from boardfit.converters.samples import ENOUGH_IMAGES, choose_images, load_samples, synthetic_frame
from boardfit.errors import InputError
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec


def test_a_few_photographs_are_filled_up_with_synthetic_ones(photos):
    samples = load_samples(choose_images(str(photos), 10), image=ImageSpec(), sizes=(8, 16))
    assert (samples.photographs, samples.count, samples.synthetic) == (4, ENOUGH_IMAGES, ENOUGH_IMAGES - 4)
    assert samples.tensors[8].shape == (ENOUGH_IMAGES, 8, 8, 3)
    assert samples.tensors[16].dtype == np.float32


def test_the_tensors_are_the_runtimes_own(photos):
    samples = load_samples(choose_images(str(photos), 10), image=ImageSpec(), sizes=(16,))
    frame = cv2.imread(str(photos / "0.png"))
    tensor, _ = Preprocessor(ImageSpec(), "NHWC").fit(frame, 16)
    np.testing.assert_array_equal(samples.tensors[16][:1], tensor)


def test_the_limit_takes_images_evenly(photos):
    assert [path.name for path in choose_images(str(photos), 2)] == ["0.png", "2.png"]


def test_a_broken_image_among_good_ones_is_named_and_skipped(photos, tmp_path):
    (tmp_path / "good.png").write_bytes((photos / "0.png").read_bytes())
    (tmp_path / "text.jpg").write_text("not a picture")
    said: list[str] = []
    samples = load_samples(
        choose_images(str(tmp_path), 9), image=ImageSpec(), sizes=(8,), progress=said.append
    )
    assert samples.photographs == 1
    assert len(samples.skipped) == 1
    assert "text.jpg" in said[0]


def test_no_readable_image_is_an_error(tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(InputError, match=r"none of the 1 images.*text\.jpg"):
        load_samples(choose_images(str(tmp_path), 9), image=ImageSpec(), sizes=(8,))


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path):
    with pytest.raises(InputError, match="no image"):
        choose_images(str(tmp_path), 9)
    with pytest.raises(InputError, match="is not a folder"):
        choose_images(str(tmp_path / "absent"), 9)


def test_synthetic_frames_are_the_same_everywhere():
    frame = synthetic_frame(5, height=40, width=50)
    assert frame.shape == (40, 50, 3)
    assert int(frame.astype(np.int64).sum()) == int(
        synthetic_frame(5, height=40, width=50).sum(dtype=np.int64)
    )
    assert len(np.unique(frame)) > 100
