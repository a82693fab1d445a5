from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from boardfit.converters.ingest import guard, ingest, own_side
from boardfit.converters.ingest.untouched import read_untouched
from boardfit.errors import RecipeError, UnsupportedModel


@pytest.fixture(autouse=True)
def stranger(monkeypatch):
    """Read sources as those of strangers, within 600 MiB."""
    monkeypatch.delenv(guard.TRUST, raising=False)
    monkeypatch.setenv("BOARDFIT_IMPORT_MB", "600")
    monkeypatch.setattr(guard, "_checked", set())


def small_net(keras, units=4, filters=8):
    image = keras.Input((None, None, 3))
    hidden = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name="grows")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(image, keras.layers.Dense(units, activation="softmax", name="wide")(pooled))


def blown_up(path, layer, field, value):
    """Change a number in the configuration of a saved model; its weights stay as small as they are."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    for item in config["config"]["layers"]:
        if item["config"]["name"] == layer:
            item["config"][field] = value
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.fixture
def saved(tmp_path):
    import keras

    path = tmp_path / "net.keras"
    small_net(keras).save(path)
    return path


def onnx_bomb(path, *, count):
    """A model of some hundred bytes whose constant has so many numbers."""
    onnx = pytest.importorskip("onnx")
    helper, number = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Add", ["flat", "sum"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, 3])
    shape = number.from_array(np.array([count], np.int64), "shape")
    graph = helper.make_graph(nodes, "bomb", [image], [scores], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_healthy_model_passes_and_is_tried_once(saved, request_for, monkeypatch):
    assert ingest(request_for(saved)).outputs[0].shape == (None, 4)

    def again(*_):
        raise AssertionError("tried again")

    monkeypatch.setattr(guard, "_run_child", again)
    ingest(request_for(saved))


def test_layers_of_gigabytes_are_refused_before_they_are_made_here(saved, request_for):
    blown_up(saved, "wide", "units", 200_000_000)
    with pytest.raises(UnsupportedModel, match=r"net\.keras .* takes more than 600 MiB"):
        ingest(request_for(saved))


def test_images_of_gigabytes_between_the_layers_are_refused(tmp_path, request_for):
    import keras

    path = tmp_path / "net.keras"
    small_net(keras, filters=4096).save(path)
    ingest(request_for(path, 32))
    with pytest.raises(UnsupportedModel, match="takes more than 600 MiB"):
        ingest(request_for(path, 224))


def test_constants_of_gigabytes_in_onnx_are_refused(tmp_path, request_for):
    path = onnx_bomb(tmp_path / "bomb.onnx", count=1 << 33)
    assert path.stat().st_size < 1000
    with pytest.raises(UnsupportedModel, match=r"takes more than 600 MiB|crashes"):
        ingest(request_for(path))


def test_a_tflite_file_is_read_within_the_limit(tmp_path, request_for, monkeypatch):
    monkeypatch.setenv("BOARDFIT_IMPORT_MB", "1")
    path = tmp_path / "net.tflite"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(UnsupportedModel, match=r"net\.tflite \(64\.0 MiB\) takes more than 1 MiB"):
        read_untouched(request_for(path))


def test_a_saved_model_is_converted_within_the_limit(tmp_path, request_for, monkeypatch):
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    monkeypatch.setenv("BOARDFIT_IMPORT_SECONDS", "1")
    with pytest.raises(UnsupportedModel, match=r"within 1 s.*BOARDFIT_IMPORT_SECONDS"):
        ingest(request_for(tmp_path))


def test_the_side_alone_is_asked_in_a_child_too(saved):
    blown_up(saved, "wide", "units", 200_000_000)
    with pytest.raises(UnsupportedModel, match="takes more than 600 MiB"):
        own_side(str(saved))


def test_a_file_that_takes_too_long_is_refused(saved, request_for, monkeypatch):
    monkeypatch.setenv("BOARDFIT_IMPORT_SECONDS", "1")
    # Room enough that a fast machine does not meet the other limit within that second.
    monkeypatch.setenv("BOARDFIT_IMPORT_MB", "6000")
    blown_up(saved, "wide", "units", 20_000_000)
    with pytest.raises(UnsupportedModel, match="takes more than 1 s"):
        ingest(request_for(saved))


@pytest.mark.parametrize(("status", "how"), [(-11, "SIGSEGV"), (-6, "SIGABRT"), (134, "exit status 134")])
def test_a_library_that_crashes_takes_its_own_process_only(saved, request_for, monkeypatch, status, how):
    monkeypatch.setattr(guard, "_run_child", lambda *_: status)
    with pytest.raises(UnsupportedModel, match=rf"crashes \({how}\)"):
        ingest(request_for(saved))


def test_a_damaged_file_gets_its_own_message(saved, request_for):
    saved.write_bytes(saved.read_bytes()[:500])
    with pytest.raises(UnsupportedModel, match="is not a Keras model, or is damaged"):
        ingest(request_for(saved))


def test_what_the_shapes_do_not_decide_is_imported_whole(saved, request_for, monkeypatch):
    orders = []
    monkeypatch.setattr(
        guard,
        "_run_child",
        lambda order, _: orders.append(order["whole"]) or (guard.UNDECIDED, 0)[len(orders) - 1],
    )
    ingest(request_for(saved))
    assert orders == [False, True]


def test_who_trusts_the_source_pays_nothing(saved, request_for, monkeypatch):
    monkeypatch.setenv(guard.TRUST, "1")
    monkeypatch.setattr(guard, "_run_child", lambda *_: pytest.fail("a child was started"))
    ingest(request_for(saved))


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_limits_that_make_no_sense_are_refused(saved, request_for, monkeypatch, text):
    monkeypatch.setenv("BOARDFIT_IMPORT_MB", text)
    with pytest.raises(RecipeError, match="BOARDFIT_IMPORT_MB"):
        ingest(request_for(saved))
