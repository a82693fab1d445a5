from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from boardfit.converters.quantize.photos import Picture, Pictures, choose_pictures, labels_of, load_tensors
from boardfit.converters.samples import synthetic_frame
from boardfit.errors import InputError, RecipeError
from boardfit.specs import ImageSpec


def write(folder, count: int, first: int = 0):
    folder.mkdir(exist_ok=True)
    for seed in range(first, first + count):
        cv2.imwrite(str(folder / f"{seed:03d}.png"), synthetic_frame(seed, height=24, width=30))
    return folder


def table(path, names, labels=None) -> str:
    rows = [f"{n},{i % 5 if labels is None else labels[i]}" for i, n in enumerate(names)]
    path.write_text("file,label\n" + "\n".join(rows) + "\n")
    return str(path)


def names(pictures) -> set[str]:
    return {picture.path.name for picture in pictures}


def test_without_labels_one_half_calibrates_and_the_other_judges(many_pictures):
    found = choose_pictures(str(many_pictures))
    assert (len(found.calibration), len(found.validation)) == (30, 30)
    assert names(found.calibration).isdisjoint(names(found.validation))
    assert found == choose_pictures(str(many_pictures))
    assert "without labels" in found.notes[0]
    assert "only 30 images" in found.notes[1]


def test_the_split_hangs_on_content_not_on_names(many_pictures, tmp_path):
    before = choose_pictures(str(many_pictures))
    for path in many_pictures.iterdir():
        shutil.copy(path, tmp_path / f"x{99 - int(path.stem):02d}.png")
    after = choose_pictures(str(tmp_path))
    assert [p.sha256 for p in before.calibration] == [p.sha256 for p in after.calibration]


def test_what_has_no_label_calibrates_where_it_is_enough(tmp_path):
    folder = write(tmp_path / "all", 130)
    val = table(tmp_path / "val.csv", [f"{i:03d}.png" for i in range(20)])
    found = choose_pictures(str(folder), val=val)
    assert names(found.validation) == {f"{i:03d}.png" for i in range(20)}
    assert len(found.calibration) == 110
    assert all(picture.label is None for picture in found.calibration)
    assert len(found.notes) == 1


def test_a_table_of_all_images_is_split(many_pictures, tmp_path):
    val = table(tmp_path / "val.csv", sorted(path.name for path in many_pictures.iterdir()))
    found = choose_pictures(str(many_pictures), val=val)
    assert (len(found.calibration), len(found.validation)) == (30, 30)
    assert all(picture.label is not None for picture in found.validation)


def test_a_renamed_copy_never_judges_what_it_calibrated(many_pictures, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(many_pictures, folder)
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / f"copy{path.name}")
    found = choose_pictures(str(folder))
    assert len(found.calibration) + len(found.validation) == 60


def test_overlapping_folders_are_refused(many_pictures, tmp_path):
    folder = write(tmp_path / "calibration", 30, first=500)
    shutil.copy(many_pictures / "07.png", folder / "renamed.png")
    with pytest.raises(InputError, match="1 images are among those for calibration") as caught:
        choose_pictures(str(many_pictures), calibration_folder=str(folder))
    assert "renamed.png" in str(caught.value) and "07.png" in str(caught.value)


def test_a_folder_of_its_own_calibrates(many_pictures, tmp_path):
    folder = write(tmp_path / "calibration", 25, first=500)
    found = choose_pictures(str(many_pictures), calibration_folder=str(folder))
    assert (len(found.calibration), len(found.validation)) == (25, 60)


@pytest.mark.parametrize("count", [1, 19, 29])
def test_too_few_images_are_refused(tmp_path, count):
    with pytest.raises(InputError, match="at least 20 and 10 others"):
        choose_pictures(str(write(tmp_path / "few", count)))


def test_copies_of_one_image_are_one(tmp_path):
    folder = write(tmp_path / "same", 1)
    for number in range(1, 40):
        shutil.copy(folder / "000.png", folder / f"{number:03d}.png")
    with pytest.raises(InputError, match=r"1 different images|0 different images"):
        choose_pictures(str(folder))


def test_images_that_look_alike_are_refused(tmp_path):
    folder = tmp_path / "alike"
    folder.mkdir()
    for number in range(40):
        frame = np.full((24, 30, 3), 90, np.uint8)
        frame[0, number % 30, 0] += 1 + number // 30
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame)
    with pytest.raises(InputError, match="look alike"):
        choose_pictures(str(folder))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ("00.png,1\n00.png,2", RecipeError, "named before"),
        ("gone.png,1", InputError, "not there.*gone.png"),
        ("00.png,-1", RecipeError, "expected an index"),
    ],
    ids=["duplicate row", "missing file", "no index"],
)
def test_a_bad_table_is_named(many_pictures, tmp_path, rows, error, message):
    val = tmp_path / "val.csv"
    val.write_text(f"file,label\n{rows}\n")
    with pytest.raises(error, match=message):
        choose_pictures(str(many_pictures), val=str(val))


def test_one_image_with_two_labels_is_refused(many_pictures, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(many_pictures, folder)
    shutil.copy(folder / "00.png", folder / "zz.png")
    val = table(tmp_path / "val.csv", ["00.png", "zz.png", *(f"{i:02d}.png" for i in range(1, 60))])
    with pytest.raises(RecipeError, match="same image, but have the labels"):
        choose_pictures(str(folder), val=val)


def test_labels_must_be_classes(tmp_path):
    pictures = [Picture(tmp_path / "a.png", "0", 3), Picture(tmp_path / "b.png", "1", 7)]
    assert labels_of(pictures, 8).tolist() == [3, 7]
    with pytest.raises(RecipeError, match=r"b\.png has the label 7, but the model answers 7 classes"):
        labels_of(pictures, 7)


def test_a_damaged_image_is_skipped_and_named(many_pictures, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(many_pictures, folder)
    (folder / "05.png").write_bytes(b"no image")
    told: list[str] = []
    found = choose_pictures(str(folder), progress=told.append)
    assert len(found.calibration) + len(found.validation) == 59
    assert any("05.png" in text for text in told)


def test_disjointness_is_a_rule_of_the_record(tmp_path):
    with pytest.raises(InputError, match="among those for calibration"):
        Pictures((Picture(tmp_path / "a", "1"),), (Picture(tmp_path / "b", "1"),))


def test_tensors_are_what_the_runtime_feeds(many_pictures):
    from boardfit.runtime.images import read_image
    from boardfit.runtime.preprocess import Preprocessor

    found = choose_pictures(str(many_pictures))
    spec = ImageSpec(mean=(127.0,) * 3, std=(128.0,) * 3)
    tensors = load_tensors(found.calibration[:3], image=spec, size=16)
    expected, _ = Preprocessor(spec, "NHWC").fit(read_image(found.calibration[2].path), 16)
    assert tensors.shape == (3, 16, 16, 3)
    assert np.array_equal(tensors[2:], expected)
