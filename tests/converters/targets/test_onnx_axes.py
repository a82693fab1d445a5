"""Tensors of many axes written with four: the same numbers, by ONNX Runtime and by ncnn."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from boardfit.converters.targets.ncnn import convert_onnx, rename_blobs
from boardfit.converters.targets.onnx_axes import with_few_axes
from boardfit.converters.targets.onnx_axes_permute import steps_of
from boardfit.errors import ExportError
from boardfit.runtime.engines.ncnn import NcnnEngine
from boardfit.specs import Artifact, TensorSpec

IMAGE = (1, 3, 8, 8)
SHAPE = (1, 2, 3, 4, 2, 4)


def node(op, inputs, outputs="y", **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def model(nodes, consts=None, *, opset=17, source=IMAGE, outputs=("y",)):
    """A net from an image, whose batch is free, as tf2onnx makes it."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *source[1:]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (consts or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(proto, shape=IMAGE):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image(shape)})


def image(shape=IMAGE):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def most_axes(proto, shape):
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.input[0].type.tensor_type.shape.dim[0].dim_value = shape[0]
    told = onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True).graph
    values = [len(value.type.tensor_type.shape.dim) for value in (*told.value_info, *told.output)]
    return max([*values, *(len(tensor.dims) for tensor in told.initializer)])


def int64(*values):
    return np.array(values, np.int64)


def numbers(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_a_permutation_is_a_chain_of_small_ones(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=8)))
    perm = data.draw(st.permutations(range(len(shape))))
    expected = np.arange(prod(shape)).reshape(shape)
    actual = expected.reshape(-1)
    steps = steps_of(perm, shape)
    for extents, moved in steps:
        assert len(extents) == len(moved) <= 3
        actual = actual.reshape(extents).transpose(moved)
    np.testing.assert_array_equal(actual.reshape(-1), expected.transpose(perm).reshape(-1))
    assert len(steps) <= max(1, len(shape) - 2)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_chain_of_many_axes_answers_as_before(data):
    shape = (1, *data.draw(st.lists(st.integers(1, 3), min_size=4, max_size=6)))
    perms = [[0, *data.draw(st.permutations(range(1, len(shape))))] for _ in range(2)]
    axis = data.draw(st.integers(0, len(shape) - 1))
    spread = tuple(extent if data.draw(st.booleans()) else 1 for extent in shape[-3:])
    nodes = [
        node("Reshape", "x many", "a"),
        node("Transpose", "a", "b", perm=perms[0]),
        node("Softmax", "b", "c", axis=axis),
        node("Transpose", "c", "d", perm=perms[1]),
        node("Add", "d w", "e"),
        node("Reshape", "e few", "y"),
    ]
    final = np.zeros(shape).transpose(perms[0]).transpose(perms[1]).shape
    weights = numbers(*(extent if kept > 1 else 1 for extent, kept in zip(final[-3:], spread, strict=True)))
    source = (1, prod(shape))
    made = model(nodes, {"many": int64(*shape), "few": int64(1, -1), "w": weights}, source=source)
    few = with_few_axes(made, [source])
    np.testing.assert_allclose(run(few, source)[0], run(made, source)[0], atol=1e-6)
    assert most_axes(few, source) <= 4


