"""What is put right in the ONNX that tf2onnx makes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from boardfit.converters.targets.onnx_repair import repair
from boardfit.converters.targets.onnx_tidy import tidy


def model(nodes, consts=None):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in (consts or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(proto):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    return session.run(None, {"x": x})[0]


NHWC = [0, 2, 3, 1]
CASES = {
    "max-of-transposed": (
        [
            helper.make_node("Abs", ["x"], ["a"]),
            helper.make_node("Transpose", ["x"], ["p"], perm=NHWC),
            helper.make_node("Transpose", ["a"], ["q"], perm=NHWC),
            helper.make_node("Sub", ["p", "q"], ["s"]),
            helper.make_node("ReduceMax", ["s"], ["y"], axes=[1, 2], keepdims=0),
        ],
        {},
        {"GlobalMaxPool"},
    ),
    "resize": (
        [
            helper.make_node(
                "Resize",
                ["x", "r", "s"],
                ["y"],
                mode="linear",
                coordinate_transformation_mode="align_corners",
                nearest_mode="round_prefer_ceil",
            )
        ],
        {"r": np.zeros(0, np.float32), "s": np.float32([1, 1, 2, 2])},
        {"Resize"},
    ),
}


@pytest.mark.parametrize(("nodes", "consts", "kinds"), CASES.values(), ids=CASES.keys())
def test_it_answers_as_before(nodes, consts, kinds):
    expected = run(model(nodes, consts))
    tidied = tidy(model(nodes, consts))
    np.testing.assert_allclose(run(tidied), expected, atol=1e-6)
    used = {name for node in tidied.graph.node for name in node.input} | {"y"}
    live = {node.op_type for node in tidied.graph.node if used.intersection(node.output)}
    assert kinds <= live
    assert all(item.name != "nearest_mode" for node in tidied.graph.node for item in node.attribute)


def test_gelu_of_tensorflow_is_standard():
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Erfc", ["m"], ["e"]),
        helper.make_node("Mul", ["e", "half"], ["h"]),
        helper.make_node("Mul", ["h", "x"], ["y"]),
    ]
    made = repair(model(nodes, {"c": np.float32(-(0.5**0.5)), "half": np.float32(0.5)}))
    assert "Erfc" not in {node.op_type for node in made.graph.node}
    onnx.checker.check_model(made)
    from math import erf

    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    expected = 0.5 * x * (1 + np.vectorize(erf)(x / 2**0.5))
    np.testing.assert_allclose(run(made), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "pool", "kernel", "joined"),
    [
        ("Relu", "MaxPool", 3, True),
        ("Neg", "MaxPool", 3, False),
        ("Neg", "AveragePool", 3, True),
        ("Neg", "AveragePool", 2, False),
    ],
    ids=["max-of-relu", "max-of-any", "average", "more-than-the-kernel"],
)
def test_zeros_join_a_pooling_where_they_change_nothing(first, pool, kernel, joined):
    nodes = [
        helper.make_node(first, ["x"], ["a"]),
        helper.make_node("Pad", ["a", "p"], ["b"]),
        helper.make_node(pool, ["b"], ["y"], kernel_shape=[kernel] * 2, strides=[2, 2]),
    ]
    consts = {"p": np.array([0, 0, 1, 1, 0, 0, 2, 2], np.int64)}
    expected = run(model(nodes, consts))
    tidied = tidy(model(nodes, consts))
    np.testing.assert_allclose(run(tidied), expected, atol=1e-6)
    assert (tidied.graph.node[-1].input[0] == "a") is joined


def test_the_mode_of_a_pad_is_named():
    nodes = [helper.make_node("Pad", ["x", "p"], ["y"])]
    consts = {"p": np.array([0, 1, 0, 0, 0, 0, 0, 2], np.int64)}
    expected = run(model(nodes, consts))
    tidied = tidy(model(nodes, consts))
    assert [(item.name, item.s) for item in tidied.graph.node[0].attribute] == [("mode", b"constant")]
    np.testing.assert_array_equal(run(tidied), expected)


def test_a_mode_that_is_named_stays():
    nodes = [helper.make_node("Pad", ["x", "p"], ["y"], mode="reflect")]
    tidied = tidy(model(nodes, {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}))
    assert [item.s for item in tidied.graph.node[0].attribute] == [b"reflect"]
