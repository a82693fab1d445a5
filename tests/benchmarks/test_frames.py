from __future__ import annotations

import cv2
import numpy as np
import pytest

from boardfit.benchmarks import frames as module
from boardfit.benchmarks.frames import choose_frames
from boardfit.bundle import open_bundle
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle


@pytest.fixture
def bundle(tmp_path):
    write_fake_bundle(tmp_path / "fake.boardfit")
    with open_bundle(tmp_path / "fake.boardfit") as opened:
        yield opened


def write_pictures(folder, count, *, size_wh=(32, 24)):
    folder.mkdir(exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.full((size_wh[1], size_wh[0], 3), index, np.uint8))
    return folder


def test_the_bundles_own_picture_serves_where_nothing_is_given(bundle):
    found = choose_frames(bundle)
    assert found.size_wh == (128, 96)
    assert np.array_equal(found.frames[0], bundle.golden_frame())
    assert "the bundle's own test picture of 128x96 pixels" in found.notes[0]


def test_made_pictures_differ_and_have_the_size(bundle):
    found = choose_frames(bundle, size_wh=(64, 36))
    assert {frame.shape for frame in found.frames} == {(36, 64, 3)}
    assert len({frame.tobytes() for frame in found.frames}) == len(found.frames) == 8
    assert "made pictures of 64x36 pixels" in found.notes[0]


def test_a_bundle_without_a_picture_gets_made_ones(bundle, monkeypatch):
    monkeypatch.setattr(type(bundle), "golden_frame", lambda self: None)
    assert choose_frames(bundle).size_wh == (640, 480)


def test_of_many_images_some_are_taken_evenly(bundle, tmp_path):
    found = choose_frames(bundle, images=[write_pictures(tmp_path / "many", 130)])
    values = [int(frame.mean()) for frame in found.frames]
    assert len(values) == 64
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0, 127)
    assert found.notes == ("measured with 64 images",)


def test_images_of_several_sizes_are_told(bundle, tmp_path):
    folder = write_pictures(tmp_path / "some", 2)
    cv2.imwrite(str(folder / "other.png"), np.zeros((10, 10, 3), np.uint8))
    assert "the images have 2 sizes" in choose_frames(bundle, images=[folder]).notes[1]


def test_pictures_do_not_fill_the_memory(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 5 * 32 * 24 * 3)
    assert len(choose_frames(bundle, images=[write_pictures(tmp_path / "big", 9)]).frames) == 5


def test_a_damaged_image_is_left_out_and_told(bundle, tmp_path):
    folder = write_pictures(tmp_path / "some", 3)
    (folder / "001.png").write_bytes(b"nonsense")
    found = choose_frames(bundle, images=[folder])
    assert len(found.frames) == 2
    assert "1 images were left out; the first:" in found.notes[1]
    assert "001.png" in found.notes[1]


def test_a_folder_without_images_is_told(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images at"):
        choose_frames(bundle, images=[tmp_path / "empty"])
    (tmp_path / "empty" / "x.png").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="none of 1 images can be read"):
        choose_frames(bundle, images=[tmp_path / "empty"])


@pytest.mark.parametrize("size_wh", [(0, 10), (10, -1), (100_000, 10)])
def test_a_frame_size_without_sense_is_refused(bundle, size_wh):
    with pytest.raises(RecipeError, match="expected 1 to"):
        choose_frames(bundle, size_wh=size_wh)


def test_images_and_a_size_contradict_each_other(bundle):
    with pytest.raises(RecipeError, match="give the images, or the size"):
        choose_frames(bundle, images=["x.png"], size_wh=(10, 10))
