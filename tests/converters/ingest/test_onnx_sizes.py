"""Which sizes an ONNX file can take, and what its interface must be."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE
from boardfit.errors import UnsupportedModel, UnsupportedSize


def test_fixed_torch_export_is_free_where_every_size_agrees(export_torch, request_for, difference):
    model = ingest(request_for(export_torch("residual", 64), 32, 64, 96))
    assert (model.fixed_size, model.fixed_by) == (None, "")
    assert max(difference(model, size) for size in (32, 64, 96)) <= TOLERANCE


def test_ambiguous_padding_binds_the_size(export_torch, request_for, difference):
    # 28 -> 14 -> 7: the third convolution sees an odd extent at 28, an even one at 32.
    path = export_torch("static_same", 32)
    model = ingest(request_for(path, 28, 32))
    assert model.fixed_size == 32
    assert "Conv" in model.fixed_by
    assert difference(model, 32) <= TOLERANCE
    with pytest.raises(UnsupportedSize, match=r"takes 32 pixels only, not 28: .*Conv"):
        model.require_sizes((28, 32))


def test_assume_same_padding_frees_it(export_torch, request_for, difference, torch_source):
    path = export_torch("static_same", 32)
    model = ingest(request_for(path, 28, 32, assume_same_padding=True))
    assert model.fixed_size is None
    assert "same" in model.notes[0]
    assert difference(model, 32) <= TOLERANCE
    truth = ingest(request_for(torch_source("static_same"), 28, 32))
    images = np.random.default_rng(0).normal(size=(1, 28, 28, 3)).astype("float32")
    np.testing.assert_allclose(model.reference(images)[0], truth.reference(images)[0], atol=1e-4)


def test_flattened_pixels_bind_the_size(export_torch, request_for, difference):
    model = ingest(request_for(export_torch("flat", 32), 32, 64))
    assert model.fixed_size == 32
    assert "Gemm" in model.fixed_by or "Flatten" in model.fixed_by
    assert tuple(model.net.inputs[0].shape) == (None, 32, 32, 3)
    assert difference(model, 32) <= TOLERANCE


def test_only_other_sizes_asked(export_torch, request_for):
    model = ingest(request_for(export_torch("flat", 32), 64))
    with pytest.raises(UnsupportedSize, match="--sizes 32"):
        model.require_sizes((64,))


def test_declared_free_but_bound(export_torch, request_for, difference):
    model = ingest(request_for(export_torch("flat", 32, free=True), 32, 64))
    assert model.fixed_size == 32
    assert difference(model, 32) <= TOLERANCE


def test_declared_free_is_explicit_at_every_size(export_torch, request_for, difference):
    model = ingest(request_for(export_torch("static_same", 32, free=True), 28, 32, 36))
    assert model.fixed_size is None
    assert max(difference(model, size) for size in (28, 32, 36)) <= TOLERANCE


def head(*names):
    return [
        helper.make_node("GlobalAveragePool", [names[0]], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"inputs": ("x", "other")}, "nothing in net reads its input 'other'"),
        ({"shape": (1, 1, 8, 8)}, "3 channels"),
        ({"shape": (1, 3, 8, 9)}, "square"),
        ({"dtype": TensorProto.FLOAT16}, "FLOAT16"),
        ({"opset": 10}, "opset 10: expected 11 to 22"),
    ],
    ids=["two-inputs", "grey", "oblong", "half", "old-opset"],
)
def test_interface(options, match, save_onnx, request_for):
    with pytest.raises(UnsupportedModel, match=match):
        ingest(request_for(save_onnx(head("x"), **options), 8))


def test_two_outputs_are_named(export_torch, tmp_path, torch_source, request_for):
    with pytest.raises(UnsupportedModel, match="2 outputs"):
        ingest(request_for(torch_source("two_outputs"), 32))


def test_output_that_is_no_classifier(save_onnx, request_for):
    with pytest.raises(UnsupportedModel, match=r"a classifier has one, \[N, classes\].*--task"):
        ingest(request_for(save_onnx([helper.make_node("Relu", ["x"], ["y"])]), 32))


def external(tmp_path, location):
    import onnx

    weight = np.ones((2, 3, 1, 1), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), *head("c")]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(weight.nbytes))):
        tensor.external_data.add(key=key, value=value)
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "net.onnx"
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )
    (tmp_path / "secret.bin").write_bytes(weight.tobytes())
    return path, weight


def test_external_data_beside_the_model(tmp_path, request_for, difference):
    path, weight = external(tmp_path, "net.bin")
    (path.parent / "net.bin").write_bytes(weight.tobytes())
    assert difference(ingest(request_for(path, 8)), 8) <= TOLERANCE


@pytest.mark.parametrize(
    ("location", "match"),
    [
        ("../secret.bin", "plain file"),
        ("/etc/hostname", "plain file"),
        ("link.bin", "plain file.*no link"),
        ("linked/secret.bin", "plain file.*no link"),
        ("hard.bin", "plain file.*no link"),
        ("C:\\x", "plain file"),
        ("gone.bin", "external data of .* cannot be read"),
        ("short.bin", "external data of .* cannot be read"),
    ],
)
def test_external_data_elsewhere(location, match, tmp_path, request_for):
    path, _ = external(tmp_path, location)
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    (path.parent / "linked").symlink_to(tmp_path)
    (path.parent / "hard.bin").hardlink_to(tmp_path / "secret.bin")
    (path.parent / "short.bin").write_bytes(b"1234")
    with pytest.raises(UnsupportedModel, match=match):
        ingest(request_for(path, 8))
