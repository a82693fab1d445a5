"""Images of a training: reading, variation, the order of batches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boardfit.converters.compress.images import Augment, Batches, ImageSet, load_image_set, vary
from boardfit.converters.samples import synthetic_frame
from boardfit.errors import CompressError, InputError
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec


def batches(images, **options):
    return Batches(images, **{"batch": 16, "augment": Augment(), "seed": 3, **options})


def test_images_are_cropped_and_resized_as_the_runtime_does(tmp_path):
    paths = []
    for number in range(50):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), synthetic_frame(number, height=60, width=90))
    image = ImageSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    found = load_image_set(paths, image=image, side=32, labels=list(range(50)))
    expected = Preprocessor(image, "NHWC").fit(cv2.imread(str(paths[7])), 32)[0][0]
    assert np.abs(found.pixels[7] - expected).max() <= 1.0
    assert found.labels.tolist() == list(range(50))


def test_a_file_that_cannot_be_read_is_skipped_with_its_label(tmp_path):
    paths = []
    for number in range(51):
        paths.append(tmp_path / f"{number:02d}.png")
        cv2.imwrite(str(paths[-1]), synthetic_frame(number, height=40, width=40))
    paths[3].write_bytes(b"no picture")
    told = []
    found = load_image_set(paths, image=ImageSpec(), side=16, labels=range(51), progress=told.append)
    assert found.count == 50 and 3 not in found.labels
    assert len(told) == 1 and "03.png" in told[0]
    paths[4].write_bytes(b"no picture either")
    with pytest.raises(InputError, match="49 of 51 images could be read: training needs at least 50"):
        load_image_set(paths, image=ImageSpec(), side=16)


def test_an_epoch_shows_every_image_once_and_repeats(images):
    first, again = batches(images), batches(images)
    assert len(first) == 6
    labels = np.concatenate([first[i][1] for i in range(6)])
    assert sorted(labels.tolist()) == sorted(images.labels.tolist())
    for i in range(6):
        assert np.array_equal(first[i][0], again[i][0])


def test_resuming_inside_an_epoch_shows_what_is_left(images):
    whole, rest = batches(images), batches(images, first_step=4)
    assert len(rest) == 2
    assert np.array_equal(whole[5][0], rest[1][0])


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 1}], ids=["seed", "epoch"])
def test_seed_and_epoch_change_order_and_variation(images, change):
    assert not np.array_equal(batches(images)[0][0], batches(images, **change)[0][0])


def test_without_labels_there_are_minus_ones(images):
    assert (batches(ImageSet(images.pixels))[0][1] == -1).all()


def test_variation_can_be_none(images):
    still = Augment(flip=False, shift=0.0, min_scale=1.0)
    assert np.array_equal(vary(images.pixels, still, np.random.default_rng(0)), images.pixels)


def test_half_are_mirrored(images):
    varied = vary(images.pixels, Augment(shift=0.0), np.random.default_rng(0))
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(images.pixels, varied, strict=True)]
    assert 0.3 < np.mean(mirrored) < 0.7


@pytest.mark.parametrize("wrong", [{"shift": 0.5}, {"min_scale": 0.0}])
def test_variation_beyond_sense_is_refused(wrong):
    with pytest.raises(CompressError, match=r"expected 0 to 0\.5"):
        Augment(**wrong)


def test_images_of_another_kind_are_refused(images):
    with pytest.raises(InputError, match="expected uint8"):
        ImageSet(images.pixels.astype(np.float32))
    with pytest.raises(InputError, match="3 labels for 96"):
        ImageSet(images.pixels, np.zeros(3, np.int32))
