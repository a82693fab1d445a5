"""Forms of an operator that the common exporters do not write and ONNX allows, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE
from boardfit.errors import UnsupportedModel

RNG = np.random.default_rng(13)


def floats(*shape):
    return RNG.uniform(-1.0, 1.0, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def node(op, inputs, outputs="y", **attrs):
    """A node; ``-`` stands for an input that is absent."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attrs)


def one(op, inputs="x", opset=17, consts=None, **attrs):
    return ([node(op, inputs, **attrs)], consts or {}, opset)


def scaled(mode, height, width, opset=18, **attrs):
    consts = {"roi": floats(0), "s": np.array([1, 1, height, width], np.float32)}
    return one("Resize", "x roi s", opset, consts, mode=mode, **attrs)


def row(op, consts=None, **attrs):
    """The operator on a row of 64 pixels."""
    inputs = " ".join(["r", *(consts or {})])
    return (
        [node("Reshape", "x shape", "r"), node(op, inputs, **attrs)],
        {"shape": ints(1, 3, 64), **(consts or {})},
        17,
    )


def joined(op):
    """The operator on three tensors of 1, 1 and 4 axes."""
    means = [
        node(kind, "x", name, axes=[0, 2, 3], keepdims=0)
        for kind, name in (("ReduceMean", "a"), ("ReduceMax", "b"))
    ]
    return ([*means, node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node(op, "a b t")], {}, 17)


POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
DECONV = {"w": floats(3, 4, 3, 3)}
HALF = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor", "opset": 11}

# From x (1, 3, 8, 8) to y; constants; opset
CASES = {
    "softmax-11-spans-axes": one("Softmax", opset=11),
    "softmax-12-from-the-end": one("Softmax", opset=12, axis=-2),
    "log-softmax-11-spans-axes": one("LogSoftmax", opset=11),
    "reduce-nothing": one("ReduceMean", opset=18, noop_with_empty_axes=1),
    "square-nothing": one("ReduceSumSquare", opset=18, noop_with_empty_axes=1),
    "l1-of-the-batch": one("ReduceL1", axes=[0]),
    "squares-of-the-batch": one("ReduceSumSquare", axes=[0]),
    "sum-of-ranks": joined("Sum"),
    "mean-of-ranks": joined("Mean"),
    "max-of-ranks": joined("Max"),
    "sum-constant-first": one("Sum", "c x", consts={"c": floats(8)}),
    "max-of-two-constants": one("Max", "c d x", consts={"c": floats(1), "d": floats(3, 1, 1)}),
    "flatten-after-channels": ([node("GlobalAveragePool", "x", "g"), node("Flatten", "g", axis=2)], {}, 17),
    "average-ceil": one("AveragePool", **POOL, ceil_mode=1),
    "average-ceil-counts": one("AveragePool", **POOL, pads=[1] * 4, ceil_mode=1, count_include_pad=1),
    "average-of-the-picture-alone": one("AveragePool", **POOL, pads=[1] * 4),
    "average-same-lower": one("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
    "average-same-counts": one(
        "AveragePool", kernel_shape=[3, 3], strides=[3, 3], auto_pad="SAME_UPPER", count_include_pad=1
    ),
    "row-max": row("MaxPool", kernel_shape=[3], strides=[2], ceil_mode=1),
    "row-average": row("AveragePool", kernel_shape=[2], pads=[1, 0]),
    "row-global": row("GlobalAveragePool"),
    "row-deconv": row("ConvTranspose", {"w": floats(3, 4, 4)}, strides=[2], output_padding=[1], pads=[1, 1]),
    "deconv-output-shape": one("ConvTranspose", "x w", consts=DECONV, strides=[2, 2], output_shape=[16, 16]),
    "deconv-output-shape-upper": one(
        "ConvTranspose", "x w", consts=DECONV, strides=[2, 2], output_shape=[16, 16], auto_pad="SAME_UPPER"
    ),
    "linear-by-an-odd-scale": scaled("linear", 1.3, 2.1),
    "nearest-by-an-odd-scale": scaled("nearest", 1.3, 2.2),
    "cubic-by-an-odd-scale": scaled("cubic", 1.3, 0.7),
    "symmetric-by-an-odd-scale": scaled(
        "linear", 1.3, 2.1, opset=19, coordinate_transformation_mode="half_pixel_symmetric"
    ),
    "antialias-linear": scaled("linear", 0.5, 0.3, antialias=1),
    "antialias-cubic": scaled("cubic", 0.5, 0.5, antialias=1, exclude_outside=1),
    "tf-half-pixel": scaled("nearest", 2, 0.75, **HALF),
    "axes-in-another-order": one(
        "Resize", "x - s", 18, {"s": np.array([2.1, 3], np.float32)}, mode="linear", axes=[3, 2]
    ),
    "pad-edge": one("Pad", "x p", consts={"p": ints(0, 0, 2, 0, 0, 0, 1, 3)}, mode="edge"),
}


@pytest.mark.parametrize(("nodes", "consts", "opset"), CASES.values(), ids=CASES.keys())
def test_form(nodes, consts, opset, save_onnx, request_for, difference):
    path = save_onnx(nodes, consts, shape=(1, 3, 8, 8), opset=opset)
    model = ingest(request_for(path, 8, task="raw"))
    assert difference(model, 8) <= TOLERANCE


def test_a_second_output_that_is_used_is_refused(save_onnx, request_for):
    nodes = [
        node("MaxPool", "x", "m i", kernel_shape=[2, 2]),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Add", "m f"),
    ]
    with pytest.raises(UnsupportedModel, match="its output 'i' is used"):
        ingest(request_for(save_onnx(nodes, shape=(1, 3, 8, 8)), 8, task="raw"))


def test_what_onnx_runtime_cannot_run_is_refused_with_its_reason(save_onnx, request_for):
    nodes = [node("Conv", "x w", auto_pad="SAME_UPPER", dilations=[2, 2])]
    path = save_onnx(nodes, {"w": floats(4, 3, 3, 3)}, shape=(1, 3, 8, 8))
    with pytest.raises(UnsupportedModel, match="ONNX Runtime cannot run net"):
        ingest(request_for(path, 8, task="raw"))
