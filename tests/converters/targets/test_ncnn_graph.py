from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.targets import export
from boardfit.converters.targets.ncnn_graph import INT8, Numbers, float_text, read_graph
from boardfit.errors import ExportError

PARAM = """7767517
4 5
Input in0 0 1 image
Convolution conv_0 1 1 image a 0=2 1=1 5=1 6=6 -23310=2,0.0,6.0 9=3
Split split_0 1 2 a b c
Reshape reshape_0 1 1 b logits 6="1,1,//(2,0n),0n"
"""
WEIGHTS = bytes(4) + np.arange(6, dtype="<f4").tobytes() + np.array([7, 8], "<f4").tobytes()


def test_a_net_is_read():
    graph = read_graph(PARAM.encode(), WEIGHTS)
    conv = graph.layers[1]
    assert conv.numbers[0].values.tolist() == [0, 1, 2, 3, 4, 5]
    assert conv.numbers[1].values.tolist() == [7, 8]
    assert (conv.integer(0), conv.integer(3, 1)) == (2, 1)
    assert conv.floats(10) == (0.0, 6.0)
    assert conv.floats(18) == ()
    assert graph.copied_from() == {"image": "image", "a": "a", "b": "a", "c": "a", "logits": "logits"}
    readers = {blob: [layer.name for layer in found] for blob, found in graph.readers().items()}
    assert readers == {"image": ["conv_0"], "a": ["reshape_0"], "logits": []}


def test_it_is_written_byte_for_byte():
    graph = read_graph(PARAM.encode(), WEIGHTS)
    assert (graph.param, graph.weights) == (PARAM.encode(), WEIGHTS)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_pnnx_writes_is_written_byte_for_byte(precision, tiny_model):
    exported = export(tiny_model, format_name="ncnn", sizes=(40,), precision=precision)
    files = [exported.files[path] for path in exported.artifact.files]
    graph = read_graph(*files)
    assert [graph.param, graph.weights] == files


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("Convolution a 1 1 image b 0=4 1=3 5=1 6=36 8=2", [36, 4, 4, 1]),
        ("Convolution a 1 1 image b 0=4 1=3 5=0 6=36 8=102", [36, 4, 1, 1]),
        ("ConvolutionDepthWise a 1 1 image b 0=4 1=3 5=1 6=36 7=2 8=101", [36, 4, 2, 1, 1]),
        ("Convolution a 1 1 image b 0=4 6=36 19=1", []),
        ("InnerProduct a 1 1 image b 0=5 1=1 2=15 8=2", [15, 5, 5, 1]),
        ("Deconvolution a 1 1 image b 0=4 5=1 6=36", [36, 4]),
        ("BatchNorm a 1 1 image b 0=3", [3, 3, 3, 3]),
        ("PReLU a 1 1 image b 0=3", [3]),
        ("Scale a 1 1 image b 0=3 1=1", [3, 3]),
        ("LayerNorm a 1 1 image b 0=3", [3, 3]),
        ("LayerNorm a 1 1 image b 0=3 2=0", []),
        ("MemoryData a 1 1 image b 0=2 1=3", [6]),
        ("Gemm a 1 1 image b 4=0 5=1 6=1 8=5 9=3 10=4", [15, 5]),
        ("MultiHeadAttention a 1 1 image b 0=2 1=1 2=6", [6, 2, 4, 2, 4, 2, 6, 3]),
        ("ReLU a 1 1 image b", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_layer_stores(line, counts):
    """Zeros read as float32, tagged or not; one array more or less would not come out even."""
    tagged = {"Convolution", "ConvolutionDepthWise", "InnerProduct", "Deconvolution"}
    tags = {"Gemm": 2, "MultiHeadAttention": 4}.get(
        line.split()[0], int(line.split()[0] in tagged and counts != [])
    )
    data = bytes(4 * (sum(counts) + tags))
    param = f"7767517\n2 2\nInput in0 0 1 image\n{line}\n"
    graph = read_graph(param.encode(), data)
    assert [numbers.values.size for numbers in graph.layers[1].numbers] == counts
    with pytest.raises(ExportError, match="explained by the"):
        read_graph(param.encode(), data + bytes(4))


BROKEN = {
    "cut short": (PARAM, WEIGHTS[:-4], "ends at byte"),
    "too long": (PARAM, WEIGHTS + bytes(4), "explained by the .param"),
    "a strange tag": (PARAM, b"\1\2\3\4" + WEIGHTS[4:], "tag 0x4030201"),
    "no magic": ("1" + PARAM, WEIGHTS, "does not begin with 7767517"),
    "a line cut off": (PARAM[: PARAM.index(" a 0=")], WEIGHTS, "cannot be read"),
    "a blob from nowhere": (PARAM.replace("1 image a", "1 imago a"), WEIGHTS, "imago"),
    "a parameter that is no integer": (PARAM.replace("0=2", "0=x"), WEIGHTS, "'x': expected an integer"),
    "a count that is wrong": (PARAM.replace("\n4 5", "\n9 5"), WEIGHTS, "has 4"),
    "binary in the text": (PARAM + "é", WEIGHTS, "no text"),
}


@pytest.mark.parametrize(("param", "weights", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_files_are_refused(param, weights, message):
    with pytest.raises(ExportError, match=message):
        read_graph(param.encode(), weights)


def test_int8_weights_carry_ncnns_tag_and_fill_up_to_four_bytes():
    data = Numbers(np.array([1, -1, 127], np.int8), tagged=True).to_bytes()
    assert data == INT8.to_bytes(4, "little") + b"\x01\xff\x7f\x00"


@pytest.mark.parametrize("value", [127.0, -127.0, 1.2345678e-38, -3.0e38])
def test_a_float_is_written_as_ncnn_reads_it(value):
    text = float_text(value)
    assert len(text) <= 15
    assert "." in text
    assert np.float32(text) == pytest.approx(np.float32(value), rel=1e-6)


def test_parameters_are_replaced_in_either_form():
    conv = read_graph(PARAM.encode(), WEIGHTS).layers[1]
    assert "9=" not in conv.with_params(p9=None, p10=None).line
    assert "-23310" not in conv.with_params(p10="1").line
