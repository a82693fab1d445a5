"""The whole of flow (a) on a small net, and every way in which a user gets it wrong."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import boardfit
from boardfit.bundle import open_bundle, verify_bundle
from boardfit.cli import main
from boardfit.converters import build as build_module
from boardfit.converters.build import build
from boardfit.converters.plan import plan, read_labels
from boardfit.converters.recipe import Recipe
from boardfit.converters.samples import synthetic_frame
from boardfit.errors import BoardfitError, BundleError, InputError, ParityError, RecipeError, UnsupportedModel

SIZES = (28, 40, 56)


def recipe(tiny_file, photos, **changes) -> Recipe:
    tables = {
        "source": {"model": str(tiny_file), "image_spec": "unit"},
        "images": {"folder": str(photos)},
        "export": {"sizes": list(SIZES)},
    }
    for section, fields in changes.items():
        tables[section] = {**tables.get(section, {}), **fields}
    return Recipe.from_dict(tables)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("\n".join(f"class {i}" for i in range(7)) + "\n")
    return path


@pytest.fixture(scope="module")
def built(tiny_file, photos, labels, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "tiny.boardfit"
    said: list[str] = []
    asked = recipe(tiny_file, photos, source={"labels": str(labels)})
    return build(asked, out, progress=said.append), said


def test_one_file_per_format_and_precision_serves_all_sizes(built):
    report, _ = built
    names = [artifact.name for artifact in report.manifest.artifacts]
    assert names == [f"{f}-{p}" for f in ("tflite", "onnx", "ncnn") for p in ("fp32", "fp16")]
    assert all(artifact.sizes == SIZES for artifact in report.manifest.artifacts)
    verify_bundle(report.out)


def test_without_the_converters_libraries_it_says_at_once_where_to_build(
    tiny_file, photos, tmp_path, monkeypatch, capsys
):
    absent = ("tensorflow", "tf2onnx")
    real = importlib.util.find_spec
    for module in ("frameworks", "targets.onnx", "targets.tflite"):
        monkeypatch.setattr(
            f"boardfit.converters.{module}.find_spec",
            lambda name: None if name in absent else real(name),
        )
    assert main(["build", str(tiny_file), "--images", str(photos), "-o", str(tmp_path / "a.boardfit")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "boardfit: error: reading and building models needs tensorflow, not installed: pip install "
        "'boardfit[convert]' on a laptop or server; a board runs the bundle that is built there"
    )


def test_every_artifact_was_compared_and_timed_at_every_size(built):
    report, _ = built
    pairs = {(a.name, size) for a in report.manifest.artifacts for size in SIZES}
    assert {(row.artifact, row.size) for row in report.parity} == pairs
    assert {(row.artifact, row.size) for row in report.times} == pairs
    assert all(row.images == 32 and row.synthetic == 28 for row in report.parity)
    assert any("28 synthetic images" in note for note in report.notes)


def test_progress_is_told(built):
    _, said = built
    assert any("ncnn fp16" in text for text in said)


def test_the_bundle_answers_like_the_source_on_every_engine(built, tiny_net):
    report, _ = built
    with open_bundle(report.out) as bundle:
        frame = bundle.golden_frame()
        golden = {size: bundle.golden_outputs(size)[0] for size in SIZES}
    for engine in ("litert", "onnxruntime", "ncnn"):
        for size in SIZES:
            with boardfit.load(report.out, engine=engine, size=size) as model:
                result = model(frame)
            np.testing.assert_allclose(result.outputs[0], golden[size], atol=1e-3 * np.ptp(golden[size]))
            assert result.size == size
            assert result.top(1)[0].label == f"class {golden[size].argmax()}"


def test_two_builds_in_two_processes_write_the_same_files_and_manifest(
    built, tiny_file, photos, labels, tmp_path
):
    report, _ = built
    again = tmp_path / "again.boardfit"
    command = [sys.executable, "-m", "boardfit", "build", str(tiny_file), "--images", str(photos)]
    command += ["--labels", str(labels), "--image-spec", "unit", "--sizes", "28,40,56", "-o", str(again)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open_bundle(report.out) as first, open_bundle(again) as second:
        assert first.manifest.files == second.manifest.files
        assert first.content_id == second.content_id


def test_the_manifest_holds_no_path_of_this_machine(built, tiny_file, photos):
    report, _ = built
    with open_bundle(report.out) as bundle:
        text = json.dumps(bundle.manifest.to_dict()) + json.dumps(bundle.measurements)
    assert str(tiny_file.parent) not in text
    assert str(photos) not in text


def test_a_folder_is_written_where_the_name_has_no_suffix(tiny_file, photos, tmp_path):
    asked = recipe(tiny_file, photos, export={"sizes": [28], "formats": ["onnx"], "precisions": ["fp32"]})
    report = build(asked, tmp_path / "tree")
    assert (tmp_path / "tree" / "manifest.json").is_file()
    assert report.manifest.policy.kind == "fixed"
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "tree")
    assert sums.returncode == 0


def test_a_dry_run_writes_nothing(tiny_file, photos, tmp_path, capsys):
    command = ["build", str(tiny_file), "--images", str(photos), "--image-spec", "unit", "--dry-run"]
    assert main([*command, "-o", str(tmp_path / "x.boardfit")]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_printed_recipe_builds_what_the_flags_would(tiny_file, photos, tmp_path, capsys):
    command = ["build", str(tiny_file), "--images", str(photos), "--sizes", "28,56", "--formats", "onnx"]
    assert main([*command, "--print-recipe"]) == 0
    path = tmp_path / "recipe.toml"
    path.write_text(capsys.readouterr().out)
    assert main(["build", "--recipe", str(path), "-o", str(tmp_path / "x.boardfit"), "--dry-run"]) == 0
    assert "sizes 28, 56" in capsys.readouterr().out


def test_outside_the_gate_nothing_is_written_and_the_artifact_is_named(
    tiny_file, photos, tmp_path, monkeypatch, capsys
):
    real = build_module.export

    def worse(model, *, format_name, **options):
        exported = real(model, format_name=format_name, **options)
        if format_name != "onnx":
            return exported
        import onnx
        from onnx import numpy_helper

        (path,) = exported.files
        proto = onnx.load_from_string(exported.files[path])
        largest = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        spoilt = numpy_helper.to_array(largest) * 1.05
        largest.CopyFrom(numpy_helper.from_array(spoilt, largest.name))
        return type(exported)(artifact=exported.artifact, files={path: proto.SerializeToString()})

    monkeypatch.setattr(build_module, "export", worse)
    command = ["build", str(tiny_file), "--images", str(photos), "--sizes", "28,56", "--precisions", "fp32"]
    assert main([*command, "--formats", "tflite,onnx", "-o", str(tmp_path / "x.boardfit")]) != 0
    error = capsys.readouterr().err
    assert "onnx-fp32-28, onnx-fp32-56 answer(s) unlike the source" in error
    assert "differs by" in error
    assert list(tmp_path.iterdir()) == []


def test_where_one_file_cannot_serve_all_sizes_there_is_one_per_size(
    tiny_file, photos, tmp_path, monkeypatch
):
    real = build_module.verify

    def only_singles(exported, **options):
        rows = real(exported, **options)
        if len(exported.artifact.sizes) == 1:
            return rows
        return [type(row)(**{**row.to_dict(), "fault": "bound to a size"}) for row in rows]

    monkeypatch.setattr(build_module, "verify", only_singles)
    asked = recipe(tiny_file, photos, export={"sizes": [28, 56], "formats": ["onnx"], "precisions": ["fp32"]})
    report = build(asked, tmp_path / "x.boardfit")
    assert [artifact.sizes for artifact in report.manifest.artifacts] == [(28,), (56,)]


@pytest.mark.parametrize("moment", ["export", "time_artifacts", "write_bundle"])
def test_ctrl_c_leaves_nothing_behind(moment, tiny_file, photos, tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, moment, interrupt)
    asked = recipe(tiny_file, photos, export={"sizes": [28], "formats": ["ncnn"], "precisions": ["fp32"]})
    with pytest.raises(KeyboardInterrupt):
        build(asked, tmp_path / "x.boardfit")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing_behind(tiny_file, photos, tmp_path, monkeypatch):
    import errno
    import os

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    asked = recipe(tiny_file, photos, export={"sizes": [28], "formats": ["onnx"], "precisions": ["fp32"]})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        build(asked, tmp_path / "x.boardfit")
    assert list(tmp_path.iterdir()) == []


def test_labels_that_do_not_match_the_outputs(tiny_file, photos, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    asked = recipe(tiny_file, photos, source={"labels": str(labels)})
    with pytest.raises(RecipeError, match="2 labels for the 7 outputs"):
        plan(asked, tmp_path / "x.boardfit")


def test_an_empty_line_in_the_labels_is_named(tiny_file, photos, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("one\n\nthree\n")
    with pytest.raises(RecipeError, match="line 2 is empty"):
        plan(recipe(tiny_file, photos, source={"labels": str(labels)}), tmp_path / "x.boardfit")


def test_no_images_no_such_folder_and_no_place_to_write(tiny_file, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        plan(recipe(tiny_file, tmp_path / "empty"), tmp_path / "x.boardfit")
    with pytest.raises(InputError, match="is not a folder"):
        plan(recipe(tiny_file, tmp_path / "absent"), tmp_path / "x.boardfit")
    with pytest.raises(RecipeError, match="does not exist"):
        plan(recipe(tiny_file, photos), tmp_path / "absent" / "x.boardfit")


@pytest.mark.parametrize("name", ["x.boardfit", "x"], ids=["file", "folder"])
def test_a_place_that_is_taken_is_seen_before_the_long_work(name, tiny_file, photos, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"is a folder, and|is not a bundle"):
        plan(recipe(tiny_file, photos), tmp_path / name)


def test_labels_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_labels(str(tmp_path / "labels.txt")) == ("cat", "dog")


def test_labels_with_control_characters_are_refused_before_the_long_work(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"cat\nd\x1b[2Jog\n")
    with pytest.raises(RecipeError, match="control character"):
        read_labels(str(tmp_path / "labels.txt"))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"], ids=["empty", "text", "zip"])
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".onnx"])
def test_what_is_no_model_is_refused(content, suffix, photos, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises((UnsupportedModel, InputError), match=r"model"):
        plan(recipe(path, photos), tmp_path / "x.boardfit")


def test_a_truncated_model_is_refused(tiny_file, photos, tmp_path):
    path = tmp_path / "half.keras"
    data = tiny_file.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises((UnsupportedModel, InputError), match=r"half\.keras"):
        plan(recipe(path, photos), tmp_path / "x.boardfit")


def test_a_size_that_the_model_cannot_take_names_what_binds_it(flatten_file, photos, tmp_path):
    path = flatten_file
    with pytest.raises(UnsupportedModel, match=r"28 pixels only, not 40, 56: .*flatten"):
        plan(recipe(path, photos), tmp_path / "x.boardfit")
    report = build(
        recipe(path, photos, export={"sizes": [28], "precisions": ["fp32"]}), tmp_path / "x.boardfit"
    )
    assert {artifact.sizes for artifact in report.manifest.artifacts} == {(28,)}


def test_a_source_that_answers_nan_is_refused(tiny_file, photos, tmp_path):
    import keras

    net = keras.saving.load_model(tiny_file, compile=False)
    kernel, bias = net.get_layer("logits").get_weights()
    net.get_layer("logits").set_weights([kernel * np.nan, bias])
    net.save(tmp_path / "nan.keras")
    asked = recipe(tmp_path / "nan.keras", photos)
    with pytest.raises(UnsupportedModel, match="NaN or infinity"):
        build(asked, tmp_path / "x.boardfit")


def test_an_engine_that_is_not_installed_is_named(tiny_file, photos, tmp_path, monkeypatch):
    import boardfit.converters.verify as verify_module

    monkeypatch.setattr(verify_module, "available_engines", lambda format_name: [])
    with pytest.raises(BoardfitError, match="install one of litert"):
        plan(recipe(tiny_file, photos), tmp_path / "x.boardfit")


def test_an_existing_bundle_survives_a_failed_build(built, tiny_file, photos, tmp_path, monkeypatch):
    report, _ = built
    out = tmp_path / "x.boardfit"
    shutil.copyfile(report.out, out)
    before = out.read_bytes()

    def outside(rows):
        raise ParityError("outside")

    monkeypatch.setattr(build_module, "require_inside", outside)
    asked = recipe(tiny_file, photos, export={"sizes": [28], "formats": ["onnx"], "precisions": ["fp32"]})
    with pytest.raises(ParityError):
        build(asked, out)
    assert out.read_bytes() == before


@pytest.fixture(scope="module")
def sixty_photos(tmp_path_factory):
    import cv2

    folder = tmp_path_factory.mktemp("sixty")
    for seed in range(60):
        cv2.imwrite(str(folder / f"{seed:02d}.png"), synthetic_frame(seed, height=60, width=80))
    return folder


ONE_ARTIFACT = {"sizes": [28, 56], "formats": ["onnx"], "precisions": ["fp32"]}


def test_a_build_fits_the_policy_where_there_are_images_enough(tiny_file, sixty_photos, tmp_path):
    asked = recipe(tiny_file, sixty_photos, export=ONE_ARTIFACT)
    report = build(asked, tmp_path / "x.boardfit")
    assert report.fit is not None
    assert report.manifest.policy == report.fit.policy
    assert report.manifest.policy.fit.images == 30
    verify_bundle(tmp_path / "x.boardfit")
    assert [path.name for path in tmp_path.iterdir()] == ["x.boardfit"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fit": {"enabled": False}}, "it was not asked for"),
        ({"fit": {"limit": 20}}, "20 images are too few"),
        ({"export": {**ONE_ARTIFACT, "sizes": [28]}}, "one size only"),
    ],
    ids=["no-fit", "few", "one-size"],
)
def test_a_build_that_does_not_fit_says_why(changes, reason, tiny_file, sixty_photos, tmp_path):
    asked = recipe(tiny_file, sixty_photos, **{"export": ONE_ARTIFACT, **changes})
    report = build(asked, tmp_path / "x.boardfit")
    assert report.fit is None
    assert not report.manifest.policy.fitted
    assert any(reason in note for note in report.notes)
    with open_bundle(tmp_path / "x.boardfit") as bundle:
        assert bundle.measurements["notes"] == list(report.notes)


def test_two_look_is_refused_before_the_long_work_for_numbers_that_are_no_probabilities(
    tiny_net, photos, tmp_path
):
    import keras

    scores = keras.layers.Activation("relu")(tiny_net.output)
    keras.Model(tiny_net.input, scores).save(tmp_path / "relu.keras")
    asked = recipe(tmp_path / "relu.keras", photos, policy={"kind": "two-look"})
    with pytest.raises(RecipeError, match="activation 'none': use the policy 'entropy' or 'fixed'"):
        plan(asked, tmp_path / "x.boardfit")


def test_images_that_cannot_be_read_are_counted_in_words(tiny_file, photos, tmp_path):
    import shutil

    folder = shutil.copytree(photos, tmp_path / "photos")
    for number, words in ((1, "1 image file could not be read and was skipped"), (2, "2 image files could")):
        (folder / f"broken{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
        report = build(recipe(tiny_file, folder, export=ONE_ARTIFACT), tmp_path / f"{number}.boardfit")
        assert any(note.startswith(words) for note in report.notes)


def test_labels_that_are_asked_for_must_serve(tiny_file, sixty_photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n00.png,1\n")
    asked = recipe(tiny_file, sixty_photos, export=ONE_ARTIFACT, fit={"val": str(table)})
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="needs at least 50"):
        build(asked, tmp_path / "out" / "x.boardfit")
    assert list((tmp_path / "out").iterdir()) == []