MANY = [node("Reshape", "x many", "a")]
CASES = {
    "transpose": ([node("Transpose", "a", "b", perm=[5, 2, 0, 4, 1, 3])], {}),
    "transpose-as-it-stands": ([node("Transpose", "a", "b")], {}),
    "one-by-one": ([node("Relu", "a", "b")], {}),
    "clip": ([node("Clip", "a low high", "b")], {"low": np.float32(-1), "high": np.float32(1)}),
    "scalar": ([node("Mul", "a c", "b")], {"c": np.float32(2)}),
    "scalar-first": ([node("Sub", "c a", "b")], {"c": numbers(1, 1)}),
    "two-alike": ([node("Neg", "a", "n"), node("Add", "a n", "b")], {}),
    "bias-of-an-inner-axis": ([node("Add", "a c", "b")], {"c": numbers(3, 1, 1, 1)}),
    "weights-spread-by-turns": ([node("Add", "a c", "b")], {"c": numbers(2, 1, 4, 1, 4)}),
    "weights-of-many-axes": ([node("Div", "c a", "b")], {"c": numbers(1, 1, 1, 4, 2, 4)}),
    "both-spread": (
        [node("ReduceMean", "a", "m", axes=[3, 4, 5]), node("Add", "m c", "b")],
        {"c": numbers(1, 1, 1, 1, 2, 4)},
    ),
    "matrices": ([node("Transpose", "a", "t", perm=[0, 1, 2, 3, 5, 4]), node("MatMul", "a t", "b")], {}),
    "matrix": ([node("MatMul", "a c", "b")], {"c": numbers(4, 5)}),
    "one-matrix-of-many": ([node("MatMul", "c a", "b")], {"c": numbers(1, 1, 5, 2)}),
    "softmax-last": ([node("Softmax", "a", "b")], {}),
    "softmax-inside": ([node("LogSoftmax", "a", "b", axis=2)], {}),
    "concat": ([node("Neg", "a", "n"), node("Concat", "a n a", "b", axis=-4)], {}),
    "split": (
        [node("Split", "a p", "q r", axis=2), node("Concat", "r q", "b", axis=2)],
        {"p": int64(1, 2)},
    ),
    "slice": (
        [node("Slice", "a from to along", "b")],
        {"from": int64(0, -2, 0), "to": int64(9, 2**62, 9), "along": int64(1, 2, -1)},
    ),
    "slice-of-all": ([node("Slice", "a from to", "b")], {"from": int64(0), "to": int64(9)}),
    "gather": ([node("Gather", "a i", "b", axis=-3)], {"i": np.int64(-1)}),
    "gather-a-list-of-one": ([node("Gather", "a i", "b", axis=2)], {"i": int64(1)}),
    "mean-kept": ([node("ReduceMean", "a", "b", axes=[1, 2, -1])], {}),
    "mean-dropped": ([node("ReduceMean", "a", "b", axes=[3], keepdims=0)], {}),
    "sum-of-an-input": ([node("ReduceSum", "a i", "b")], {"i": int64(2, 3)}),
    "squeezed": (
        [node("Squeeze", "a first", "s"), node("Unsqueeze", "s last", "u"), node("Identity", "u", "b")],
        {"first": int64(0), "last": int64(5)},
    ),
    "constant-of-many-axes": (
        [node("Constant", "", "c", value=numpy_helper.from_array(numbers(*SHAPE))), node("Add", "a c", "b")],
        {},
    ),
    "constant-is-reshaped": (
        [node("Reshape", "c to", "d"), node("Add", "a d", "b")],
        {"c": numbers(1, 2, 12, 2, 4), "to": int64(*SHAPE)},
    ),
    "reshaped-weights-spread-by-turns": (
        [node("Reshape", "c to", "d"), node("Add", "a d", "b")],
        {"c": numbers(2, 4, 4), "to": int64(2, 1, 4, 1, 4)},
    ),
}


@pytest.mark.parametrize(("nodes", "consts"), CASES.values(), ids=CASES.keys())
def test_an_operator_answers_as_before(nodes, consts):
    consts = {**consts, "many": int64(*SHAPE), "few": int64(1, -1)}
    made = model([*MANY, *nodes, node("Reshape", "b few", "y")], consts)
    before = made.SerializeToString()
    few = with_few_axes(made, [IMAGE])
    np.testing.assert_allclose(run(few)[0], run(made)[0], atol=2e-6)
    assert most_axes(few, IMAGE) <= 4
    assert made.SerializeToString() == before


