"""What a build that compressed tells of it: counts, files, times, curves, and the record that is kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest

from boardfit.converters import compression_report
from boardfit.converters.compression_record import (
    CompressionRecord,
    Curve,
    FileChange,
    IntegerChange,
    NetFacts,
    ScoreChange,
    TimeChange,
)
from boardfit.converters.compression_report import (
    MOST_EPOCHS,
    Compressed,
    read_curves,
    record_of,
    right_answers,
)
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_evidence import Photo
from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples, synthetic_frame
from boardfit.converters.targets import export
from boardfit.errors import ExportError, ReportError
from boardfit.specs import ImageSpec, TensorSpec

RECORD = CompressionRecord(
    stages=("prune", "distill"),
    before=NetFacts(1000, {24: 10, 32: 20}),
    after=NetFacts(700, {24: 6, 32: 12}),
    agreement=(ScoreChange(24, 32, 90.0, 92.5), ScoreChange(32, 32, 100.0, 97.5)),
    right=(ScoreChange(32, 500, 90.0, 89.4, lost=12, gained=9),),
    files=(FileChange("onnx", "fp32", 4000, 2800),),
    times=(TimeChange("onnxruntime", "onnx", "fp32", 32, 1, 0.002, 0.0014, 0.7),),
    integers=(
        IntegerChange("onnx-int8-32", 32, "flips", 6.0, 3.0, 0.2, 0.05, True),
        IntegerChange("ncnn-int8-32", 32, "drop", 1.5, None, None, 0.3, False),
    ),
    curves=(Curve("distill", (1, 2), ("all", "all"), {"loss": (1.0, 0.5), "accuracy": (None, 0.9)}),),
)


def net_of(width: int, classes: int = 5) -> TrainedModel:
    layers = keras.layers
    keras.utils.set_random_seed(width)
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    net = keras.Model(image, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))
    return TrainedModel(
        name=f"net of {width}",
        net=net,
        outputs=(TensorSpec(name="logits", shape=(None, classes), activation="logits"),),
        image=ImageSpec(),
        reference=keras_reference(net),
    )


@pytest.fixture(scope="module")
def wide() -> TrainedModel:
    return net_of(64)


@pytest.fixture(scope="module")
def narrow() -> TrainedModel:
    return net_of(16)


@pytest.fixture
def compared(wide, narrow, tmp_path) -> Compressed:
    sizes = (24, 32)
    rows = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    return Compressed(
        before=wide,
        after=narrow,
        stages=("prune",),
        sizes=sizes,
        formats=("onnx",),
        exported=[export(narrow, format_name="onnx", sizes=sizes, precision="fp32")],
        samples=Samples(tensors={24: rows[:, :24, :24], 32: rows}, photographs=3),
        photos=(),
        parity=ParitySection(),
        logs=tmp_path,
    )


def test_a_record_comes_back_from_json_as_it_was():
    assert CompressionRecord.from_dict(json.loads(json.dumps(RECORD.to_dict()))) == RECORD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "has the schema 1: expected 2"),
        ({"before": {"parameters": 3}}, "is damaged"),
        ({"files": [{"format": "onnx"}]}, "is damaged"),
        ({"times": 7}, "is damaged"),
        ({"times": [{**RECORD.to_dict()["times"][0], "ratio": "much"}]}, "is damaged"),
        ({"after": {"parameters": 3, "macs": {"48": 3}}}, "at \\[24, 32\\] before and \\[48\\] after"),
        ({"before": {"parameters": 3, "macs": {}}, "after": {"parameters": 3, "macs": {}}}, "one at least"),
        (
            {"curves": [{"stage": "a", "epochs": [1], "phases": ["all"], "series": {"loss": [1, 2]}}]},
            "damaged",
        ),
    ],
    ids=["schema", "net", "file", "times", "ratio", "other sizes", "no size", "curve"],
)
def test_a_damaged_record_is_told_in_a_sentence(change, message):
    with pytest.raises(ReportError, match=message):
        CompressionRecord.from_dict({**RECORD.to_dict(), **change})


@pytest.mark.parametrize("data", [None, [], "text", {}], ids=str)
def test_what_is_no_record_is_told(data):
    with pytest.raises(ReportError, match="has the schema None"):
        CompressionRecord.from_dict(data)


def test_a_smaller_net_is_told_to_be_smaller(compared):
    record, notes = record_of(compared, [ScoreChange(32, 3, 100.0, 50.0)])
    assert notes == ()
    assert record.before.parameters == 64 * 28 + 64 * (9 * 64 + 1) + 65 * 5
    assert record.after.parameters == 16 * 28 + 16 * (9 * 16 + 1) + 17 * 5
    assert record.before.macs == {s: s * s * (27 * 64 + 9 * 64 * 64) + 64 * 5 for s in (24, 32)}
    assert record.after.macs[32] == 32 * 32 * (27 * 16 + 9 * 16 * 16) + 16 * 5
    (file,) = record.files
    assert (file.format, file.precision) == ("onnx", "fp32")
    assert file.before_bytes > 4 * record.before.parameters
    assert 4 * record.after.parameters < file.after_bytes < file.before_bytes / 4
    assert [(row.engine, row.size, row.threads) for row in record.times] == [
        ("onnxruntime", 24, 1),
        ("onnxruntime", 32, 1),
    ]
    assert all(row.ratio < 0.6 and row.after_s < row.before_s for row in record.times)  # MACs: 0.07
    assert record.agreement == (ScoreChange(32, 3, 100.0, 50.0),)
    assert record.right == ()
    assert record.curves == ()


def test_where_only_integers_are_packed_both_are_exported_in_floats(compared):
    record, _ = record_of(replace(compared, exported=[]), [])
    assert record.files[0].precision == "fp32"
    assert record.files[0].after_bytes < record.files[0].before_bytes


def test_a_source_that_cannot_be_exported_is_a_note_and_no_failure(compared, monkeypatch):
    def refuse(model, **kwargs):
        raise ExportError("it is too wide")

    monkeypatch.setattr(compression_report, "export", refuse)
    record, notes = record_of(compared, [])
    assert notes == ("what compressing brings for onnx was not measured: it is too wide",)
    assert record.times == ()
    assert record.files == ()


def test_a_source_whose_one_file_answers_otherwise_gets_a_file_per_size(compared, monkeypatch):
    asked = []

    def spy(model, *, format_name, sizes, precision):
        asked.append(sizes)
        if len(sizes) > 1:
            raise ExportError("not in one file")
        return export(model, format_name=format_name, sizes=sizes, precision=precision)

    monkeypatch.setattr(compression_report, "export", spy)
    record, notes = record_of(compared, [])
    assert asked == [(24, 32), (24,), (32,)]
    assert notes == ()
    assert record.files[0].before_bytes > 8 * record.before.parameters
    assert [row.size for row in record.times] == [24, 32]


def test_right_answers_are_counted_image_by_image(tmp_path):
    photos, known = [], []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.full((16, 16, 3), 30 * number, np.uint8))
        photos.append(Photo(path, number % 2))
    photos.insert(3, Photo(tmp_path / "absent.png", 0))

    def answering(right: set[int]):
        """A model that is right on some of the pictures, which it knows by their grey."""

        def reference(images, further=()):
            numbers = [round(float(image.mean()) * 255.0 / 30.0) for image in images]
            known.extend(numbers)
            labels = [number % 2 if number in right else 1 - number % 2 for number in numbers]
            return [np.eye(2, dtype=np.float32)[labels]]

        output = TensorSpec(name="scores", shape=(None, 2), activation="softmax")
        image = ImageSpec(mean=(0.0,) * 3, std=(255.0,) * 3)
        return TrainedModel("stand-in", None, (output,), image, reference)

    before, after = answering({0, 1, 2, 3, 4}), answering({2, 3, 4, 5})
    found = right_answers(before, after, sizes=(8, 16), photos=photos)
    assert set(known) == set(range(7))
    expected = {"images": 7, "before": 500 / 7, "after": 400 / 7, "lost": 2, "gained": 1}
    assert found == tuple(ScoreChange(size, **expected) for size in (8, 16))
    assert right_answers(before, after, sizes=(8,), photos=[Photo(tmp_path / "absent.png", 0)]) == ()


def write_log(folder, rows: int, *, at: int) -> None:
    folder.mkdir(parents=True)
    lines = ["epoch,phase,steps,seconds,images_per_s,accuracy,loss"]
    lines += [f"{n},{'first' if n < 3 else 'second'},8,1.5,300.0,nan,{1 / n:.6f}" for n in range(1, rows + 1)]
    (folder / "log.csv").write_text("\n".join([*lines, ""]))
    os.utime(folder / "log.csv", ns=(at, at))


def test_logs_become_curves_in_the_order_of_their_trainings(tmp_path):
    write_log(tmp_path / "elastic", 2, at=2 * 10**18)
    write_log(tmp_path / "prune" / "recovery 1", 3, at=10**18)
    (tmp_path / "untrained").mkdir()
    write_log(tmp_path / "distill", 2, at=10**18)  # interrupted, and asked for no longer
    prune, elastic = read_curves(tmp_path, ["prune", "untrained", "elastic", "qat-32"])
    assert (prune.stage, elastic.stage) == ("prune recovery 1", "elastic")
    assert prune.epochs == (1, 2, 3)
    assert prune.phases == ("first", "first", "second")
    assert prune.series == {
        "seconds": (1.5,) * 3,
        "images_per_s": (300.0,) * 3,
        "accuracy": (None,) * 3,
        "loss": (1.0, 0.5, 0.333333),
    }


def test_a_long_training_is_thinned_and_keeps_its_end(tmp_path):
    write_log(tmp_path / "distill", 1000, at=10**18)
    (curve,) = read_curves(tmp_path, ["distill"])
    assert len(curve.epochs) <= MOST_EPOCHS
    assert curve.epochs[-1] == 1000
    assert len(set(np.diff(curve.epochs).tolist())) == 1


def test_a_labelled_build_tells_right_answers(compared, tmp_path):
    photos = []
    for seed in range(4):
        path = tmp_path / f"{seed}.png"
        cv2.imwrite(str(path), synthetic_frame(seed, height=40, width=50))
        photos.append(Photo(path, seed))
    record, _ = record_of(replace(compared, photos=photos), [])
    assert [(row.size, row.images) for row in record.right] == [(24, 4), (32, 4)]
