"""The operators that compute, beyond those of plain classifiers, each alone, against ONNX Runtime."""

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


def positive(op, **attrs):
    return ([node("Sigmoid", "x", "p"), node(op, "p", **attrs)], {}, 17)


# From x (1, 3, 8, 8) to y; constants; opset
CASES = {
    "abs": one("Abs"),
    "ceil": one("Ceil"),
    "floor": one("Floor"),
    "sign": one("Sign"),
    "neg": one("Neg"),
    "exp": one("Exp"),
    "round": one("Round"),
    "round-halves": ([node("Mul", "x c", "m"), node("Round", "m")], {"c": scalar(32)}, 17),
    "mod-like-c": one("Mod", "x c", consts={"c": scalar(0.7)}, fmod=1),
    "mod-like-c-negative": one("Mod", "x c", consts={"c": scalar(-0.7)}, fmod=1),
    "mod-tensors": ([node("Exp", "x", "e"), node("Mod", "x e", fmod=1)], {}, 17),
    "mod-whole": (
        [
            node("ArgMax", "x", "i", axis=3),
            node("Mod", "i three", "m"),
            node("Cast", "m", to=TensorProto.FLOAT),
        ],
        {"three": np.int64(3)},
        17,
    ),
    "thresholded-relu": one("ThresholdedRelu", alpha=0.4),
    "thresholded-relu-below": one("ThresholdedRelu", alpha=-0.4),
    "shrink-soft": one("Shrink", lambd=0.6, bias=0.6),
    "shrink-hard": one("Shrink", lambd=0.6),
    "shrink-other": one("Shrink", lambd=0.5, bias=-0.2),
    "where-constant-mask": one("Where", "m x c", consts={"m": floats(8, 8) > 0, "c": scalar(-3)}),
    "where-constant-choice": one(
        "Where", "m c x", consts={"m": floats(1, 3, 1, 8) > 0, "c": floats(3, 8, 1)}
    ),
    "where-masked-softmax": (
        [node("Where", "m x c", "w"), node("Softmax", "w", axis=-1)],
        {"m": np.tri(8, dtype=bool), "c": scalar(-np.inf)},
        17,
    ),
    "where-computed": (
        [node("Neg", "x", "n"), node("Greater", "x n", "g"), node("Where", "g x n")],
        {},
        17,
    ),
    "where-of-numbers": (
        [node("Less", "x c", "g"), node("Where", "g a b")],
        {"c": scalar(0.25), "a": scalar(2), "b": floats(3, 1, 1)},
        17,
    ),
    "comparisons": (
        [
            node("GreaterOrEqual", "x c", "a"),
            node("LessOrEqual", "c x", "b"),
            node("Not", "b", "n"),
            node("And", "a n", "d"),
            node("Less", "x z", "l"),
            node("Or", "d l", "o"),
            node("Cast", "o", to=TensorProto.FLOAT),
        ],
        {"c": floats(3, 1, 1), "z": scalar(-0.3)},
        17,
    ),
    "equal": (
        [node("Round", "x", "r"), node("Equal", "r c", "e"), node("Cast", "e", to=TensorProto.FLOAT)],
        {"c": scalar(1)},
        17,
    ),
    "erf": one("Erf"),
    "sin": one("Sin"),
    "cos": one("Cos"),
    "log": positive("Log"),
    "sqrt": positive("Sqrt"),
    "reciprocal": positive("Reciprocal"),
    "celu": one("Celu", alpha=0.7),
    "selu": one("Selu"),
    "softplus": one("Softplus"),
    "softsign": one("Softsign"),
    "mish": one("Mish", opset=18),
    "mish-decomposed": (
        [node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "x t")],
        {},
        17,
    ),
    "gelu-tanh": one("Gelu", opset=20, approximate="tanh"),
    "log-softmax": one("LogSoftmax", axis=1),
    "softmax-11": one("Softmax", opset=11, axis=3),
    "prelu-elements": one("PRelu", "x a", consts={"a": floats(3, 8, 8)}),
    "pow-2": one("Pow", "x c", consts={"c": scalar(2)}),
    "pow-3": one("Pow", "x c", consts={"c": scalar(3)}),
    "pow-root": ([node("Sigmoid", "x", "p"), node("Pow", "p c")], {"c": scalar(0.5)}, 17),
    "pow-tensors": ([node("Sigmoid", "x", "p"), node("Pow", "p x")], {}, 17),
    "max-three": ([node("Neg", "x", "n"), node("Max", "x n c")], {"c": scalar(0.5)}, 17),
    "min-constant": one("Min", "x c", consts={"c": floats(3, 1, 8)}),
    "sum-three": ([node("Neg", "x", "n"), node("Abs", "x", "a"), node("Sum", "x n a")], {}, 17),
    "mean-two": ([node("Abs", "x", "a"), node("Mean", "x a")], {}, 17),
    "add-elements": one("Add", "x c", consts={"c": floats(3, 8, 8)}),
    "mul-rows": one("Mul", "x c", consts={"c": floats(8, 1)}),
    "sub-elements": one("Sub", "c x", consts={"c": floats(1, 3, 8, 1)}),
    "div-elements": one("Div", "x c", consts={"c": floats(8, 8, low=0.5)}),
    "constant-of-more-axes": one("Add", "x c", consts={"c": floats(2, 1, 3, 8, 8)}),
    "broadcast-gate": ([node("GlobalAveragePool", "x", "g"), node("Mul", "x g")], {}, 17),
    "broadcast-both": (
        [
            node("ReduceMean", "x", "a", axes=[2]),
            node("ReduceMean", "x", "b", axes=[3]),
            node("Add", "a b"),
        ],
        {},
        17,
    ),
    "broadcast-ranks": (
        [node("ReduceMean", "x", "a", axes=[0, 1], keepdims=0), node("Mul", "a x")],
        {},
        17,
    ),
    "layer-norm": one("LayerNormalization", "x s b", consts={"s": floats(8), "b": floats(8)}),
    "layer-norm-image": one("LayerNormalization", "x s", consts={"s": floats(3, 8, 8)}, axis=1, epsilon=1e-3),
    "layer-norm-decomposed": (
        [
            node("ReduceMean", "x", "m", axes=[-1]),
            node("Sub", "x m", "d"),
            node("Pow", "d two", "q"),
            node("ReduceMean", "q", "v", axes=[-1]),
            node("Add", "v eps", "e"),
            node("Sqrt", "e", "r"),
            node("Div", "d r", "n"),
            node("Mul", "n s", "t"),
            node("Add", "t b"),
        ],
        {"two": scalar(2), "eps": scalar(1e-5), "s": floats(8), "b": floats(8)},
        13,
    ),
    "group-norm-21": one(
        "GroupNormalization", "x s b", opset=21, consts={"s": floats(3), "b": floats(3)}, num_groups=3
    ),
    "group-norm-decomposed": (
        [
            node("Concat", "x x", "c", axis=1),
            node("Reshape", "c three", "a"),
            node("InstanceNormalization", "a one zero", "n"),
            node("Reshape", "n four", "f"),
            node("Mul", "f s", "t"),
            node("Add", "t b"),
        ],
        {
            "three": ints(0, 2, -1),
            "four": ints(1, 6, 8, 8),
            "one": np.ones(2, np.float32),
            "zero": np.zeros(2, np.float32),
            "s": floats(6, 1, 1),
            "b": floats(6, 1, 1),
        },
        17,
    ),
    "instance-norm": one("InstanceNormalization", "x s b", consts={"s": floats(3), "b": floats(3)}),
    "bn-row": (
        [node("Reshape", "x s", "r"), node("BatchNormalization", "r g b m v")],
        {"s": ints(1, 24, 8), **{k: floats(24) for k in "gbm"}, "v": floats(24, low=0.5)},
        17,
    ),
    "conv-row": (
        [node("Reshape", "x s", "r"), node("Conv", "r w c", pads=[1, 1], strides=[2])],
        {"s": ints(1, 24, 8), "w": floats(5, 24, 3), "c": floats(5)},
        17,
    ),
    "conv-strided-dilated": one(
        "Conv", "x w", consts={"w": floats(4, 3, 3, 3)}, strides=[2, 2], dilations=[2, 2], pads=[2] * 4
    ),
    "max-pool-dilated": one(
        "MaxPool", kernel_shape=[3, 2], dilations=[2, 3], strides=[1, 2], pads=[1, 0, 2, 1]
    ),
    "max-pool-dilated-positive": (
        [node("Relu", "x", "r"), node("MaxPool", "r", kernel_shape=[2, 2], dilations=[2, 2])],
        {},
        17,
    ),
    "average-pool-dilated": one(
        "AveragePool",
        opset=19,
        kernel_shape=[2, 3],
        dilations=[3, 2],
        pads=[1, 1, 1, 2],
        strides=[2, 1],
        count_include_pad=1,
    ),
    "lrn": ([node("Conv", "x w", "c"), node("LRN", "c", size=5)], {"w": floats(9, 3, 1, 1)}, 17),
    "lrn-options": one("LRN", size=3, alpha=0.3, beta=0.6, bias=2.0),
    "deconv": one("ConvTranspose", "x w c", consts={"w": floats(3, 4, 2, 2), "c": floats(4)}, strides=[2, 2]),
    "deconv-torch": one(
        "ConvTranspose",
        "x w",
        consts={"w": floats(3, 4, 3, 3)},
        strides=[2, 2],
        pads=[1] * 4,
        output_padding=[1, 1],
    ),
    "deconv-groups": one("ConvTranspose", "x w", consts={"w": floats(3, 2, 3, 3)}, group=3, pads=[1] * 4),
    "deconv-dilated": one("ConvTranspose", "x w", consts={"w": floats(3, 2, 3, 3)}, dilations=[2, 2]),
    "deconv-dilated-strided": one(
        "ConvTranspose",
        "x w",
        consts={"w": floats(3, 2, 3, 2)},
        dilations=[2, 3],
        strides=[2, 1],
        pads=[1, 0, 2, 1],
    ),
    "deconv-same": one(
        "ConvTranspose", "x w", consts={"w": floats(3, 2, 3, 3)}, strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "matmul-tensors": ([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t")], {}, 17),
    "matmul-left": one("MatMul", "w x", consts={"w": floats(5, 8)}),
    "matmul-stack": one("MatMul", "x w", consts={"w": floats(3, 8, 5)}),
    "matmul-channels": (
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("MatMul", "t w", "m"), node("Add", "b m")],
        {"w": floats(3, 5), "b": floats(5)},
        17,
    ),
    "matmul-ranks": (
        [node("ReduceMean", "x", "a", axes=[0, 1], keepdims=0), node("MatMul", "x a")],
        {},
        17,
    ),
    "matmul-vector": one("MatMul", "x w", consts={"w": floats(8)}),
    "matmul-vector-left": one("MatMul", "w x", consts={"w": floats(8)}),
    "matmul-vector-computed": (
        [node("ReduceMean", "x", "a", axes=[0, 1, 2], keepdims=0), node("MatMul", "x a")],
        {},
        17,
    ),
    "matmul-vector-computed-left": (
        [node("ReduceMean", "x", "a", axes=[0, 1, 2], keepdims=0), node("MatMul", "a x")],
        {},
        17,
    ),
    "gemm-transposed": (
        [node("Reshape", "x s", "r"), node("Gemm", "r w c", transA=1, alpha=0.5, beta=2.0)],
        {"s": ints(8, 24), "w": floats(8, 5), "c": floats(5)},
        17,
    ),
    "gemm-both-transposed": (
        [node("Reshape", "x s", "r"), node("Gemm", "r w", transA=1, transB=1)],
        {"s": ints(8, 24), "w": floats(5, 8)},
        17,
    ),
    "einsum-attention": (
        [node("Abs", "x", "k"), node("Einsum", "x k", equation="bhid,bhjd->bhij")],
        {},
        17,
    ),
    "einsum-weight": one("Einsum", "x w", consts={"w": floats(3, 5)}, equation="bchw,ck->bkhw"),
}


@pytest.mark.parametrize(("nodes", "consts", "opset"), CASES.values(), ids=CASES.keys())
def test_operator(nodes, consts, opset, save_onnx, request_for, difference):
    path = save_onnx(nodes, consts, shape=(1, 3, 8, 8), opset=opset)
    model = ingest(request_for(path, 8, task="raw"))
    assert difference(model, 8) <= TOLERANCE


LAYERS = {
    "mish-decomposed": "Activation",
    "layer-norm-decomposed": "LayerNormalization",
    "group-norm-decomposed": "GroupNormalization",
    "instance-norm": "GroupNormalization",
    "deconv-torch": "Conv2DTranspose",
    "add-elements": "Constant",
}


@pytest.mark.parametrize(("case", "layer"), LAYERS.items(), ids=LAYERS.keys())
def test_it_becomes_the_layer_that_means_it(case, layer, save_onnx, request_for):
    nodes, consts, opset = CASES[case]
    net = ingest(request_for(save_onnx(nodes, consts, shape=(1, 3, 8, 8), opset=opset), 8, task="raw")).net
    kinds = [type(operation).__name__ for operation in net.operations]
    assert layer in kinds
    assert not {"Mean", "Sqrt", "Tanh"}.intersection(kinds)
