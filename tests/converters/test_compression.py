"""Builds that compress: pruned, distilled and elastic ones, resuming, what is refused, what is told."""

from __future__ import annotations

import shutil

import cv2
import pytest

import boardfit
from boardfit.bundle import open_bundle
from boardfit.cli import main
from boardfit.converters.build import build
from boardfit.converters.compression import Effect, worse_note
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
        tables: dict[str, dict] = {
            "prune": {},
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
    assert any(line == "stage elastic" for line in told)
    assert any("reading 54 images at 32" in line for line in told)
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
    assert any("compressing made the model worse (" in note and "32: 100 to" in note for note in wild.notes)
    assert worse_note([Effect(24, 50, 90.0, 88.0), Effect(32, 50, 100.0, 100.0)]) == ""


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory):
    """A larger net of the source's seven classes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    image = keras.Input((None, None, 3))
    x = layers.ReLU()(layers.Conv2D(24, 3, 2, padding="same")(image))
    scores = layers.Dense(7)(layers.GlobalAveragePooling2D()(x))
    path = tmp_path_factory.mktemp("teacher") / "large.keras"
    keras.Model(image, scores, name="large").save(path)
    return path


def distilling(teacher_file, many_photos, **distill):
    given = {"folder": str(many_photos), "epochs": 2, "batch": 16, "teacher": str(teacher_file), **distill}
    return {"elastic": {"enabled": False}, "distill": given}


def test_another_model_teaches(recipe, teacher_file, many_photos, tmp_path):
    told, moments = [], []
    sections = distilling(teacher_file, many_photos, contrast_weight=0.5, decouple_weight=0.1)
    report = build(recipe(**sections), tmp_path / "a.boardfit", watch=moments.append, progress=told.append)
    assert [line for line in told if line.startswith("stage")] == ["stage distill"]
    assert f"importing the teacher {teacher_file}" in told
    assert any(note.startswith("distill: trained for 2 epochs") for note in report.notes)
    assert 0.0 <= moments[-1].metrics["agreement"] <= 1.0
    assert report.manifest.recipe["distill"]["teacher"] == "large.keras"
    assert [artifact.sizes for artifact in report.manifest.artifacts] == [(24, 32)]


def test_what_was_distilled_is_made_elastic_and_resuming_repeats_neither(
    recipe, teacher_file, many_photos, tmp_path
):
    def interrupt(moment):
        if moment.phase == "together" and moment.step == 2:
            raise KeyboardInterrupt

    asked = recipe(**{**distilling(teacher_file, many_photos), "elastic": {"enabled": True}})
    with pytest.raises(KeyboardInterrupt):
        build(asked, tmp_path / "a.boardfit", watch=interrupt)
    with pytest.raises(CompressError, match=r"distill holds a training that was interrupted: add --resume"):
        build(asked, tmp_path / "a.boardfit")
    other = recipe(**{**distilling(teacher_file, many_photos, temperature=3.0), "elastic": {"enabled": True}})
    with pytest.raises(CompressError, match="another teacher, other images or other settings gave"):
        build(other, tmp_path / "a.boardfit", resume=True)
    moments = []
    broken = build(asked, tmp_path / "a.boardfit", resume=True, watch=moments.append)
    assert {moment.phase for moment in moments} == {"together"} and moments[0].step == 3
    whole = build(asked, tmp_path / "b.boardfit")
    assert [e.to_dict() for e in broken.effects] == [e.to_dict() for e in whole.effects]
    weights = [report.manifest.recipe["source"]["weights_sha256"] for report in (broken, whole)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("epochs", "elastic", "interrupted", "kept"),
    [
        (
            1,
            True,
            lambda moment: moment.phase == "together",
            "distill holds what another model",
        ),
        (
            2,
            False,
            lambda moment: (moment.epoch, moment.step) == (2, 1),
            "checkpoint.npz belongs to another",
        ),
    ],
    ids=["taught", "half taught"],
)
def test_another_teacher_in_the_same_file_does_not_take_what_the_first_one_left(
    recipe, teacher_file, many_photos, tmp_path, epochs, elastic, interrupted, kept
):
    import keras

    def interrupt(moment):
        if interrupted(moment):
            raise KeyboardInterrupt

    path = shutil.copy(teacher_file, tmp_path / "teacher.keras")
    asked = recipe(**{**distilling(path, many_photos, epochs=epochs), "elastic": {"enabled": elastic}})
    with pytest.raises(KeyboardInterrupt):
        build(asked, tmp_path / "a.boardfit", watch=interrupt)
    other = keras.saving.load_model(path)
    other.set_weights([2.0 * weight for weight in other.get_weights()])
    other.save(path)
    with pytest.raises(CompressError, match=kept):
        build(asked, tmp_path / "a.boardfit", resume=True)


def test_a_teacher_that_was_moved_is_the_same(recipe, tmp_path):
    def tables(path: str):
        return [recipe(distill={"teacher": path}).stage_tables(stage) for stage in ("distill", "elastic")]

    assert tables("a.keras") == tables("b.keras")


def test_what_a_stage_made_of_other_pixels_is_not_taken(recipe, tiny_file, tmp_path):
    def interrupt(moment):
        raise KeyboardInterrupt

    sections = {"prune": {"macs": 0.3, "multiple": 2, "keep": 0.1}, "elastic": {"enabled": False}}
    with pytest.raises(KeyboardInterrupt):
        build(recipe(**sections), tmp_path / "a.boardfit", watch=interrupt)
    other = recipe(**sections, source={"model": str(tiny_file), "image_spec": "imagenet"})
    with pytest.raises(CompressError, match=r"prune holds what another model"):
        build(other, tmp_path / "a.boardfit", resume=True)


def test_after_a_loss_that_was_not_finite_another_rate_takes_the_pruned_net(recipe, tmp_path, monkeypatch):
    from boardfit.converters.compress.prune import Prune

    sections = {"prune": {"macs": 0.3, "multiple": 2, "keep": 0.1}, "elastic": {"enabled": False}}
    wild, calm = (recipe(**sections, distill={"learning_rate": rate, "epochs": 1}) for rate in (1e30, 1e-3))
    with pytest.raises(CompressError, match=r"not finite.*lower the learning rate"):
        build(wild, tmp_path / "a.boardfit")
    monkeypatch.setattr(Prune, "__call__", lambda self, model: pytest.fail("pruned again"))
    report = build(calm, tmp_path / "a.boardfit", resume=True)
    assert any(note.startswith("distill: trained for 1 epochs") for note in report.notes)


def test_a_net_that_recovered_between_steps_hangs_on_how_it_was_trained(recipe):
    def tables(steps: int, rate: float):
        sections = {"prune": {"macs": 0.3, "steps": steps}, "elastic": {"enabled": False}}
        return recipe(**sections, distill={"learning_rate": rate}).stage_tables("prune")

    assert tables(1, 1e-3) == tables(1, 1e-4)
    assert tables(2, 1e-3) != tables(2, 1e-4)


def test_a_full_disk_while_a_finished_stage_is_kept_says_what_to_do(
    recipe, teacher_file, many_photos, tmp_path, monkeypatch
):
    from boardfit.converters import kept

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_whole", full)
    asked = recipe(**{**distilling(teacher_file, many_photos), "elastic": {"enabled": True}})
    with pytest.raises(CompressError, match=r"No space left on device.*start again with --resume"):
        build(asked, tmp_path / "a.boardfit")
    assert not (tmp_path / "a.boardfit").exists()
    monkeypatch.undo()
    assert build(asked, tmp_path / "a.boardfit", resume=True).effects


@pytest.mark.parametrize(
    ("distill", "error", "message"),
    [
        ({"folder": "", "teacher": "x.keras"}, RecipeError, "distill.teacher is given, but no images"),
        ({"teacher": "/nowhere/x.keras"}, InputError, "does not exist"),
        ({"learning_rate": -1.0}, RecipeError, "learning_rate is -1: expected 0 or more"),
        ({"numbers": "float8"}, RecipeError, "expected distinct ones of float32"),
        ({"decouple_groups": 1}, CompressError, "decouple_groups is 1: expected at least 2"),
    ],
    ids=["no images", "no such teacher", "rate", "numbers", "groups"],
)
def test_distilling_that_makes_no_sense_is_refused(
    recipe, teacher_file, many_photos, tmp_path, distill, error, message
):
    sections = distilling(teacher_file, many_photos)
    sections["distill"] |= distill
    with pytest.raises(error, match=message):
        build(recipe(**sections), tmp_path / "a.boardfit")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("enough", [True, False])
def test_without_training_the_photographs_of_the_proof_are_looked_at(enough, recipe, many_photos, tmp_path):
    sections = {"prune": {"macs": 0.3, "multiple": 2, "keep": 0.1}, "elastic": {"enabled": False}}
    sections |= {"distill": {"folder": ""}, **({"images": {"folder": str(many_photos)}} if enough else {})}
    report = build(recipe(**sections), tmp_path / "a.boardfit")
    fitted = any(note.startswith("prune: layers fitted to give what they gave") for note in report.notes)
    assert fitted == enough
    chosen = "chosen by taylor on 54 images" if enough else "chosen by l2"
    assert any(note.endswith(chosen) for note in report.notes)
    flattered = "54 of the 54 images on which answers are compared were trained on, or pruned by"
    assert any(note.startswith(flattered) for note in report.notes) == enough


def test_a_net_is_pruned_in_steps_distilled_and_made_elastic(recipe, many_photos, tmp_path):
    told = []
    sections = {"prune": {"macs": 0.3, "steps": 2, "multiple": 2, "keep": 0.1}, "distill": {"epochs": 4}}
    report = build(recipe(**sections), tmp_path / "a.boardfit", progress=told.append)
    assert [line for line in told if line.startswith(("stage", "recovering"))] == [
        "stage prune",
        "recovering from step 1 of 2: 1 epochs",
        "stage distill",
        "stage elastic",
    ]
    assert any(note.startswith("distill: trained for 3 epochs") for note in report.notes)
    assert any(note.startswith("prune: ") for note in report.notes)
    kept = report.manifest.recipe
    assert kept["prune"]["macs"] == 0.3
    assert [artifact.sizes for artifact in report.manifest.artifacts] == [(24,), (32,)]


def test_pruning_that_was_interrupted_goes_on_with_the_net_that_it_had(recipe, tmp_path, monkeypatch):
    """Measured times differ when they are measured again; here every search finds something else."""
    from boardfit.converters.compress.prune import Prune

    asked = {"prune": {"macs": 0.3, "steps": 2, "multiple": 2, "keep": 0.1, "criterion": "random"}}

    def interrupt(moment):
        if moment.epochs == 9:
            raise KeyboardInterrupt

    sections = {**asked, "elastic": {"enabled": False}, "distill": {"epochs": 11}}
    with pytest.raises(KeyboardInterrupt):
        build(recipe(**sections), tmp_path / "a.boardfit", watch=interrupt)
    monkeypatch.setattr(Prune, "__call__", lambda self, model: pytest.fail("pruned again"))
    moments = []
    build(recipe(**sections), tmp_path / "a.boardfit", resume=True, watch=moments.append)
    assert {moment.epochs for moment in moments} == {9}


def test_a_step_of_pruning_another_source_is_not_gone_on_with(recipe, tiny_file, tmp_path):
    import keras

    def interrupt(moment):
        raise KeyboardInterrupt

    path = shutil.copy(tiny_file, tmp_path / "tiny.keras")
    sections = {
        "source": {"model": str(path), "image_spec": "unit"},
        "prune": {"macs": 0.3, "steps": 2, "multiple": 2, "keep": 0.1},
        "elastic": {"enabled": False},
    }
    with pytest.raises(KeyboardInterrupt):
        build(recipe(**sections), tmp_path / "a.boardfit", watch=interrupt)
    assert (tmp_path / "a.boardfit.partial" / "prune" / "step-1" / "begun.keras").is_file()
    other = keras.saving.load_model(path)
    other.set_weights([0.9 * weight for weight in other.get_weights()])
    other.save(path)
    with pytest.raises(CompressError, match=r"step-1 holds what another model"):
        build(recipe(**sections), tmp_path / "a.boardfit", resume=True)


def test_zeros_that_would_be_trained_away_are_refused(recipe):
    with pytest.raises(RecipeError, match="sets weights to 0"):
        recipe(prune={"sparsity": 0.5}, elastic={"kernels": "trained"})
