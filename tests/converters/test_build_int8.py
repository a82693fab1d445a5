"""A build with int8 as a user meets it: what is written, what is refused, and what survives a Ctrl-C."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

import boardfit
from boardfit.bundle import open_bundle
from boardfit.cli import main
from boardfit.converters.samples import synthetic_frame
from boardfit.converters.targets import onnx_int8
from boardfit.runtime.selftest import self_test

SIZES = (28, 56)
COUNT = 70


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(COUNT):
        cv2.imwrite(str(folder / f"{seed:02d}.png"), synthetic_frame(seed, height=60, width=80))
    return folder


@pytest.fixture
def command(tiny_file, pictures, tmp_path):
    """Return a function that builds with some flags and returns the exit status."""

    def run(*flags, out="x.boardfit", images=pictures, precisions="fp32,int8"):
        fixed = ["--image-spec", "unit", "--sizes", "28,56", "--formats", "onnx", "--no-fit"]
        fixed += ["--precisions", precisions, "--images", str(images), "-o", str(tmp_path / out)]
        return main(["build", str(tiny_file), *fixed, *flags])

    return run


@pytest.fixture(scope="module")
def built(tiny_file, pictures, tmp_path_factory):
    """A bundle in fp32 and int8, and its folder; any number of flips is allowed."""
    out = tmp_path_factory.mktemp("int8") / "tiny.boardfit"
    flags = ["--image-spec", "unit", "--sizes", "28,56", "--formats", "onnx", "--no-fit"]
    flags += ["--precisions", "fp32,int8", "--max-flips", "100", "--images", str(pictures), "-o", str(out)]
    assert main(["build", str(tiny_file), *flags]) == 0
    return out


@pytest.fixture
def ruin(monkeypatch):
    """Make the quantizer clip nearly all of every activation."""
    real = onnx_int8.quantize

    def clipped(exported, *, ranges, **options):
        narrow = {name: type(each)(each.low / 40, each.high / 40) for name, each in ranges.items()}
        return real(exported, ranges=narrow, **options)

    monkeypatch.setattr(onnx_int8, "quantize", clipped)


def section(path):
    with open_bundle(path) as bundle:
        return bundle.measurements["quantized"]


def test_the_bundle_has_an_int8_artifact_for_each_size(built):
    with open_bundle(built) as bundle:
        names = [artifact.name for artifact in bundle.manifest.artifacts]
        notes = bundle.measurements["notes"]
    assert names[0] == "onnx-fp32"
    assert [name.rpartition("-")[2] for name in names[1:]] == ["28", "56"]
    assert all(name.split("-")[1] in ("int8", "mixed") for name in names[1:])
    assert any("35 images to calibrate, 35 others to validate, without labels" in note for note in notes)
    assert any("under 100 chance decides" in note for note in notes)


def test_nothing_but_the_bundle_is_left(built):
    assert [path.name for path in built.parent.iterdir()] == ["tiny.boardfit"]


def test_each_artifact_has_its_gate_its_share_its_layers_and_its_time(built):
    rows = section(built)["artifacts"]
    assert [(row["size"], row["asked"]) for row in rows] == [(28, "int8"), (56, "int8")]
    for row in rows:
        assert row["verdict"]["images"] == 35
        assert row["verdict"]["flips_low"] <= row["verdict"]["flips"] <= row["verdict"]["flips_high"]
        assert row["share"]["macs"] == 1.0
        assert len(row["blame"]) == 6
        assert len(row["found"].split()) == len(row["fp32"].split()) == 35
    with open_bundle(built) as bundle:
        times = [row for row in bundle.measurements["times"] if row["speedup"] is not None]
    assert [row["artifact"] for row in times] == [row["artifact"] for row in rows]


def test_it_proves_itself_and_runs(built, pictures):
    assert all(record.passed for record in self_test(built))
    with open_bundle(built) as bundle:
        precision = bundle.manifest.artifacts[1].precision
    frame = cv2.imread(str(pictures / "03.png"))
    with boardfit.load(built, precision=precision, size=56) as model:
        quantized = model(frame).outputs[0]
    with boardfit.load(built, size=56) as model:
        exact = model(frame).outputs[0]
    assert 0.0 < np.abs(quantized - exact).max() < 0.2 * np.ptp(exact)


def test_verify_repeats_the_gate_image_by_image(built, pictures, tmp_path, capsys):
    """The images are known by content: other names and other images do no harm."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(pictures, folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"renamed-{number}.png")
    cv2.imwrite(str(folder / "more.png"), synthetic_frame(999, height=60, width=80))
    assert main(["verify", str(built), "--images", str(folder)]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines() if line.startswith("onnx-") and "flips" in line]
    # artifact, engine, size, images, unlike the build
    assert [line[2:5] for line in lines] == [["28", "35", "0"], ["56", "35", "0"]]
    assert "gate: 2 inside, 0 outside" in text


