"""ncnn's int8: what ncnn computes from the files. The nets are written as ncnn reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from boardfit.converters.calibrate import Range, estimate, observe
from boardfit.converters.quantize.naming import share_of
from boardfit.converters.targets import Exported, export, ncnn_int8
from boardfit.converters.targets.ncnn_graph import NcnnGraph, NcnnLayer, Numbers, read_graph
from boardfit.converters.targets.ncnn_grid import grids_of, plan
from boardfit.converters.targets.weight_rounding import rounded_weights
from boardfit.converters.verify import open_engine
from boardfit.errors import EngineError, ExportError, InputError
from boardfit.specs import Artifact, TensorSpec

SIDE = 12
RELU, RELU6, LEAKY = {9: "1"}, {9: "3", -23310: "2,0.0,6.0"}, {9: "2", -23310: "1,0.1"}


@dataclass
class Net:
    """A net under construction: each method adds a layer behind the last one, or behind ``of``."""

    seed: int = 0
    layers: list[NcnnLayer] = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.layers.append(NcnnLayer("Input", "in0", (), ("image",), {}))

    def add(self, kind, params=None, numbers=(), *, of=None, outputs=None):
        name = f"{kind.lower()}_{len(self.layers)}"
        inputs = (of,) if isinstance(of, str) else tuple(of or (self.layers[-1].outputs[0],))
        layer = NcnnLayer(kind, name, inputs, outputs or (f"b{len(self.layers)}",), params or {}, numbers)
        self.layers.append(layer)
        return self

    def conv(self, inputs, outputs, kernel=1, *, stride=1, groups=1, bias=True, act=None, of=None, pad=None):
        count = outputs * inputs // groups * kernel**2
        pad = kernel // 2 if pad is None else pad
        params = {0: outputs, 1: kernel, 3: stride, 4: pad, 5: int(bias), 6: count}
        if groups > 1:
            params[7] = groups
        weights = self.rng.normal(0, np.sqrt(2 * groups / inputs) / kernel, count)
        biases = self.rng.normal(0, 0.3, outputs)
        kind = "ConvolutionDepthWise" if groups > 1 else "Convolution"
        text = {key: str(value) for key, value in params.items()} | (act or {})
        return self.add(kind, text, numbers_of(weights, biases if bias else None), of=of)

    def dense(self, inputs, outputs, *, bias=True):
        weights, biases = (
            self.rng.normal(0, 1 / np.sqrt(inputs), inputs * outputs),
            self.rng.normal(size=outputs),
        )
        params = {0: str(outputs), 1: str(int(bias)), 2: str(inputs * outputs)}
        return self.add("InnerProduct", params, numbers_of(weights, biases if bias else None))

    def exported(self):
        last = self.layers[-1]
        layers = (*self.layers[:-1], replace(last, outputs=("logits",)))
        return exported_of(NcnnGraph(layers))


def numbers_of(weights, biases=None):
    stored = [Numbers(weights.astype(np.float32), tagged=True)]
    return (*stored, *([] if biases is None else [Numbers(biases.astype(np.float32), tagged=False)]))


def exported_of(graph, **changes):
    paths = f"models/ncnn-fp32-{SIDE}.param", f"models/ncnn-fp32-{SIDE}.bin"
    artifact = Artifact(
        format="ncnn",
        precision="fp32",
        sizes=(SIDE,),
        files=paths,
        inputs=(TensorSpec(name="image", shape=(None, 3, SIDE, SIDE), layout="NCHW"),),
        outputs=(TensorSpec(name="logits", shape=(None, 5), activation="none"),),
    )
    return Exported(replace(artifact, **changes), dict(zip(paths, (graph.param, graph.weights), strict=True)))


def images(count=6, seed=5):
    return np.random.default_rng(seed).normal(0, 1, (count, SIDE, SIDE, 3)).astype(np.float32)


def ranges_of(exported, tensors=None):
    probe = ncnn_int8.open_probe(exported)
    stats = observe(probe, images() if tensors is None else tensors)
    probe.close()
    return {name: estimate(each, "min-max") for name, each in stats.items()}


def quantized(exported, **options):
    return ncnn_int8.quantize(exported, ranges=ranges_of(exported), **options)


def graph_of(exported):
    return read_graph(*(exported.files[path] for path in exported.artifact.files))


def run(exported, tensors):
    engine = open_engine(exported, threads=1)
    outputs = engine.run({"image": np.ascontiguousarray(tensors.transpose(0, 3, 1, 2))})
    engine.close()
    return outputs[0]


def probed(exported, image):
    probe = ncnn_int8.open_probe(exported)
    tensors = probe.run(image[None])
    probe.close()
    return tensors


def decibels(actual, expected):
    noise = float(np.sum((actual - expected) ** 2, dtype=np.float64))
    return 10 * np.log10(float(np.sum(expected**2, dtype=np.float64)) / max(noise, 1e-30))


NETS = {
    "conv": lambda: Net().conv(3, 16, 3, stride=2),
    "conv without bias": lambda: Net().conv(3, 16, 3, bias=False),
    "one output channel": lambda: Net().conv(3, 1, 3),
    "conv relu conv": lambda: Net().conv(3, 16, 3, act=RELU).conv(16, 8),
    "conv relu conv, no bias": lambda: Net().conv(3, 16, 3, act=RELU, bias=False).conv(16, 8, bias=False),
    "relu6, padded reader": lambda: Net().conv(3, 8, act=RELU6).conv(8, 16, 5, stride=2),
    "relu6, depthwise, project": lambda: (
        Net().conv(3, 16, act=RELU6).conv(16, 16, 3, groups=16, act=RELU6).conv(16, 8)
    ),
    "12 channels, which ncnn does not pack": lambda: (
        Net().conv(3, 12, act=RELU).conv(12, 12, 3, groups=12, act=RELU).conv(12, 8)
    ),
    "depthwise on floats, no bias": lambda: Net().conv(3, 3, 3, groups=3, bias=False),
    "grouped": lambda: Net().conv(3, 16, act=RELU).conv(16, 32, 3, groups=4, act=RELU).conv(32, 8),
    "grouped, answering in float": lambda: Net().conv(3, 32, act=RELU).conv(32, 32, groups=4, act=RELU),
    "grouped twice, answering in float": lambda: (
        Net().conv(3, 32, act=RELU).conv(32, 32, 3, groups=4, act=RELU).conv(32, 64, groups=8)
    ),
    "leaky between convolutions": lambda: Net().conv(3, 16, 3, act=LEAKY).conv(16, 8, 3),
    "linear between convolutions": lambda: Net().conv(3, 16, 3).conv(16, 8),
    "below zero": lambda: Net().conv(3, 8, act={9: "3", -23310: "2,-6.0,0.0"}).conv(8, 8),
    "linear, padded reader": lambda: Net().conv(3, 16, 3).conv(16, 8, 3),
    "winograd shape": lambda: Net().conv(3, 64, 3, act=RELU).conv(64, 64, 3, act=RELU).conv(64, 8),
    "two readers": lambda: (
        Net()
        .conv(3, 16, 3, act=RELU)
        .add("Split", outputs=("l", "r"))
        .conv(16, 8, 3, of="l")
        .conv(16, 8, of="r")
        .add("BinaryOp", {0: "0"}, of=("b3", "b4"))
    ),
    "residual": lambda: (
        Net()
        .conv(3, 16, 3, act=RELU)
        .add("Split", outputs=("l", "r"))
        .conv(16, 16, 3, of="l", act=RELU)
        .add("BinaryOp", {0: "0"}, of=("r", "b3"))
        .conv(16, 8)
    ),
    "dense": lambda: Net().conv(3, 16, 3, act=RELU).add("Pooling", {0: "1", 4: "1"}).dense(16, 5),
    "dense without bias": lambda: (
        Net().conv(3, 16, 3).add("Pooling", {0: "1", 4: "1"}).dense(16, 5, bias=False)
    ),
}
CASES = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


@CASES
def test_a_net_is_read_and_written_byte_for_byte(make):
    for exported in (made := make().exported(), quantized(made)):
        graph = graph_of(exported)
        assert [graph.param, graph.weights] == [exported.files[path] for path in exported.artifact.files]


@CASES
def test_int8_answers_nearly_like_float(make):
    exported = make().exported()
    tensors = images()
    actual, expected = run(quantized(exported), tensors), run(exported, tensors)
    assert actual.shape == expected.shape
    assert decibels(actual, expected) > 28.0


@pytest.mark.parametrize(
    ("name", "integer"),
    [
        ("grouped", [True, True, True]),
        ("grouped, answering in float", [True, False]),
        ("grouped twice, answering in float", [True, False, False]),
        ("relu6, depthwise, project", [True, True, True]),
    ],
)
def test_a_grouped_convolution_that_answers_in_float_stays_in_float(name, integer):
    assert [layer.integer for layer in ncnn_int8.layers(quantized(NETS[name]().exported()))] == integer


def convolved(values, layer, inputs):
    """Return a Convolution or ConvolutionDepthWise of (C, H, W) float64 values, padded with 0, activated."""
    outputs, kernel, stride = layer.integer(0), layer.integer(1), layer.integer(3, 1)
    groups, pad = layer.integer(7, 1), layer.integer(4)
    weights = layer.numbers[0].values.astype(np.float64).reshape(outputs, inputs // groups, kernel, kernel)
    x = np.pad(values, ((0, 0), (pad, pad), (pad, pad)))
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    parts = zip(np.split(view, groups), np.split(weights, groups), strict=True)
    y = np.concatenate([np.einsum("chwkl,ockl->ohw", part, kernels) for part, kernels in parts])
    y += layer.numbers[1].values[:, None, None] if layer.integer(5) else 0.0
    kind = layer.integer(9)
    ends = layer.floats(10) or (0.0, np.inf)
    return np.clip(y, *ends) if kind else y


def on_grid(values, grid):
    integers = np.clip(np.round(grid.sign * values * grid.scale) + grid.zero, -127, 127)
    return grid.values(integers).astype(np.float64)


def with_rounded_weights(layer, one_signed):
    outputs, groups = (
        layer.integer(0),
        layer.integer(7, 1) if layer.kind != "Convolution" else layer.integer(0),
    )
    rows = layer.numbers[0].values.astype(np.float64).reshape(groups, -1)
    scales = (127 / np.abs(rows).max(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    levels = (rows * scales).reshape(outputs, -1)
    integers = rounded_weights(levels, taps=layer.integer(1) ** 2, one_signed=one_signed)
    values = (integers.reshape(groups, -1) / scales).reshape(-1)
    return replace(layer, numbers=(Numbers(values, tagged=True), *layer.numbers[1:]))


@pytest.mark.parametrize(
    "name",
    [
        "conv",
        "conv without bias",
        "conv relu conv, no bias",
        "relu6, padded reader",
        "relu6, depthwise, project",
        "12 channels, which ncnn does not pack",
        "depthwise on floats, no bias",
        "grouped",
        "linear between convolutions",
        "linear, padded reader",
        "below zero",
        "winograd shape",
    ],
)
def test_ncnn_computes_what_numpy_does_with_the_same_integers(name):
    exported = NETS[name]().exported()
    graph, ranges = graph_of(exported), ranges_of(exported)
    grids = plan(graph, frozenset(layer.name for layer in graph.layers[1:]), ranges)
    image = images(1)[0]
    values = image.transpose(2, 0, 1).astype(np.float64)
    for layer in graph.layers[1:]:
        grid = grids[layer.inputs[0]]
        x = on_grid(values, grid)
        values = convolved(x, with_rounded_weights(layer, grid.one_signed), len(x))
    actual = run(ncnn_int8.quantize(exported, ranges=ranges), image[None])[0]
    # Not exact: x86 depthwise kernels take a reciprocal of 12 bits, and ties may go either way.
    assert decibels(actual, values) > 50.0
    assert decibels(run(exported, image[None])[0], values) < 45.0


def test_layers_run_in_integers_and_blobs_between_them_are_integers():
    exported = NETS["relu6, depthwise, project"]().exported()
    made = quantized(exported)
    grids = grids_of(graph_of(made))
    assert set(grids) == {"b1", "b2"}
    tensors = probed(made, images(1)[0])
    for blob, grid in grids.items():
        levels = tensors[blob].astype(np.float64) * grid.scale
        assert np.abs(levels - np.round(levels)).max() < 1e-3
        assert len(np.unique(np.round(levels))) > 128  # all levels, although the values have one sign
    assert [layer.integer for layer in ncnn_int8.layers(made)] == [True] * 3
    assert [layer.integer for layer in ncnn_int8.layers(exported)] == [False] * 3


def test_an_input_between_two_levels_makes_no_difference():
    """What is less than half a level from an integer must vanish, or the kernel computes in float."""
    exported = Net().conv(3, 16, 3).exported()
    made = ncnn_int8.quantize(exported, ranges={"image": Range(-1.27, 1.27)})
    levels = np.random.default_rng(0).integers(-127, 128, (1, SIDE, SIDE, 3))
    near = (levels + 0.3) / 100.0
    exact = (levels / 100.0).astype(np.float32)
    assert np.array_equal(run(made, near.astype(np.float32)), run(made, exact))
    assert not np.allclose(run(exported, near.astype(np.float32)), run(exported, exact), atol=1e-4)


def test_a_layer_on_request_stays_in_float_in_half_precision():
    exported = NETS["relu6, depthwise, project"]().exported()
    names = [layer.name for layer in ncnn_int8.layers(exported)]
    made = quantized(exported, keep_float=frozenset(names[1:2]))
    rows = ncnn_int8.layers(made)
    assert [row.integer for row in rows] == [True, False, True]
    assert [row.name for row in rows] == names
    assert graph_of(made).layers[2].numbers[0].values.dtype == np.float16
    assert grids_of(graph_of(made)) == {}
    assert decibels(run(made, images()), run(exported, images())) > 28.0


def test_weights_beyond_half_precision_stay_as_they_are():
    net = Net().conv(3, 4)
    weights = net.layers[1].numbers[0].values * np.float32(1e6)
    net.layers[1] = replace(net.layers[1], numbers=numbers_of(weights, np.zeros(4)))
    exported = net.exported()
    made = ncnn_int8.quantize(exported, ranges={}, keep_float=frozenset([net.layers[1].name]))
    assert graph_of(made).layers[1].numbers[0].values.dtype == np.float32


@pytest.mark.parametrize(
    "name", ["relu6, depthwise, project", "depthwise on floats, no bias", "dense", "grouped"]
)
def test_activations_and_weights_that_are_all_zero(name):
    net = NETS[name]()
    for index in (1, len(net.layers) - 1):
        layer = net.layers[index]
        values = layer.numbers[0].values.copy()
        values[: max(1, values.size // 2)] = 0.0
        net.layers[index] = replace(layer, numbers=(Numbers(values, tagged=True), *layer.numbers[1:]))
    exported = net.exported()
    zeros = {blob: Range(0.0, 0.0) for blob in graph_of(exported).copied_from()}
    for ranges in (ranges_of(exported), zeros):
        made = ncnn_int8.quantize(exported, ranges=ranges)
        for layer in graph_of(made).layers:
            assert all(np.isfinite(numbers.values).all() for numbers in layer.numbers)
        assert np.isfinite(run(made, images())).all()
    quiet = np.zeros((1, SIDE, SIDE, 3), np.float32)
    made, expected = ncnn_int8.quantize(exported, ranges=ranges_of(exported)), run(exported, quiet)
    assert np.abs(run(made, quiet) - expected).max() < 0.05 * max(1.0, np.abs(expected).max())


@CASES
def test_a_probe_names_the_same_blobs_before_and_after(make):
    exported = make().exported()
    image = images(1)[0]
    before, after = probed(exported, image), probed(quantized(exported), image)
    assert before.keys() == after.keys()
    assert {"image", "logits"} <= before.keys()
    for name, values in before.items():
        assert values.dtype == after[name].dtype == np.float32
        assert values.shape == after[name].shape
        assert decibels(after[name], values) > 25.0, name
    assert np.array_equal(before["logits"], run(exported, image[None])[0])


def test_macs_and_weights_are_counted():
    exported = NETS["grouped"]().exported()
    first, second, third = ncnn_int8.layers(exported)
    places = SIDE * SIDE
    assert (first.kind, first.macs, first.weights) == ("conv", places * 3 * 16, 48)
    assert (second.kind, second.macs) == ("grouped", places * 32 * 4 * 9)
    assert (third.inputs, third.output, third.macs) == (("b2",), "logits", places * 32 * 8)
    dense = ncnn_int8.layers(NETS["dense"]().exported())[-1]
    assert (dense.kind, dense.macs, dense.weights) == ("dense", 80, 80)
    depthwise = ncnn_int8.layers(NETS["relu6, depthwise, project"]().exported())[1]
    assert (depthwise.kind, depthwise.macs) == ("depthwise", places * 16 * 9)


def test_a_model_becomes_a_smaller_file_that_may_be_called_int8(tiny_model):
    exported = export(tiny_model, format_name="ncnn", sizes=(40,), precision="fp32")
    tensors = np.random.default_rng(0).normal(size=(8, 40, 40, 3)).astype(np.float32)
    made = ncnn_int8.quantize(exported, ranges=ranges_of(exported, tensors))
    share = share_of(ncnn_int8.layers(made), made, exported)
    assert share.macs == 1.0
    assert len(made.files["models/ncnn-int8-40.bin"]) < 0.45 * len(exported.files["models/ncnn-fp32-40.bin"])
    assert made.artifact.precision == "int8"
    assert made.artifact.outputs == exported.artifact.outputs
    assert decibels(run(made, tensors), run(exported, tensors)) > 25.0


def test_a_layer_that_pads_with_another_number_stays_in_float():
    """In int8 ncnn takes the number for an integer of the grid."""
    net = Net().conv(3, 8, act=RELU).conv(8, 8, 3)
    net.layers[2] = net.layers[2].with_params(p18="1.0")
    exported = net.exported()
    made = quantized(exported)
    assert [layer.integer for layer in ncnn_int8.layers(made)] == [True, False]
    assert decibels(run(made, images()), run(exported, images())) > 28.0


def test_a_missing_range_is_named():
    with pytest.raises(ExportError, match="no range for the blob 'b1'"):
        ncnn_int8.quantize(NETS["conv relu conv"]().exported(), ranges={"image": Range(-1, 1)})


def test_an_unknown_layer_to_keep_is_named():
    exported = NETS["conv"]().exported()
    with pytest.raises(ExportError, match="nowhere cannot be kept"):
        ncnn_int8.quantize(exported, ranges={"image": Range(-1, 1)}, keep_float=frozenset(["nowhere"]))


def test_only_fp32_of_one_size_is_quantized():
    exported = NETS["conv"]().exported()
    ranges = {"image": Range(-1, 1)}
    with pytest.raises(ExportError, match="is int8 already"):
        ncnn_int8.quantize(ncnn_int8.quantize(exported, ranges=ranges), ranges=ranges)
    with pytest.raises(ExportError, match="no precision 'int16x8'"):
        ncnn_int8.quantize(exported, ranges=ranges, scheme="int16x8")
    several = replace(exported, artifact=replace(exported.artifact, sizes=(SIDE, 2 * SIDE)))
    with pytest.raises(ExportError, match="one size"):
        ncnn_int8.quantize(several, ranges=ranges)


def test_a_probe_refuses_what_it_cannot_run():
    probe = ncnn_int8.open_probe(NETS["conv"]().exported())
    with pytest.raises(InputError, match="expected"):
        probe.run(np.zeros((1, SIDE, SIDE + 1, 3), np.float32))
    probe.close()
    probe.close()
    with pytest.raises(EngineError, match="closed"):
        probe.run(images(1))
