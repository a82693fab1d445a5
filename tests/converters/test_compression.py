"""Elastic builds as a whole: one file per size, resuming, what is refused, what is told."""

from __future__ import annotations

import cv2
import pytest

import boardfit
from boardfit.bundle import open_bundle
from boardfit.cli import main
from boardfit.converters.build import build
from boardfit.converters.compression_record import CompressionRecord
from boardfit.converters.plan import plan
from boardfit.converters.recipe import Recipe
from boardfit.converters.samples import synthetic_frame
from boardfit.errors import CompressError, InputError, RecipeError


@pytest.fixture(scope="session")
def many_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for seed in range(54):
        cv2.imwrite(str(folder / f"{seed:02d}.png"), synthetic_frame(seed, height=60, width=80))
    return folder


@pytest.fixture
def recipe(tiny_file, photos, many_photos):
    """Return a function that makes a recipe; sections are overlaid."""

    def make(**sections) -> Recipe:
        tables = {
            "source": {"model": str(tiny_file), "image_spec": "unit"},
            "images": {"folder": str(photos)},
            "export": {"sizes": [24, 32], "formats": ["onnx"], "precisions": ["fp32"]},
            "distill": {"folder": str(many_photos), "epochs": 2, "batch": 16},
            "elastic": {"enabled": True},
        }
        return Recipe.from_dict({name: {**tables.get(name, {}), **sections.get(name, {})} for name in tables})

    return make


def test_an_elastic_bundle_has_a_file_per_size_and_says_what_training_changed(recipe, tmp_path, capsys):
    moments, told = [], []
    report = build(recipe(), tmp_path / "a.boardfit", watch=moments.append, progress=told.append)
    assert [artifact.sizes for artifact in report.manifest.artifacts] == [(24,), (32,)]
    assert all(not row.fault for row in report.parity)
    assert [(effect.size, effect.images) for effect in report.effects] == [(24, 32), (32, 32)]
    assert report.effects[1].before == 100.0
    assert (moments[-1].epoch, moments[-1].step) == (2, 3)
    assert any("stage elastic: 2 epochs on 54 images" in line for line in told)
    assert any("private to each of 2 sizes" in note for note in report.notes)
    with open_bundle(tmp_path / "a.boardfit") as bundle:
        assert CompressionRecord.from_dict(bundle.measurements["compressed"]) == report.compression
        assert bundle.manifest.recipe["elastic"]["enabled"] is True
        assert "folder" not in bundle.manifest.recipe["distill"]
    assert main(["inspect", str(tmp_path / "a.boardfit")]) == 0
    assert "answers as the source at 32, before to after: 24: " in capsys.readouterr().out
    with boardfit.load(tmp_path / "a.boardfit") as model:
        assert model(synthetic_frame(3)).size in (24, 32)
    assert not (tmp_path / "a.boardfit.partial").exists()


def test_what_was_interrupted_must_be_resumed_on_purpose(recipe, tmp_path):
    def interrupt(moment):
        if (moment.epoch, moment.step) == (2, 2):
            raise KeyboardInterrupt

    out = tmp_path / "a.boardfit"
    with pytest.raises(KeyboardInterrupt):
        build(recipe(), out, watch=interrupt)
    assert not out.exists()
    with pytest.raises(CompressError, match="training that was interrupted: add --resume"):
        build(recipe(), out)
    moments = []
    build(recipe(), out, resume=True, watch=moments.append)
    assert [(moment.epoch, moment.step) for moment in moments] == [(2, 3)]


def test_interrupted_on_the_command_line_it_tells_how_to_go_on(
    tiny_file, photos, many_photos, tmp_path, monkeypatch, capsys
):
    from boardfit.cli import training

    def interrupt(self, moment):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.TrainingProgress, "__call__", interrupt)
    command = ["build", str(tiny_file), "--images", str(photos), "--image-spec", "unit", "--sizes", "24,32"]
    command += ["--formats", "onnx", "--elastic", "--distill", str(many_photos), "--epochs", "1"]
    command += ["-o", str(tmp_path / "out.boardfit")]
    monkeypatch.setattr("sys.argv", ["boardfit", *command])
    assert main(command) == 130
    assert f"to go on: boardfit {' '.join(command)} --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"distill": {"folder": ""}}, RecipeError, "give --distill FOLDER"),
        ({"elastic": {"enabled": False}}, RecipeError, "there is nothing to train"),
        ({"elastic": {"shares": [1.0]}}, RecipeError, "expected three that add up to 1"),
        ({"elastic": {"norms": "none"}}, RecipeError, "expected distinct ones of frozen, batch"),
        ({"distill": {"epochs": 0}}, RecipeError, "epochs is 0: expected at least 1"),
        ({"distill": {"limit": 20}}, InputError, "has 20 images to train on: expected at least 50"),
        ({"distill": {"folder": "/nowhere"}}, InputError, "is not a folder"),
        ({"export": {"sizes": [32]}}, CompressError, "two or more sizes"),
    ],
    ids=[
        "no folder",
        "nothing to train",
        "shares",
        "norms",
        "epochs",
        "few images",
        "no such folder",
        "size",
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(recipe, tmp_path, sections, error, message):
    with pytest.raises(error, match=message):
        build(recipe(**sections), tmp_path / "a.boardfit")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"export": {"sizes": [32]}}, "two or more sizes"),
        ({"elastic": {"teacher_weight": 0.0}}, "nothing teaches the net"),
        ({"elastic": {"temperature": 0.5}}, "its temperature at least 1"),
    ],
    ids=["size", "teacher", "options"],
)
def test_a_dry_run_asks_the_stages(recipe, tmp_path, sections, message):
    with pytest.raises(CompressError, match=message):
        plan(recipe(**sections), tmp_path / "a.boardfit")


@pytest.mark.parametrize("label", [7, -1])
def test_a_label_that_is_no_class_is_refused(recipe, many_photos, tmp_path, label):
    table = tmp_path / "labels.csv"
    rows = [f"{number:02d}.png,{number % 7}" for number in range(53)]
    table.write_text("\n".join(["file,label", *rows, f"53.png,{label}"]))
    with pytest.raises(RecipeError):
        build(recipe(distill={"labels": str(table)}), tmp_path / "a.boardfit")


def test_a_limit_leaves_no_class_of_a_sorted_table_out(recipe, many_photos, tmp_path):
    from boardfit.converters.plan import plan

    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label", *(f"{n:02d}.png,{int(n >= 52)}" for n in range(54))]))
    checked = plan(recipe(distill={"labels": str(table), "limit": 50}), tmp_path / "a.boardfit")
    assert len(checked.training.paths) == 50
    assert set(checked.training.labels) == {0, 1}


def test_a_policy_that_is_fitted_on_what_was_trained_on_is_told(recipe, many_photos, tmp_path):
    report = build(recipe(images={"folder": str(many_photos)}), tmp_path / "a.boardfit")
    assert any("54 of the 54 images on which the policy is fitted were trained on" in n for n in report.notes)


def test_a_model_that_training_made_worse_is_told(recipe, tmp_path):
    wild = build(
        recipe(distill={"learning_rate": 0.5}, elastic={"kernels": "trained"}), tmp_path / "a.boardfit"
    )
    assert any("training made the model worse (" in note and "32: 100 to" in note for note in wild.notes)
    calm = build(recipe(distill={"learning_rate": 1e-7}), tmp_path / "b.boardfit")
    assert not any("made the model worse" in note for note in calm.notes)
