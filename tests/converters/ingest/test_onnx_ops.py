"""Each operator alone, against ONNX Runtime; the head keeps every pixel, so that a shifted one shows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE
from boardfit.errors import UnsupportedModel

RNG = np.random.default_rng(5)


def floats(*shape, low=-1.0):
    return RNG.uniform(low, 1.0, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def scalar(value):
    return np.float32(value)


BN = {"s": floats(3), "b": floats(3), "m": floats(3), "v": floats(3, low=0.5)}
POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}

# id, operator, further inputs, attributes, opset, Keras layer that must appear
ONE = [
    ("conv", "Conv", {"w": floats(4, 3, 3, 3), "c": floats(4)}, {"pads": [1] * 4}, 17, "Conv2D"),
    (
        "conv-strided-torch",
        "Conv",
        {"w": floats(4, 3, 3, 3)},
        {"pads": [1] * 4, "strides": [2, 2]},
        17,
        "Conv2D",
    ),
    (
        "conv-asymmetric",
        "Conv",
        {"w": floats(4, 3, 3, 2)},
        {"pads": [0, 2, 3, 1], "strides": [2, 1]},
        17,
        "Conv2D",
    ),
    (
        "conv-dilated",
        "Conv",
        {"w": floats(4, 3, 3, 3)},
        {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
        17,
        "Conv2D",
    ),
    (
        "conv-same-upper",
        "Conv",
        {"w": floats(4, 3, 3, 3)},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        17,
        "Conv2D",
    ),
    ("conv-same-lower", "Conv", {"w": floats(4, 3, 2, 2)}, {"auto_pad": "SAME_LOWER"}, 17, "Conv2D"),
    ("conv-valid", "Conv", {"w": floats(4, 3, 3, 3)}, {"auto_pad": "VALID"}, 17, "Conv2D"),
    ("conv-depthwise", "Conv", {"w": floats(3, 1, 3, 3)}, {"group": 3}, 17, "DepthwiseConv2D"),
    (
        "conv-multiplier",
        "Conv",
        {"w": floats(6, 1, 3, 3), "c": floats(6)},
        {"group": 3},
        17,
        "DepthwiseConv2D",
    ),
    (
        "conv-depthwise-oblong",
        "Conv",
        {"w": floats(3, 1, 3, 3)},
        {"group": 3, "strides": [1, 2]},
        17,
        "Conv2D",
    ),
    ("bn", "BatchNormalization", BN, {"epsilon": 0.01, "momentum": 0.8}, 17, "BatchNormalization"),
    ("relu", "Relu", {}, {}, 17, "ReLU"),
    ("relu6", "Clip", {"lo": scalar(0), "hi": scalar(0.5)}, {}, 17, "ReLU"),
    ("clip", "Clip", {"lo": scalar(-0.5), "hi": scalar(0.25)}, {}, 17, "Clip"),
    ("leaky", "LeakyRelu", {}, {"alpha": 0.3}, 17, "LeakyReLU"),
    ("elu", "Elu", {}, {"alpha": 0.5}, 17, "ELU"),
    ("prelu-channels", "PRelu", {"a": floats(3, 1, 1)}, {}, 17, "PReLU"),
    ("prelu-shared", "PRelu", {"a": floats(1)}, {}, 17, "PReLU"),
    ("sigmoid", "Sigmoid", {}, {}, 17, "Activation"),
    ("tanh", "Tanh", {}, {}, 17, "Activation"),
    ("hard-sigmoid", "HardSigmoid", {}, {"alpha": 1 / 6}, 17, "Activation"),
    ("hard-sigmoid-onnx", "HardSigmoid", {}, {}, 17, "Rescaling"),
    ("hard-swish", "HardSwish", {}, {}, 17, "Activation"),
    ("gelu", "Gelu", {}, {}, 20, "Activation"),
    ("softmax-channels", "Softmax", {}, {"axis": 1}, 17, "Softmax"),
    ("softmax-columns", "Softmax", {}, {"axis": -1}, 17, "Softmax"),
    ("add-channels", "Add", {"c": floats(3, 1, 1)}, {}, 17, "Rescaling"),
    ("mul-scalar", "Mul", {"c": scalar(3)}, {}, 17, "Rescaling"),
    ("sub-constant", "Sub", {"c": floats(1, 3, 1, 1)}, {}, 17, "Rescaling"),
    ("div-constant", "Div", {"c": floats(3, 1, 1, low=0.5)}, {}, 17, "Rescaling"),
    ("pad-space", "Pad", {"p": ints(0, 0, 1, 2, 0, 0, 3, 4)}, {}, 17, "ZeroPadding2D"),
    ("pad-channels", "Pad", {"p": ints(0, 1, 0, 0, 0, 2, 0, 0)}, {}, 17, "Pad"),
    ("maxpool", "MaxPool", {}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 17, "MaxPooling2D"),
    ("maxpool-torch", "MaxPool", {}, {**POOL, "pads": [1] * 4}, 17, "MaxPooling2D"),
    ("maxpool-ceil", "MaxPool", {}, {**POOL, "ceil_mode": 1}, 17, "MaxPooling2D"),
    ("maxpool-ceil-pads", "MaxPool", {}, {**POOL, "ceil_mode": 1, "pads": [1] * 4}, 17, "MaxPooling2D"),
    ("maxpool-same", "MaxPool", {}, {**POOL, "auto_pad": "SAME_UPPER"}, 17, "MaxPooling2D"),
    ("maxpool-lower", "MaxPool", {}, {**POOL, "auto_pad": "SAME_LOWER"}, 17, "MaxPooling2D"),
    ("avgpool", "AveragePool", {}, {"kernel_shape": [2, 3], "strides": [2, 1]}, 17, "AveragePooling2D"),
    (
        "avgpool-counts",
        "AveragePool",
        {},
        {**POOL, "pads": [1] * 4, "count_include_pad": 1},
        17,
        "AveragePooling2D",
    ),
    ("avgpool-same", "AveragePool", {}, {**POOL, "auto_pad": "SAME_UPPER"}, 17, "AveragePooling2D"),
    (
        "avgpool-stride-1",
        "AveragePool",
        {},
        {"kernel_shape": [3, 3], "pads": [1] * 4},
        17,
        "AveragePooling2D",
    ),
    ("avgpool-whole", "AveragePool", {}, {"kernel_shape": [10, 10]}, 17, "GlobalAveragePooling2D"),
    ("global-average", "GlobalAveragePool", {}, {}, 17, "GlobalAveragePooling2D"),
    ("global-max", "GlobalMaxPool", {}, {}, 17, "GlobalMaxPooling2D"),
    ("mean-attribute", "ReduceMean", {}, {"axes": [2, 3], "keepdims": 0}, 17, "GlobalAveragePooling2D"),
    ("mean-input", "ReduceMean", {"ax": ints(-1, -2)}, {"keepdims": 1}, 18, "GlobalAveragePooling2D"),
    ("max-attribute", "ReduceMax", {}, {"axes": [2, 3], "keepdims": 1}, 17, "GlobalMaxPooling2D"),
    ("reshape", "Reshape", {"s": ints(0, 30, -1)}, {}, 17, "Reshape"),
    ("reshape-image", "Reshape", {"s": ints(1, 12, 5, 5)}, {}, 17, "Reshape"),
    ("transpose", "Transpose", {}, {"perm": [0, 3, 1, 2]}, 17, None),
    ("unsqueeze-attribute", "Unsqueeze", {}, {"axes": [1]}, 11, "Reshape"),
    ("matmul", "MatMul", {"w": floats(10, 4)}, {}, 17, "Dense"),
    ("dropout", "Dropout", {}, {}, 17, None),
    ("cast", "Cast", {}, {"to": 1}, 17, None),
]


def kinds(net):
    return {type(operation).__name__ for operation in net.operations}


@pytest.mark.parametrize(
    ("op", "consts", "attrs", "opset", "layer"), [case[1:] for case in ONE], ids=[c[0] for c in ONE]
)
def test_operator(op, consts, attrs, opset, layer, save_onnx, request_for, difference):
    nodes = [helper.make_node(op, ["x", *consts], ["z"], **attrs), helper.make_node("Flatten", ["z"], ["y"])]
    model = ingest(request_for(save_onnx(nodes, consts, shape=(1, 3, 10, 10), opset=opset), 10))
    assert layer is None or layer in kinds(model.net)
    assert difference(model, 10) <= TOLERANCE


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs.split(), [output], **attrs)


# id, nodes from x (1, 3, 10, 10) to z, constants, Keras operation that must appear, one that must not
SEVERAL = [
    ("silu", [node("Sigmoid", "x", "s"), node("Mul", "s x", "z")], {}, "Activation", "Multiply"),
    (
        "hard-swish-of-hard-sigmoid",
        [node("HardSigmoid", "x", "s", alpha=1 / 6), node("Mul", "x s", "z")],
        {},
        "Activation",
        "Multiply",
    ),
    (
        "hard-swish-of-relu6",
        [
            node("Add", "x three", "a"),
            node("Clip", "a zero six", "c"),
            node("Mul", "x c", "m"),
            node("Div", "m six", "z"),
        ],
        {"three": scalar(3), "zero": scalar(0), "six": scalar(6)},
        "Activation",
        "Multiply",
    ),
    (
        "hard-sigmoid-of-relu6",
        [node("Add", "three x", "a"), node("Clip", "a zero six", "c"), node("Div", "c six", "z")],
        {"three": scalar(3), "zero": scalar(0), "six": scalar(6)},
        "Activation",
        "ReLU",
    ),
    (
        "gelu-of-erf",
        [
            node("Div", "x root", "d"),
            node("Erf", "d", "e"),
            node("Add", "e one", "a"),
            node("Mul", "x a", "m"),
            node("Mul", "m half", "z"),
        ],
        {"root": scalar(2**0.5), "one": scalar(1), "half": scalar(0.5)},
        "Activation",
        "Multiply",
    ),
    (
        "gate-of-another-tensor-is-no-silu",
        [node("Tanh", "x", "t"), node("Sigmoid", "t", "s"), node("Mul", "x s", "z")],
        {},
        "Multiply",
        None,
    ),
    ("add-tensors", [node("Tanh", "x", "t"), node("Add", "x t", "z")], {}, "Add", None),
    ("sub-tensors", [node("Tanh", "x", "t"), node("Sub", "x t", "z")], {}, "Subtract", None),
    ("div-tensors", [node("Sigmoid", "x", "t"), node("Div", "x t", "z")], {}, "Divide", None),
    ("constant-minus", [node("Sub", "c x", "z")], {"c": scalar(1)}, "Rescaling", None),
    (
        "constant-over",
        [node("Sigmoid", "x", "s"), node("Div", "c s", "z")],
        {"c": scalar(2)},
        "Reciprocal",
        None,
    ),
    ("concat", [node("Tanh", "x", "t"), node("Concat", "x t x", "z", axis=1)], {}, "Concatenate", None),
    ("concat-rows", [node("Tanh", "x", "t"), node("Concat", "x t", "z", axis=-2)], {}, "Concatenate", None),
    (
        "concat-of-two-orders",
        [node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("Concat", "x t", "z", axis=1)],
        {},
        "Permute",
        None,
    ),
    (
        "nhwc-conv",
        [
            node("Transpose", "x", "n", perm=[0, 2, 3, 1]),
            node("Pad", "n p", "q"),
            node("Transpose", "q", "c", perm=[0, 3, 1, 2]),
            node("Conv", "c w", "v", strides=[2, 2]),
            node("Transpose", "v", "b", perm=[0, 2, 3, 1]),
            node("Add", "b bias", "z"),
        ],
        {"p": ints(0, 1, 2, 0, 0, 0, 1, 0), "w": floats(4, 3, 3, 3), "bias": floats(4)},
        "Conv2D",
        "Permute",
    ),
    (
        "relu-makes-zero-padding-right",
        [node("Relu", "x", "r"), node("MaxPool", "r", "z", **POOL, pads=[1] * 4)],
        {},
        "ZeroPadding2D",
        "Pad",
    ),
    (
        "conv-bias-by-add",
        [node("Conv", "x w", "v"), node("Add", "v c", "z")],
        {"w": floats(4, 3, 1, 1), "c": floats(4, 1, 1)},
        "Conv2D",
        "Rescaling",
    ),
    (
        "channel-shuffle",
        [
            node("Conv", "x w", "v"),
            node("Reshape", "v five", "a"),
            node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "b four", "c"),
            node("Conv", "c u", "z"),
        ],
        {
            "w": floats(6, 3, 1, 1),
            "u": floats(2, 6, 3, 3),
            "five": ints(1, 2, 3, 10, 10),
            "four": ints(1, 6, 10, 10),
        },
        "Reshape",
        None,
    ),
    (
        "shape-arithmetic",
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n front", "m"),
            node("Concat", "m rest", "t", axis=0),
            node("Reshape", "x t", "z"),
        ],
        {"zero": np.int64(0), "front": ints(0), "rest": ints(-1)},
        "Flatten",
        None,
    ),
]


@pytest.mark.parametrize(
    ("nodes", "consts", "present", "absent"), [case[1:] for case in SEVERAL], ids=[c[0] for c in SEVERAL]
)
def test_pattern(nodes, consts, present, absent, save_onnx, request_for, difference):
    path = save_onnx([*nodes, node("Flatten", "z", "y")], consts, shape=(1, 3, 10, 10))
    model = ingest(request_for(path, 10))
    assert present in kinds(model.net)
    assert absent not in kinds(model.net)
    assert difference(model, 10) <= TOLERANCE


def test_gemm_scales(save_onnx, request_for, difference):
    consts = {"w": floats(6, 3), "c": floats(1, 6)}
    nodes = [
        node("GlobalAveragePool", "x", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w c", "y", transB=1, alpha=0.5, beta=2.0),
    ]
    model = ingest(request_for(save_onnx(nodes, consts), 32, 48))
    # The pooling flattens by itself: no Flatten layer, whose dynamic shape every target would carry.
    assert [type(layer).__name__ for layer in model.net.layers] == [
        "InputLayer",
        "GlobalAveragePooling2D",
        "Dense",
    ]
    assert max(difference(model, size) for size in (32, 48)) <= TOLERANCE


@pytest.mark.parametrize(
    ("op", "activation"),
    [("Relu", "none"), ("Tanh", "none"), ("Sigmoid", "sigmoid"), ("Softmax", "softmax"), (None, "logits")],
    ids=str,
)
def test_what_the_last_operator_makes_of_the_scores(op, activation, save_onnx, request_for):
    nodes = [node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "f" if op else "y")]
    if op:
        nodes.append(node(op, "f", "y"))
    assert ingest(request_for(save_onnx(nodes), 32)).outputs[0].activation == activation


def test_fixed_batch_of_the_source_does_not_fix_ours(save_onnx, request_for, difference):
    nodes = [node("GlobalMaxPool", "x", "p"), node("Reshape", "p s", "y")]
    model = ingest(request_for(save_onnx(nodes, {"s": ints(3, 3)}, shape=(3, 3, 8, 8)), 8))
    assert difference(model, 8) <= TOLERANCE


UNKNOWN = [
    ("unknown-op", [node("Det", "x", "z")], {}, r"Det .*opset 17.*--pass-through"),
    (
        "strided-dilated-same",
        [node("Conv", "x w", "z", strides=[2, 2], dilations=[2, 2], auto_pad="SAME_UPPER")],
        {"w": floats(4, 3, 3, 3)},
        "Conv",
    ),
    ("negative-pad", [node("Pad", "x p", "z")], {"p": ints(0, 0, -1, 1, 0, 0, 1, 1)}, "Pad"),
    (
        "dilated-pool-by-a-rule",
        [node("MaxPool", "x", "z", **POOL, dilations=[2, 2], auto_pad="SAME_UPPER")],
        {},
        "it is dilated, and pads by a rule",
    ),
    ("computed-indices", [node("ArgMax", "x", "i", axis=1), node("Gather", "x i", "z")], {}, "Gather"),
    (
        "foreign-domain",
        [helper.make_node("FusedConv", ["x"], ["z"], domain="com.microsoft")],
        {},
        "FusedConv",
    ),
    (
        "constant-bomb",
        [node("ConstantOfShape", "s", "c"), node("Add", "x c", "z")],
        {"s": ints(1, 1 << 40)},
        "large",
    ),
    (
        "resize-bomb",
        [node("Resize", "x r r s", "z", mode="cubic")],
        {"r": np.zeros(0, np.float32), "s": ints(1, 3, 10, (1 << 24) + 1)},
        "Resize.*at most",
    ),
]


@pytest.mark.parametrize(
    ("nodes", "consts", "names"), [case[1:] for case in UNKNOWN], ids=[c[0] for c in UNKNOWN]
)
def test_what_cannot_be_carried_over_is_named(nodes, consts, names, save_onnx, request_for):
    path = save_onnx([*nodes, node("Flatten", "z", "y")], consts, shape=(1, 3, 10, 10))
    with pytest.raises(UnsupportedModel, match=names):
        ingest(request_for(path, 10))
