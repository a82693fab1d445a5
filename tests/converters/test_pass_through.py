"""Sources that are packed as they are, and SavedModels."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest

import boardfit
from boardfit.bundle import open_bundle
from boardfit.cli import main
from boardfit.converters.ingest import ingest, own_side
from boardfit.converters.ingest.last_activation import activation_behind
from boardfit.converters.ingest.untouched import read_untouched
from boardfit.converters.model import SourceRequest
from boardfit.errors import InputError, UnsupportedModel
from boardfit.specs import ImageSpec


@pytest.fixture
def onnx_file(tmp_path):
    """A file with an operator that no Keras layer has, free of size."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Atan", ["c"], ["r"]),
        helper.make_node("Add", ["c", "r"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["scores"]),
    ]
    weight = numpy_helper.from_array(rng.normal(size=(5, 3, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("scores", 1, ["n", 5])],
        [weight],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def tflite_file(tmp_path, tiny_model):
    from boardfit.converters.targets import export

    exported = export(tiny_model, format_name="tflite", sizes=(48,), precision="fp32")
    path = tmp_path / "net.tflite"
    path.write_bytes(next(iter(exported.files.values())))
    return path


def words(source, photos, out):
    return ["build", str(source), "--images", str(photos), "-o", str(out), "--image-spec", "unit"]


def test_onnx_is_packed_as_it_is(onnx_file, photos, tmp_path):
    out = tmp_path / "net.boardfit"
    assert main([*words(onnx_file, photos, out), "--pass-through", "--sizes", "32,64", "--no-fit"]) == 0
    with open_bundle(out) as bundle:
        formats = {artifact.format for artifact in bundle.manifest.artifacts}
        assert formats == {"onnx", "ncnn"}
        packed = next(item for item in bundle.manifest.artifacts if item.format == "onnx")
        data = bundle.read(packed.files[0])
    import onnx

    assert hashlib.sha256(data).digest() == hashlib.sha256(onnx.load(onnx_file).SerializeToString()).digest()
    frame = cv2.imread(str(next(photos.iterdir())))
    answers = []
    for engine in ("onnxruntime", "ncnn"):
        with boardfit.load(out, engine=engine, size=64) as session:
            answers.append(session(frame).scores)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    assert main(["verify", str(out)]) == 0


@pytest.fixture
def probabilities_file(tmp_path):
    """A file of one size that ends in a Softmax, which a Reshape follows."""
    import onnx
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Softmax", ["p"], ["s"], axis=1),
        helper.make_node("Reshape", ["s", "shape"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("scores", 1, [1, 3])],
        [numpy_helper.from_array(np.array([1, 3], np.int64), "shape")],
    )
    path = tmp_path / "scores.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_probabilities_are_known_behind_a_reshape(probabilities_file):
    model = read_untouched(SourceRequest(str(probabilities_file), (32,), ImageSpec()))
    assert model.outputs[0].activation == "softmax"


@pytest.mark.parametrize(
    ("operators", "activation"),
    [
        (("CONV_2D", "SOFTMAX", "DEQUANTIZE"), "softmax"),
        (("FULLY_CONNECTED", "LOGISTIC", "RESHAPE"), "sigmoid"),
        (("SOFTMAX", "FULLY_CONNECTED"), "logits"),
        (("Gemm", "Relu", "Flatten"), "none"),
        ((), "logits"),
    ],
    ids=["int8", "sigmoid", "not-the-last", "another", "nothing"],
)
def test_activation_behind_what_only_moves(operators, activation):
    makers = {place + 1: (operator, place) for place, operator in enumerate(operators)}
    assert activation_behind(len(operators), makers) == activation


def test_tflite_is_packed_at_its_own_size(tflite_file, photos, tmp_path, capsys):
    out = tmp_path / "net.boardfit"
    assert main([*words(tflite_file, photos, out), "--pass-through"]) == 1
    assert "--sizes 48" in capsys.readouterr().err
    assert main([*words(tflite_file, photos, out), "--pass-through", "--sizes", "48"]) == 0
    with open_bundle(out) as bundle:
        (artifact,) = bundle.manifest.artifacts
        assert artifact.format == "tflite"
        assert bundle.read(artifact.files[0]) == tflite_file.read_bytes()
    with boardfit.load(out) as session:
        assert session(np.full((60, 80, 3), 99, np.uint8)).scores.shape == (7,)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--pass-through", "--formats", "tflite"], "onnx or ncnn"),
        (["--pass-through", "--precisions", "fp32,int8"], "int8"),
        ([], r"Atan .*--pass-through"),
    ],
    ids=["another-format", "int8", "without"],
)
def test_refusals_say_the_way_out(options, match, onnx_file, photos, tmp_path, capsys):
    import re

    assert main([*words(onnx_file, photos, tmp_path / "o.boardfit"), "--sizes", "32", *options]) == 1
    assert re.search(match, capsys.readouterr().err)


def test_a_tflite_file_alone_cannot_be_imported(tflite_file):
    with pytest.raises(InputError, match="--pass-through"):
        ingest(SourceRequest(str(tflite_file), (48,), ImageSpec()))


def test_damaged_tflite(tmp_path, photos, capsys):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"TFL3" * 30)
    assert main([*words(path, photos, tmp_path / "o.boardfit"), "--pass-through", "--sizes", "48"]) == 1
    assert "damaged" in capsys.readouterr().err


def test_saved_model(tmp_path, tiny_net):
    folder = tmp_path / "saved"
    tiny_net.export(str(folder), verbose=False)
    assert own_side(str(folder)) is None
    model = ingest(SourceRequest(str(folder), (32, 48), ImageSpec()))
    assert model.name == "saved"
    assert "tf2onnx" in model.notes[0]
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)
    expected = np.asarray(tiny_net(images, training=False))
    np.testing.assert_allclose(np.asarray(model.net(images)), expected, atol=1e-4 * np.abs(expected).max())


def test_damaged_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(UnsupportedModel, match="tf2onnx cannot convert"):
        ingest(SourceRequest(str(tmp_path), (32,), ImageSpec()))
