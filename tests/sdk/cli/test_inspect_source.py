"""boardfit inspect on a model that is not built yet."""

from __future__ import annotations

import json

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

    nodes = [helper.make_node("Round", ["x"], ["r"]), helper.make_node("Det", ["r"], ["y"])]
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