def test_a_net_of_few_axes_is_left_alone():
    assert with_few_axes(model([node("Transpose", "x", perm=[0, 2, 3, 1])]), [IMAGE]) is None


REFUSED = {
    "unknown-operator": ([node("CumSum", "a i", "b")], {"i": np.int64(1)}, "CumSum .* on the shape "),
    "slice-of-two-axes": (
        [node("Slice", "a from to along", "b")],
        {"from": int64(0, 0), "to": int64(1, 1), "along": int64(1, 3)},
        "Slice",
    ),
    "slice-backwards": (
        [node("Slice", "a from to along step", "b")],
        {"from": int64(-1), "to": int64(-(2**62)), "along": int64(2), "step": int64(-2)},
        "Slice",
    ),
    "gather-of-two": ([node("Gather", "a i", "b", axis=3)], {"i": int64(2, 0)}, "Gather"),
    "spread-apart": (
        [
            node("ReduceMean", "a", "l", axes=[1]),
            node("ReduceMean", "l", "m", axes=[4]),
            node("Add", "a m", "b"),
        ],
        {},
        "Add",
    ),
    "matrices-spread": ([node("MatMul", "a c", "b")], {"c": numbers(3, 1, 4, 5)}, "MatMul"),
    "mean-by-turns": ([node("ReduceMean", "a", "b", axes=[1, 3, 5])], {}, "ReduceMean"),
    "computed-bounds": (
        [node("Slice", "a from to along", "b")],
        {"from": int64(0), "along": int64(3)},
        "Slice",
    ),
}


