"""boardfit inspect on a model that is not built yet."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from boardfit.cli import main

pytest.importorskip("keras", reason="the [convert] extra is not installed")


@pytest.fixture
def keras_file(tmp_path):
    import keras
    from keras import layers

    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(8, 3, 2, padding="same", name="stem")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    x = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x))
    path = tmp_path / "net.keras"
    keras.Model(image, x).save(path)
    return path


def test_layers_add_up(keras_file, capsys):
    assert main(["inspect", str(keras_file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["layers"]}
    assert rows["stem"]["macs"] == 112 * 112 * 8 * 27
    assert rows["depth"]["macs"] == 112 * 112 * 8 * 9
    assert rows["head"]["macs"] == 40
    assert rows["head"]["parameters"] == 45
    assert found["parameters"] == 8 * 28 + 8 * 10 + 45
    assert (found["side"], found["own_side"], found["free"]) == (224, None, True)
    assert found["outputs"][0]["name"] == "head"
    assert found["unsupported"] == []


def test_people_see_it_too(keras_file, capsys):
    assert main(["inspect", str(keras_file)]) == 0
    text = capsys.readouterr().out
    assert "sizes       any" in text
    assert "DepthwiseConv2D" in text


def test_what_cannot_be_imported_is_counted(tmp_path, capsys):
    import onnx
    from onnx import helper

    nodes = [helper.make_node("Hardmax", ["x"], ["r"]), helper.make_node("Det", ["r"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert main(["inspect", str(path)]) == 1
    text = capsys.readouterr().out
    assert "unsupported Det: 1 times (opset 17)" in text
    assert "unsupported Hardmax: 1 times (opset 17)" in text
    assert "--pass-through" in text
    assert "made for 8" in text


def test_a_bound_size_is_named(tmp_path, capsys):
    import keras
    from keras import layers

    image = keras.Input((16, 16, 3), name="image")
    x = layers.Dense(3, name="head")(layers.Flatten(name="flat")(image))
    keras.Model(image, x).save(tmp_path / "net.keras")
    assert main(["inspect", str(tmp_path / "net.keras"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["free"] is False
    assert "flat" in found["fixed_by"] or "head" in found["fixed_by"]
    assert np.prod(found["layers"][-1]["shape"]) == 3


@pytest.fixture
def tflite_file(tmp_path):
    import keras
    import tensorflow as tf

    image = keras.Input((16, 16, 3), name="image")
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(image))
    path = tmp_path / "net.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, scores)).convert())
    return path


def test_a_tflite_file_shows_its_interface(tflite_file, capsys):
    assert main(["inspect", str(tflite_file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["own_side"], found["free"], found["layers"]) == (16, False, [])
    assert (found["outputs"][0]["shape"], found["outputs"][0]["activation"]) == ([None, 3], "softmax")
    assert "packed as it is" in found["unsupported"][0]


def test_sizes_auto_names_the_side_of_a_tflite_file(tflite_file, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((20, 20, 3), np.uint8))
    words = ["build", str(tflite_file), "--images", str(tmp_path), "-o", str(tmp_path / "o.boardfit")]
    assert main([*words, "--pass-through", "--sizes", "auto", "--dry-run"]) == 1
    assert "--sizes 16" in capsys.readouterr().err


def test_a_pytorch_factory_is_surveyed(tmp_path, capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "nets.py").write_text(
        "import torch\n\ndef small():\n    return torch.nn.Sequential(\n        torch.nn.Conv2d(3, 4, 3),"
        " torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()\n    )\n"
    )
    assert main(["inspect", f"{tmp_path / 'nets.py'}:small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 4 * 28


@pytest.mark.parametrize("name", ["nowhere.onnx", "nowhere.keras", "nowhere.tflite"])
def test_a_source_that_is_not_there_is_told_before_anything_is_imported(name, monkeypatch, capsys):
    monkeypatch.setattr("boardfit.converters.ingest.survey.load_frameworks", lambda: pytest.fail("imported"))
    assert main(["inspect", name]) == 1
    assert f"{name} does not exist" in capsys.readouterr().err