def test_verify_wants_the_images_of_the_build(built, tmp_path, capsys):
    for seed in range(12):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), synthetic_frame(500 + seed, height=60, width=80))
    assert main(["verify", str(built), "--images", str(tmp_path)]) != 0
    assert "0 of the 35 images that the build judged on" in capsys.readouterr().err


def test_inspect_and_blame_show_what_was_measured(built, tmp_path, capsys):
    assert main(["inspect", str(built)]) == 0
    text = capsys.readouterr().out
    assert "faster here" in text or "slower here" in text
    assert text.count("100 %") == 2
    page = tmp_path / "blame.html"
    assert main(["blame", str(built), "--report", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.count("dense") == 2 and text.count("depthwise") == 4
    assert page.read_text().count("<circle") >= 12


def test_pack_keeps_what_was_measured_of_what_it_keeps(built, tmp_path, capsys):
    small = tmp_path / "small.boardfit"
    assert main(["pack", str(built), "-o", str(small), "--size", "56"]) == 0
    assert [row["size"] for row in section(small)["artifacts"]] == [56]
    assert all(record.passed for record in self_test(small))


def test_what_is_outside_the_gate_is_not_written_and_named(command, ruin, tmp_path, capsys):
    assert command("--no-rescue", "--max-flips", "1") == 1
    text = capsys.readouterr().out
    assert "onnx-int8-28 is outside the gate: flips" in text
    assert "n0_Conv" in text and " dB" in text
    with open_bundle(tmp_path / "x.boardfit") as bundle:
        assert [artifact.name for artifact in bundle.manifest.artifacts] == ["onnx-fp32"]
    assert main(["inspect", str(tmp_path / "x.boardfit")]) == 0
    assert "no onnx-int8-28" in capsys.readouterr().out
    assert main(["blame", str(tmp_path / "x.boardfit")]) == 0
    assert "onnx-int8-28, outside the gate" in capsys.readouterr().out


def test_without_anything_inside_the_gate_nothing_is_written(command, ruin, tmp_path, capsys):
    assert command("--no-rescue", "--max-flips", "1", precisions="int8") != 0
    error = capsys.readouterr().err
    assert "nothing is inside the gate, nothing was written" in error
    assert "onnx-int8-56 is outside the gate" in error
    assert not (tmp_path / "x.boardfit").exists()


def test_the_same_command_goes_on_after_ctrl_c(command, monkeypatch, tmp_path, capsys):
    real, calls = onnx_int8.quantize, []

    def stopped(exported, **options):
        calls.append(exported.artifact.name)
        if calls[-1].endswith("-56") and "stop" in calls[0]:
            raise KeyboardInterrupt
        return real(exported, **options)

    monkeypatch.setattr(onnx_int8, "quantize", stopped)
    calls.append("stop")
    assert command("--max-flips", "100") == 130
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.boardfit.partial"]
    calls[:] = ["go on"]
    assert command("--max-flips", "100") == 0
    assert "onnx int8 at 28 was finished before" in capsys.readouterr().err
    assert set(calls[1:]) == {"onnx-fp32-56"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.boardfit"]


def labelled(tmp_path, pictures, rows):
    path = tmp_path / "val.csv"
    path.write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    return path


def right_answers(tiny_file, pictures, size, names):
    import keras

    from boardfit.runtime.preprocess import Preprocessor
    from boardfit.specs import ImageSpec

    net = keras.saving.load_model(tiny_file, compile=False)
    fit = Preprocessor(ImageSpec(), "NHWC").fit
    tensors = np.concatenate([fit(cv2.imread(str(pictures / name)), size)[0].copy() for name in names])
    return np.asarray(net(tensors)).argmax(axis=1)


def test_with_labels_the_gate_is_the_drop(command, tiny_file, pictures, tmp_path, capsys):
    names = [f"{seed:02d}.png" for seed in range(50)]
    answers = right_answers(tiny_file, pictures, 56, names)
    table = labelled(tmp_path, pictures, zip(names, answers, strict=True))
    assert command("--val", str(table), "--max-drop", "100") == 0
    row = section(tmp_path / "x.boardfit")["artifacts"][1]
    assert row["verdict"]["drop"] is not None and row["verdict"]["limit"] == 100.0
    lost = (np.array(row["found"].split(), int) != np.array(row["fp32"].split(), int)).mean()
    assert row["verdict"]["drop"] == pytest.approx(100.0 * lost)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("00.png", 7)], "has the label 7, but the model answers 7 classes"),
        ([("00.png", -1)], "-1"),
        ([("absent.png", 1)], "absent.png"),
        ([("00.png", 1), ("00.png", 2)], "00.png"),
    ],
    ids=["out of range", "negative", "missing file", "two labels"],
)
def test_a_table_that_cannot_be_right_is_refused(rows, message, command, pictures, tmp_path, capsys):
    good = [(f"{seed:02d}.png", seed % 7) for seed in range(1, 51)]
    table = labelled(tmp_path, pictures, [*rows, *good])
    assert command("--val", str(table)) != 0
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["val.csv"]


