"""Operators that no common net has, from ONNX to the formats: each alone, inside the gate."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import random_images
from boardfit.converters.model import SourceRequest
from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import export
from boardfit.converters.verify import run_reference, verify
from boardfit.specs import ImageSpec

SPEC = ImageSpec(mean=(127.0,) * 3, std=(64.0,) * 3)


def node(op, inputs, outputs="y", **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def number(name="i"):
    return node("Cast", name, to=TensorProto.FLOAT)


def whole(*values):
    return np.array(values, np.int64)


CONST = {
    "half": np.float32(0.5),
    "three": np.int64(3),
    "mask": np.tri(8, dtype=bool),
    "behind": whole(0, 0, 0, 0, 0, 0, 0, 1),
    "around": whole(0, 1, 0, 0, 0, 2, 0, 0),
    "edges": whole(0, 0, 1, 2, 0, 0, 3, 1),
    "cut": whole(3, 4, 2, 4, 2),
    "rows": whole(1, 16, 12),
    "weights": np.linspace(-1, 1, 12 * 12, dtype=np.float32).reshape(12, 12),
    "heads": whole(1, 4, 4, 4, 3),
    "back": whole(1, 3, 8, 8),
}
ALL, TWO = ("tflite", "onnx", "ncnn"), ("tflite", "onnx")
CASES = {
    "arg-max": ([node("ArgMax", "x", "i", axis=1), number()], TWO),
    "arg-min-dropped": ([node("ArgMin", "x", "i", axis=3, keepdims=0), number()], TWO),
    "mod-whole": ([node("ArgMax", "x", "i", axis=3), node("Mod", "i three", "m"), number("m")], TWO),
    "mod-like-c": ([node("Mod", "x half", fmod=1)], ALL),
    "round": ([node("Round", "x")], ALL),
    "lrn": ([node("LRN", "x", size=3, alpha=0.2)], ALL),
    "shrink-soft": ([node("Shrink", "x", lambd=0.5, bias=0.5)], ALL),
    "shrink-hard": ([node("Shrink", "x", lambd=0.5)], TWO),
    "thresholded-relu": ([node("ThresholdedRelu", "x", alpha=0.4)], TWO),
    "where-computed": ([node("Greater", "x half", "g"), node("Where", "g x half")], TWO),
    "where-constant": ([node("Where", "mask x half")], TWO),
    "pad-last-axis": ([node("Neg", "x", "n"), node("Pad", "n behind half")], ALL),
    "pad-channels": ([node("Neg", "x", "n"), node("Pad", "n around half")], ALL),
    "pad-all-round": ([node("Neg", "x", "n"), node("Pad", "n edges")], ALL),
    "patches-with-heads": (
        [
            node("Reshape", "x cut", "c"),
            node("Transpose", "c", "p", perm=[1, 3, 0, 2, 4]),
            node("Reshape", "p rows", "r"),
            node("MatMul", "r weights", "m"),
            node("Reshape", "m heads", "h"),
            node("Transpose", "h", "a", perm=[0, 3, 1, 2, 4]),
            node("Transpose", "h", "b", perm=[0, 3, 1, 4, 2]),
            node("MatMul", "a b", "s"),
            node("Softmax", "s", "o", axis=-1),
            node("MatMul", "o a", "t"),
            node("Reshape", "t back", "y"),
        ],
        ALL,
    ),
    "max-pool-dilated": ([node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])], TWO),
}


@pytest.mark.parametrize(("nodes", "formats"), CASES.values(), ids=CASES.keys())
def test_an_operator_is_exported(nodes, formats, tmp_path):
    used = {name for item in nodes for name in item.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(CONST[name]), name) for name in sorted(used & set(CONST))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    imported = ingest(SourceRequest(str(tmp_path / "net.onnx"), (8,), SPEC, task="raw"))
    images = random_images(8, SPEC, count=3, seed=1)
    expected = run_reference(imported.reference, images)
    for format_name in formats:
        made = export(imported, format_name=format_name, sizes=(8,), precision="fp32")
        (row,) = verify(
            made,
            samples=Samples(tensors={8: images}, photographs=3),
            expected={8: expected},
            gate=ParitySection(),
            task="raw",
        )
        assert not row.fault, format_name
