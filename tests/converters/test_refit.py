"""Fitting a bundle: on images, from recorded answers, from another board's times; and all that goes wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import boardfit
from boardfit.bundle import open_bundle, verify_bundle
from boardfit.cli import main
from boardfit.converters.policy_answers import Answers
from boardfit.converters.policy_evidence import labelled_photos
from boardfit.converters.samples import synthetic_frame
from boardfit.errors import BundleError, InputError, RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle

SIZES = (16, 24, 32)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(60):
        grain = synthetic_frame(seed, height=40, width=50) // 8
        colour = np.random.default_rng(seed).integers(0, 220, 3).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed:02d}.png"), grain + colour)
    rows = "".join(f"{seed:02d}.png,{seed % 7}\n" for seed in range(60))
    (folder / "labels.csv").write_text(f"file,label\n{rows}")
    return folder


@pytest.fixture
def bundle(tmp_path):
    write_fake_bundle(tmp_path / "fake.boardfit", sizes=SIZES)
    return tmp_path / "fake.boardfit"


def test_a_fit_is_written_into_the_bundle_and_used(bundle, pictures, capsys):
    assert main(["fit", str(bundle), "--images", str(pictures)]) == 0
    assert "agreement with the largest size" in capsys.readouterr().out
    verify_bundle(bundle)
    with open_bundle(bundle) as opened:
        policy = opened.manifest.policy
        assert policy.fit is not None and policy.fit.images == 30
        assert opened.measurements["fit"]["answers"]["sizes"] == list(SIZES)
    with boardfit.load(bundle) as model:
        assert model.policy == policy
        assert model(synthetic_frame(1)).size in policy.sizes
    assert main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "not fitted" not in shown and "on 30 images" in shown


def test_a_board_solves_again_from_its_times_without_images(bundle, pictures, tmp_path, capsys):
    assert main(["fit", str(bundle), "--images", str(pictures), "--val", str(pictures / "labels.csv")]) == 0
    times = tmp_path / "board.json"
    assert main(["fit", str(bundle), "--save-times", str(times)]) == 0
    data = json.loads(times.read_text())
    assert data["sizes"] == list(SIZES) and min(data["look_s"]) > 0
    data.update(machine="another board", look_s=[0.1, 0.2, 0.9])
    times.write_text(json.dumps(data))
    before = bundle.read_bytes()
    out = tmp_path / "other.boardfit"
    command = ["fit", str(bundle), "--times", str(times), "--max-time", "0.3", "-o", str(out)]
    assert main(command) == 0
    assert bundle.read_bytes() == before
    with open_bundle(out) as opened:
        policy = opened.manifest.policy
        assert policy.fit is not None
        assert policy.fit.machine == "another board"
        assert policy.fit.time_ratio <= 0.35


def test_the_page_is_written(bundle, pictures, tmp_path):
    page = tmp_path / "policy.html"
    assert main(["fit", str(bundle), "--images", str(pictures), "--report", str(page)]) == 0
    text = page.read_text()
    assert "oracle" in text and "data:image/jpeg" in text


def test_answers_survive_the_way_through_json(bundle, pictures):
    main(["fit", str(bundle), "--images", str(pictures)])
    with open_bundle(bundle) as opened:
        recorded = opened.measurements["fit"]["answers"]
    again = Answers.from_dict(recorded).to_dict()
    assert again == recorded
    del recorded["looks"]["16-24"]
    with pytest.raises(BundleError, match="fit again with --images"):
        Answers.from_dict(recorded)


def test_the_recorded_answers_are_the_runtimes(bundle, pictures):
    main(["fit", str(bundle), "--images", str(pictures)])
    with open_bundle(bundle) as opened:
        answers = Answers.from_dict(opened.measurements["fit"]["answers"])
    frame = cv2.imread(str(pictures / "00.png"))
    with boardfit.load(bundle, policy="entropy") as model:
        looks = [model.look(frame, size) for size in SIZES]
    for column, look in enumerate(looks):
        assert answers.top1[(column,)][0] == look.top(1)[0].index
        assert answers.doubt_bits[(column,)][0] == pytest.approx(look.doubt_bits, abs=1e-4)
    assert answers.top1[(0, 2)][0] == (looks[0].scores + 2 * looks[2].scores).argmax()


def refused(command, capsys) -> str:
    assert main(command) == 1
    return capsys.readouterr().err


def test_what_goes_wrong_is_said_and_leaves_the_bundle_alone(bundle, pictures, tmp_path, capsys):
    before = bundle.read_bytes()
    assert "holds no recorded answers" in refused(["fit", str(bundle)], capsys)
    few = tmp_path / "few"
    few.mkdir()
    for number in range(10):
        (few / f"{number}.png").write_bytes((pictures / f"{number:02d}.png").read_bytes())
    assert "needs at least 50" in refused(["fit", str(bundle), "--images", str(few)], capsys)
    assert "--val names labels" in refused(["fit", str(bundle), "--val", "x.csv"], capsys)
    command = ["fit", str(bundle), "--images", str(pictures), "--max-time", "2"]
    assert "of the largest size's time: expected a share" in refused(command, capsys)
    (tmp_path / "times.json").write_text('{"schema": 1}')
    command = ["fit", str(bundle), "--images", str(pictures), "--times", str(tmp_path / "times.json")]
    assert "times cannot be used" in refused(command, capsys)
    other = {"schema": 1, "machine": "m", "sizes": [8, 9], "look_s": [1, 2], "switch_s": 0, "entropy_s": 0}
    (tmp_path / "times.json").write_text(json.dumps(other))
    assert "belong to another bundle" in refused(command, capsys)
    assert bundle.read_bytes() == before


def test_images_of_one_class_are_refused(bundle, tmp_path, capsys):
    frame = synthetic_frame(1, height=40, width=50)
    for number in range(55):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    assert "all images are of one class" in refused(["fit", str(bundle), "--images", str(tmp_path)], capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,1\n", "expected file and label"),
        ("file,label\n00.png,cat\n", "line 2: the label is 'cat'"),
        ("file,label\n00.png,1\n00.png,2\n", "line 3: 00.png was named before"),
    ],
    ids=["columns", "no-index", "twice"],
)
def test_a_bad_table_of_labels_is_refused(text, message, pictures, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(RecipeError, match=message):
        labelled_photos(str(table), str(pictures))


def test_a_label_file_that_names_absent_images_or_classes(pictures, tmp_path, bundle, capsys):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nabsent.png,1\n")
    with pytest.raises(InputError, match=r"absent\.png"):
        labelled_photos(str(table), str(pictures))
    rows = "".join(f"{seed:02d}.png,{seed + 900}\n" for seed in range(60))
    table.write_text(f"file,label\n{rows}")
    command = ["fit", str(bundle), "--images", str(pictures), "--val", str(table)]
    assert "a label is 959, but the model answers" in refused(command, capsys)