def few(folder, pictures):
    for path in sorted(pictures.iterdir())[:25]:
        shutil.copy(path, folder)


def alike(folder, pictures):
    frame = synthetic_frame(1, height=60, width=80)
    for number in range(COUNT):
        frame[0, 0, 0] = number
        cv2.imwrite(str(folder / f"{number}.png"), frame)


@pytest.mark.parametrize(
    ("fill", "message"),
    [(few, "int8 needs at least 20 and 10 others"), (alike, "look alike")],
    ids=["few", "alike"],
)
def test_images_that_cannot_serve_are_refused(fill, message, command, pictures, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    fill(tmp_path / "images", pictures)
    assert command(images=tmp_path / "images") != 0
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_one_image_on_both_sides_is_refused(command, pictures, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    for seed in range(40):
        cv2.imwrite(str(tmp_path / "more" / f"{seed}.png"), synthetic_frame(300 + seed, height=60, width=80))
    shutil.copy(pictures / "05.png", tmp_path / "more" / "same.png")
    assert command("--calibration", str(tmp_path / "more")) != 0
    error = capsys.readouterr().err
    assert "1 images are among those for calibration and among those for validation" in error
    assert "same.png" in error and "05.png" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--estimators", "kl,median"), "'median'"),
        (("--max-flips", "-1"), "quantize.max_flips is -1"),
        (("--calibration-images", "5"), "expected at least 20"),
    ],
    ids=["estimator", "flips", "images"],
)
def test_options_that_make_no_sense_are_refused(flags, message, command, capsys):
    assert command(*flags) != 0
    assert message in capsys.readouterr().err


def test_a_net_that_answers_nan_to_an_image_is_refused(pictures, tmp_path, capsys):
    """The net divides by the image's mean; one image is black."""
    import keras

    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(8, 3, 2, "same")(image)
    x = keras.layers.GlobalAveragePooling2D()(x / keras.ops.mean(image, axis=(1, 2, 3), keepdims=True))
    keras.Model(image, keras.layers.Dense(4)(x)).save(tmp_path / "nan.keras")
    shutil.copytree(pictures, tmp_path / "images")
    cv2.imwrite(str(tmp_path / "images" / "black.png"), np.zeros((60, 80, 3), np.uint8))
    flags = ["--image-spec", "unit", "--sizes", "28", "--formats", "onnx", "--precisions", "fp32,int8"]
    flags += ["--images", str(tmp_path / "images"), "-o", str(tmp_path / "x.boardfit")]
    assert main(["build", str(tmp_path / "nan.keras"), *flags]) != 0
    assert "NaN or infinity" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "nan.keras"]


def test_a_recipe_carries_the_options_of_int8(tiny_file, pictures, capsys):
    flags = ["--images", str(pictures), "--precisions", "fp32,int8", "--max-flips", "3", "--no-rescue"]
    assert main(["build", str(tiny_file), *flags, "--estimators", "mse,kl", "--print-recipe"]) == 0
    text = capsys.readouterr().out
    assert "max_flips = 3.0" in text and "rescue = false" in text
    assert json.loads(text.partition("estimators = ")[2].partition("]")[0].rstrip(",\n ") + "]") == [
        "mse",
        "kl",
    ]