@pytest.mark.parametrize(("nodes", "consts", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_needs_more_axes_is_named(nodes, consts, named):
    consts = {**consts, "many": int64(*SHAPE), "few": int64(1, -1)}
    until = [node("Shape", "x", "s"), node("Slice", "s i0 i1", "to")] if "to" not in consts else []
    consts |= {"i0": int64(1), "i1": int64(2)}
    with pytest.raises(ExportError, match=rf"at most four axes, and {named}"):
        with_few_axes(model([*until, *MANY, *nodes, node("Reshape", "b few", "y")], consts), [IMAGE])


def test_softmax_before_opset_13_is_named():
    nodes = [*MANY, node("Softmax", "a", "b", axis=-1), node("Reshape", "b few", "y")]
    with pytest.raises(ExportError, match="Softmax"):
        with_few_axes(model(nodes, {"many": int64(*SHAPE), "few": int64(1, -1)}, opset=12), [IMAGE])


@pytest.mark.parametrize(
    "cut",
    [
        node("Slice", "a", "b", starts=[0], ends=[2], axes=[2]),
        node("Split", "a", "b c", axis=2, split=[1, 2]),
        node("Gather", "a i", "b", axis=2),
    ],
    ids=lambda cut: cut.op_type,
)
def test_a_cut_before_opset_10_is_named(cut):
    nodes = [*MANY, cut, node("Reshape", "b few", "y")]
    consts = {"many": int64(*SHAPE), "few": int64(1, -1), "i": int64(0)}
    with pytest.raises(ExportError, match=cut.op_type):
        with_few_axes(model(nodes, consts, opset=9), [IMAGE])


def test_a_part_without_a_name_is_refused():
    nodes = [*MANY, helper.make_node("Split", ["a", "p"], ["", "b"], axis=2), node("Reshape", "b few", "y")]
    consts = {"many": int64(*SHAPE), "few": int64(1, -1), "p": int64(1, 2)}
    with pytest.raises(ExportError, match="Split"):
        with_few_axes(model(nodes, consts), [IMAGE])


def test_an_output_of_many_axes_is_named():
    with pytest.raises(ExportError, match=r"the output y has the shape \(1, 2, 3, 4, 2, 4\)"):
        with_few_axes(model([node("Reshape", "x many")], {"many": int64(*SHAPE)}), [IMAGE])


def through_ncnn(proto, size=8):
    """Return what ncnn answers to the same image."""
    param, weights = convert_onnx(proto.SerializeToString(), (size,), half=False)
    files = {"net.param": rename_blobs(param, {"in0": "x", "out0": "y"}).encode(), "net.bin": weights}
    inputs = (TensorSpec("x", (None, 3, size, size), layout="NCHW"),)
    outputs = (TensorSpec("y", (None,)),)
    artifact = Artifact("ncnn", "fp32", (size,), tuple(files), inputs, outputs)
    engine = NcnnEngine(artifact, files, 1)
    try:
        return engine.run({"x": image()})[0]
    finally:
        engine.close()


TOKENS = [
    node("Reshape", "x tokens", "t"),
    node("Transpose", "t", "u", perm=[0, 2, 1]),
    node("MatMul", "u w", "q"),
    node("Reshape", "q heads", "r"),
    node("Transpose", "r", "p", perm=[2, 0, 3, 1, 4]),
]
ATTENTION = {"tokens": int64(1, 3, 64), "w": numbers(3, 24), "heads": int64(1, 64, 3, 2, 4)}
TAKEN = {
    "windows": (
        [
            node("Transpose", "x", "n", perm=[0, 2, 3, 1]),
            node("Reshape", "n cut", "c"),
            node("Transpose", "c", "w", perm=[0, 1, 3, 2, 4, 5]),
            node("Softmax", "w", "s", axis=-1),
            node("Transpose", "s", "d", perm=[0, 1, 3, 2, 4, 5]),
            node("Reshape", "d whole", "y"),
        ],
        {"cut": int64(1, 2, 4, 2, 4, 3), "whole": int64(1, 8, 8, 3)},
    ),
    "queries-keys-values": (
        [
            *TOKENS,
            *(node("Gather", f"p {part}", f"of_{part}", axis=0) for part in ("i", "j", "k")),
            node("Transpose", "of_j", "turned", perm=[0, 1, 3, 2]),
            node("MatMul", "of_i turned", "scores"),
            node("Softmax", "scores", "shares", axis=-1),
            node("MatMul", "shares of_k", "y"),
        ],
        {**ATTENTION, "i": np.int64(0), "j": np.int64(1), "k": np.int64(2)},
    ),
    "split-of-five-axes": (
        [
            *TOKENS,
            node("Split", "p", "a b c", axis=0),
            node("Add", "a b", "d"),
            node("Mul", "d c", "e"),
            node("Squeeze", "e first", "y"),
        ],
        {**ATTENTION, "first": int64(0)},
    ),
}


@pytest.mark.parametrize(("nodes", "consts"), TAKEN.values(), ids=TAKEN.keys())
def test_ncnn_takes_what_pnnx_dropped(nodes, consts):
    made = model(nodes, consts)
    expected = run(made)[0]
    np.testing.assert_allclose(through_ncnn(made).reshape(expected.shape), expected, atol=1e-5)


def test_pnnx_takes_a_channel_shuffle_as_it_is():
    nodes = [
        node("Concat", "x x", "c", axis=1),
        node("Reshape", "c apart", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "b whole", "y"),
    ]
    made = model(nodes, {"apart": int64(1, 2, 3, 8, 8), "whole": int64(1, 6, 8, 8)})
    param, _ = convert_onnx(made.SerializeToString(), (8,), half=False)
    assert "ShuffleChannel" in param
    np.testing.assert_array_equal(through_ncnn(made).reshape(1, 6, 8, 8), run(made)[0])


def test_ncnn_refuses_what_needs_more_axes_in_one_line():
    nodes = [*TOKENS, node("CumSum", "p i", "c"), node("Reshape", "c flat", "y")]
    made = model(nodes, {**ATTENTION, "i": np.int64(3), "flat": int64(1, -1)})
    with pytest.raises(ExportError, match="CumSum") as caught:
        convert_onnx(made.SerializeToString(), (8,), half=False)
    assert "\n" not in str(caught.value)
