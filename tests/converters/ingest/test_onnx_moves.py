"""The operators that move, pick, resize and reduce, each alone, against ONNX Runtime, shape and all."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE

RNG = np.random.default_rng(11)


def floats(*shape, low=-1.0):
    return RNG.uniform(low, 1.0, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def scalar(value):
    return np.float32(value)


def node(op, inputs, outputs="y", **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def one(op, inputs="x", opset=17, consts=None, **attrs):
    return ([node(op, inputs, **attrs)], consts or {}, opset)


def resized(mode, scale, **attrs):
    consts = {"r": floats(0), "s": np.array([1, 1, *scale], np.float32)}
    return one("Resize", "x r s", consts=consts, mode=mode, **attrs)


def reduced(op, *axes, keepdims=1):
    return one(op, axes=list(axes), keepdims=keepdims)


# From x (1, 3, 8, 8) to y; constants; opset
CASES = {
    "nearest-2": resized(
        "nearest", (2, 2), coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "nearest-half": resized("nearest", (2, 3)),
    "nearest-smaller": resized("nearest", (0.5, 0.5), coordinate_transformation_mode="asymmetric"),
    "nearest-odd": resized("nearest", (1.5, 1.25)),
    "linear-2": resized("linear", (2, 2)),
    "linear-smaller": resized("linear", (0.5, 0.75)),
    "linear-corners": resized("linear", (2, 4), coordinate_transformation_mode="align_corners"),
    "linear-corners-odd": resized("linear", (1.5, 1.75), coordinate_transformation_mode="align_corners"),
    "linear-asymmetric": resized("linear", (2, 2), coordinate_transformation_mode="asymmetric"),
    "cubic": resized("cubic", (1.5, 2)),
    "resize-to": one(
        "Resize", "x r e s", consts={"r": floats(0), "e": floats(0), "s": ints(1, 3, 16, 12)}, mode="linear"
    ),
    "depth-to-space-dcr": (
        [node("Conv", "x w", "c"), node("DepthToSpace", "c", blocksize=2)],
        {"w": floats(12, 3, 1, 1)},
        17,
    ),
    "depth-to-space-crd": (
        [node("Conv", "x w", "c"), node("DepthToSpace", "c", blocksize=2, mode="CRD")],
        {"w": floats(12, 3, 1, 1)},
        17,
    ),
    "space-to-depth": one("SpaceToDepth", blocksize=2),
    "pixel-shuffle-decomposed": (
        [
            node("Conv", "x w", "c"),
            node("Reshape", "c six", "a"),
            node("Transpose", "a", "b", perm=[0, 1, 4, 2, 5, 3]),
            node("Reshape", "b four"),
        ],
        {"w": floats(8, 3, 1, 1), "six": ints(1, 2, 2, 2, 8, 8), "four": ints(1, 2, 16, 16)},
        17,
    ),
    "pad-value": one("Pad", "x p c", consts={"p": ints(0, 0, 1, 1, 0, 0, 2, 0), "c": scalar(0.5)}),
    "pad-reflect": one("Pad", "x p", consts={"p": ints(0, 0, 1, 2, 0, 0, 2, 1)}, mode="reflect"),
    "pad-row": (
        [node("Reshape", "x s", "r"), node("Pad", "r p")],
        {"s": ints(1, 24, 8), "p": ints(0, 1, 0, 0, 0, 2)},
        17,
    ),
    "slice-channels": one("Slice", "x b e a", consts={"b": ints(1), "e": ints(3), "a": ints(1)}),
    "slice-steps": one(
        "Slice",
        "x b e a s",
        consts={"b": ints(1, 0), "e": ints(1 << 40, 1 << 40), "a": ints(2, 3), "s": ints(2, 2)},
    ),
    "slice-back": one("Slice", "x b e a", consts={"b": ints(-4), "e": ints(-1), "a": ints(-1)}),
    "slice-reversed": one(
        "Slice", "x b e a s", consts={"b": ints(-1), "e": ints(-(1 << 40)), "a": ints(3), "s": ints(-1)}
    ),
    "split-11": (
        [node("Split", "x", "a b", axis=1, split=[1, 2]), node("Concat", "b a", axis=1)],
        {},
        11,
    ),
    "split-13": ([node("Split", "x n", "a b", axis=3), node("Mul", "a b")], {"n": ints(4, 4)}, 13),
    "split-18": ([node("Split", "x", "a b", axis=2, num_outputs=2), node("Sub", "b a")], {}, 18),
    "gather-one": one("Gather", "x i", consts={"i": np.int64(-1)}, axis=1),
    "gather-list": one("Gather", "x i", consts={"i": ints(2, 0, 0, 1)}, axis=1),
    "gather-batch": one("Gather", "x i", consts={"i": np.int64(0)}, axis=0),
    "top-k": ([node("TopK", "x k", "y i", axis=2)], {"k": ints(3)}, 17),
    "gather-table": one("Gather", "x i", consts={"i": np.array([[2, 0], [1, 1]])}, axis=1),
    "gather-table-columns": one("Gather", "x i", consts={"i": np.array([[7, 0, 1], [1, 1, -1]])}, axis=3),
    "top-k-smallest": ([node("TopK", "x k", "y i", axis=1, largest=0)], {"k": ints(2)}, 17),
    "top-k-smallest-places": (
        [node("TopK", "x k", "v i", axis=3, largest=0), node("Cast", "i", to=TensorProto.FLOAT)],
        {"k": ints(3)},
        17,
    ),
    "expand": (
        [node("ReduceMean", "x", "m", axes=[3]), node("Expand", "m s")],
        {"s": ints(1, 3, 8, 4)},
        17,
    ),
    "tile": one("Tile", "x r", consts={"r": ints(1, 1, 2, 3)}),
    "concat-token": one("Concat", "c x", consts={"c": floats(1, 1, 8, 8)}, axis=1),
    "squeeze-unsqueeze": (
        [node("ReduceMax", "x", "m", axes=[1]), node("Squeeze", "m a", "s"), node("Unsqueeze", "s b")],
        {"a": ints(1), "b": ints(2, 4)},
        13,
    ),
    "reduce-mean-channels": reduced("ReduceMean", 1),
    "reduce-max-rows": reduced("ReduceMax", 2, keepdims=0),
    "reduce-all-but-batch": reduced("ReduceMean", 1, 2, 3, keepdims=0),
    "reduce-batch-too": reduced("ReduceMean", 0, 1, keepdims=0),
    "reduce-min": reduced("ReduceMin", 3),
    "reduce-prod": reduced("ReduceProd", 1),
    "reduce-l1": reduced("ReduceL1", 1),
    "reduce-l2": reduced("ReduceL2", 1, 3),
    "reduce-sum-square": reduced("ReduceSumSquare", 2),
    "reduce-log-sum": ([node("Exp", "x", "e"), node("ReduceLogSum", "e", axes=[1])], {}, 17),
    "reduce-log-sum-exp": reduced("ReduceLogSumExp", -1, keepdims=0),
    "reduce-sum": one("ReduceSum", "x a", consts={"a": ints(-1)}),
    "arg-max": (
        [node("ArgMax", "x", "i", axis=1, keepdims=0), node("Cast", "i", to=TensorProto.FLOAT)],
        {},
        17,
    ),
    "arg-min": ([node("ArgMin", "x", "i", axis=-1), node("Cast", "i", to=TensorProto.FLOAT)], {}, 17),
    "batch-to-the-middle": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2, 3]),
            node("ReduceMean", "t", "m", axes=[3]),
            node("Abs", "m"),
        ],
        {},
        17,
    ),
    "tokens-of-an-image": (
        [
            node("Reshape", "x t", "r"),
            node("Transpose", "r", "p", perm=[0, 2, 1]),
            node("MatMul", "p w", "m"),
            node("Transpose", "m", "q", perm=[0, 2, 1]),
            node("Reshape", "q i"),
        ],
        {"t": ints(1, 3, 64), "w": floats(3, 5), "i": ints(1, 5, 8, 8)},
        17,
    ),
    "windows": (
        [
            node("Reshape", "x six", "a"),
            node("Transpose", "a", "b", perm=[0, 2, 4, 3, 5, 1]),
            node("Reshape", "b w", "c"),
            node("Softmax", "c", axis=-2),
        ],
        {"six": ints(1, 3, 2, 4, 2, 4), "w": ints(4, 16, 3)},
        17,
    ),
}


@pytest.mark.parametrize(("nodes", "consts", "opset"), CASES.values(), ids=CASES.keys())
def test_operator(nodes, consts, opset, save_onnx, request_for, difference):
    path = save_onnx(nodes, consts, shape=(1, 3, 8, 8), opset=opset)
    model = ingest(request_for(path, 8, task="raw"))
    assert difference(model, 8) <= TOLERANCE


@pytest.mark.parametrize("case", ["nearest-2", "linear-2"])
def test_a_whole_factor_becomes_an_upsampling(case, save_onnx, request_for):
    nodes, consts, opset = CASES[case]
    net = ingest(request_for(save_onnx(nodes, consts, shape=(1, 3, 8, 8), opset=opset), 8, task="raw")).net
    assert "UpSampling2D" in [type(operation).__name__ for operation in net.operations]
