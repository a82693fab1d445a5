"""What the ONNX quantizer writes, and what ONNX Runtime makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardfit.converters.calibrate import Range, estimate, observe
from boardfit.converters.targets import Exported, onnx_int8
from boardfit.converters.targets.onnx_probe import integer_nodes
from boardfit.converters.targets.onnx_qdq import affine, weight_scales
from boardfit.converters.targets.onnx_view import read
from boardfit.converters.verify import open_engine
from boardfit.errors import ExportError
from boardfit.specs import Artifact, TensorSpec

SIDE = 16


class Maker:
    """A graph that grows node by node, with weights drawn at random."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.stored, self.count = [], [], 0

    def store(self, values, name=""):
        name = name or f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op, *inputs, output="", **attributes):
        output = output or f"t{self.count}"
        self.nodes.append(
            helper.make_node(op, list(inputs), [output], name=f"n{self.count}_{op}", **attributes)
        )
        self.count += 1
        return output

    def conv(self, x, ins, outs, side=1, group=1, bias=True, **options):
        weight = self.rng.normal(0, np.sqrt(2 / (ins // group * side**2)), (outs, ins // group, side, side))
        names = [self.store(weight.astype(np.float32))]
        if bias:
            names.append(self.store(self.rng.normal(0, 0.2, outs).astype(np.float32)))
        pads = [side // 2] * 4
        return self.node("Conv", x, *names, group=group, pads=pads, kernel_shape=[side] * 2, **options)

    def dense(self, x, ins, outs, output="", bias=True):
        weight = self.rng.normal(0, np.sqrt(1 / ins), (ins, outs)).astype(np.float32)
        y = self.node("MatMul", x, self.store(weight), output="" if bias else output)
        if not bias:
            return y
        return self.node("Add", y, self.store(self.rng.normal(0, 1, outs).astype(np.float32)), output=output)

    def relu6(self, x):
        return self.node("Clip", x, self.store(np.float32(0)), self.store(np.float32(6)))

    def exported(self, outputs=("scores",), shape=(None, 8)) -> Exported:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
        dims = ["batch", *shape[1:]]
        out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", [image], out, initializer=self.stored)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        proto.ir_version = 8
        path = f"models/onnx-fp32-{SIDE}.onnx"
        artifact = Artifact(
            format="onnx",
            precision="fp32",
            sizes=(SIDE,),
            files=(path,),
            inputs=(TensorSpec("image", (None, 3, SIDE, SIDE), layout="NCHW"),),
            outputs=tuple(TensorSpec(name, shape, activation="logits") for name in outputs),
        )
        return Exported(artifact=artifact, files={path: proto.SerializeToString()})


def head(m, x, channels):
    x = m.node("GlobalAveragePool", x)
    x = m.node("Squeeze", x, m.store(np.array([2, 3], np.int64)))
    return m.dense(x, channels, 8, output="scores")


def mobile():
    """Inverted residuals with ReLU6, as EfficientNet-Lite has them."""
    m = Maker()
    x = m.relu6(m.conv("image", 3, 16, 3))
    y = m.relu6(m.conv(x, 16, 32))
    y = m.relu6(m.conv(y, 32, 32, 3, group=32))
    x = m.node("Add", m.conv(y, 32, 16), x)
    head(m, x, 16)
    return m.exported()


def squeeze_excite():
    """Swish, hard-swish and squeeze-and-excitation: much between the layers stays in float."""
    m = Maker()
    x = m.conv("image", 3, 16, 3)
    x = m.node("Mul", x, m.node("Sigmoid", x))
    s = m.node("ReduceMean", x, axes=[2, 3], keepdims=1)
    s = m.node("Relu", m.conv(s, 16, 4))
    s = m.node("Sigmoid", m.conv(s, 4, 16))
    x = m.conv(m.node("Mul", x, s), 16, 24)
    x = m.node("Mul", x, m.node("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    head(m, x, 24)
    return m.exported()


def branches():
    """Concat, pools, a shuffle of channels, and a convolution without bias."""
    m = Maker()
    x = m.node("Relu", m.conv("image", 3, 16, 3, bias=False))
    a = m.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    b = m.node("AveragePool", m.conv(x, 16, 16), kernel_shape=[2, 2], strides=[2, 2])
    y = m.node("Concat", a, b, axis=1)
    y = m.node("Reshape", y, m.store(np.array([-1, 2, 16, 8, 8], np.int64)))
    y = m.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = m.node("Reshape", y, m.store(np.array([-1, 32, 8, 8], np.int64)))
    head(m, m.node("Relu", m.conv(y, 32, 16, 3, group=2)), 16)
    return m.exported()


def conv_last():
    """The classifier is a convolution, and its output a feature map."""
    m = Maker()
    x = m.relu6(m.conv("image", 3, 16, 3))
    m.node("Conv", x, m.store(m.rng.normal(0, 0.3, (8, 16, 1, 1)).astype(np.float32)), output="scores")
    return m.exported(shape=(None, 8, SIDE, SIDE))


def two_dense():
    """A hidden dense layer, one without bias, and two outputs."""
    m = Maker()
    x = m.relu6(m.conv("image", 3, 16, 3, strides=[2, 2]))
    x = m.node("Flatten", x)
    x = m.node("Relu", m.dense(x, 16 * 64, 24))
    m.dense(x, 24, 8, output="scores")
    m.dense(x, 24, 8, output="others", bias=False)
    return m.exported(outputs=("scores", "others"))


NETS = {
    "mobile": mobile,
    "squeeze-excite": squeeze_excite,
    "branches": branches,
    "conv-last": conv_last,
    "two-dense": two_dense,
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).normal(size=(24, SIDE, SIDE, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=NETS)
def pair(request, images):
    """An fp32 artifact, and its int8 one with ranges from the images."""
    twin = NETS[request.param]()
    return twin, onnx_int8.quantize(twin, ranges=ranges_of(twin, images))


def ranges_of(twin, images, method="min-max"):
    probe = onnx_int8.open_probe(twin)
    stats = observe(probe, images)
    probe.close()
    return {name: estimate(each, method) for name, each in stats.items()}


def run(exported, images):
    engine = open_engine(exported, threads=1)
    feed = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    outputs = engine.run({"image": feed})
    engine.close()
    return outputs


def noise(actual, expected):
    return float(((actual - expected) ** 2).sum() / (expected**2).sum())


def test_it_answers_like_fp32(pair, images):
    twin, quantized = pair
    for actual, expected in zip(run(quantized, images), run(twin, images), strict=True):
        assert actual.dtype == np.float32
        assert 0.0 < noise(actual, expected) < 3e-3


def test_onnx_runtime_runs_every_layer_in_integers(pair):
    twin, quantized = pair
    names = {layer.name for layer in onnx_int8.layers(twin)}
    assert integer_nodes(quantized) == names
    assert not any(layer.integer for layer in onnx_int8.layers(twin))
    assert all(layer.integer for layer in onnx_int8.layers(quantized))


def test_the_layers_of_both_are_the_same(pair):
    twin, quantized = pair
    ours = [replace(layer, integer=False) for layer in onnx_int8.layers(quantized)]
    assert ours == list(onnx_int8.layers(twin))


def test_the_file_holds_weights_of_one_byte(pair):
    twin, quantized = pair
    kinds = {tensor.data_type for tensor in read(quantized).graph.initializer if np.prod(tensor.dims) > 40}
    assert kinds == {TensorProto.INT8}
    weights = sum(layer.weights for layer in onnx_int8.layers(twin))
    stored = [numpy_helper.to_array(t) for t in read(quantized).graph.initializer]
    assert sum(a.size for a in stored if a.dtype == np.int8 and a.ndim > 1) == weights


def test_the_probe_sees_what_the_engine_answers(pair, images):
    for exported in pair:
        probe = onnx_int8.open_probe(exported)
        seen = [probe.run(image[None]) for image in images[:4]]
        probe.close()
        for spec, answered in zip(exported.artifact.outputs, run(exported, images[:4]), strict=True):
            found = np.concatenate([values[spec.name] for values in seen])
            np.testing.assert_allclose(found, answered, atol=1e-4 * np.ptp(answered))


def test_the_probes_of_both_know_the_tensors_of_every_layer(pair, images):
    probes = [onnx_int8.open_probe(exported) for exported in pair]
    twin, quantized = (probe.run(images[:1]) for probe in probes)
    for layer in onnx_int8.layers(pair[1]):
        for name in (layer.output, *layer.inputs):
            assert twin[name].shape == quantized[name].shape
            assert twin[name].dtype == quantized[name].dtype == np.float32
            assert 0.0 < noise(quantized[name], twin[name]) < 0.01


def test_one_layer_can_stay_in_float(pair, images):
    twin, _ = pair
    ranges = ranges_of(twin, images)
    for layer in onnx_int8.layers(twin):
        quantized = onnx_int8.quantize(twin, ranges=ranges, keep_float=frozenset([layer.name]))
        floats = {each.name for each in onnx_int8.layers(quantized) if not each.integer}
        assert floats == {layer.name}
        assert noise(run(quantized, images)[0], run(twin, images)[0]) < 3e-3


def test_all_layers_in_float_is_the_net_itself(pair, images):
    twin, _ = pair
    names = frozenset(layer.name for layer in onnx_int8.layers(twin))
    quantized = onnx_int8.quantize(twin, ranges={}, keep_float=names)
    for actual, expected in zip(run(quantized, images), run(twin, images), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_two_calls_write_the_same_bytes(pair, images):
    twin, quantized = pair
    again = onnx_int8.quantize(twin, ranges=ranges_of(twin, images))
    assert again.files == quantized.files
    onnx.checker.check_model(read(quantized), full_check=True)


def test_macs_and_kinds_are_counted():
    layers = {layer.name: layer for layer in onnx_int8.layers(mobile())}
    found = [(layer.kind, layer.macs, layer.weights) for layer in layers.values()]
    places = SIDE * SIDE
    assert found == [
        ("conv", places * 16 * 27, 16 * 27),
        ("conv", places * 16 * 32, 16 * 32),
        ("depthwise", places * 32 * 9, 32 * 9),
        ("conv", places * 32 * 16, 32 * 16),
        ("dense", 16 * 8, 16 * 8),
    ]


def test_a_tensor_without_a_range_is_named(images):
    twin = mobile()
    ranges = ranges_of(twin, images)
    del ranges["image"]
    with pytest.raises(ExportError, match="1 tensors have no range, the first is 'image'"):
        onnx_int8.quantize(twin, ranges=ranges)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scheme": "dynamic"}, "cannot be dynamic"), ({"keep_float": frozenset(["n9"])}, "no layer 'n9'")],
    ids=["scheme", "layer"],
)
def test_what_cannot_be_made_is_refused(options, message):
    with pytest.raises(ExportError, match=message):
        onnx_int8.quantize(mobile(), ranges={}, **options)


def test_a_damaged_file_is_named():
    twin = mobile()
    broken = Exported(artifact=twin.artifact, files={path: data[:-40] for path, data in twin.files.items()})
    with pytest.raises(ExportError, match="is damaged"):
        onnx_int8.open_probe(broken)


@pytest.mark.parametrize("dead", ["channel", "layer"])
def test_zeros_throughout_are_carried(dead, images):
    """A channel whose weights are all zero still gives its bias; a tensor of zeros stays zero."""
    twin = mobile()
    proto = read(twin)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w4", "w5"):  # of the expanding convolution, behind two clip bounds
            values = numpy_helper.to_array(tensor).copy()
            values[slice(None) if dead == "layer" else slice(0, 3)] = 0.0
            if tensor.name == "w5" and dead == "channel":
                values[:3] = 2.0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = twin.artifact.files[0]
    twin = Exported(artifact=twin.artifact, files={path: proto.SerializeToString()})
    quantized = onnx_int8.quantize(twin, ranges=ranges_of(twin, images))
    assert noise(run(quantized, images)[0], run(twin, images)[0]) < 3e-3
    assert all(layer.integer for layer in onnx_int8.layers(quantized))


@pytest.mark.parametrize("high", [6.0, 5.3, 1e-3, 700.0, np.pi])
def test_the_integers_behind_a_clip_never_exceed_it(high):
    """Else ONNX Runtime keeps the Clip, and the convolution before it runs in float."""
    scale, zero = affine(Range(0.0, high))
    assert zero == 0
    assert np.float32(255) * scale <= np.float32(high)
    assert 255.0 * float(scale) == pytest.approx(high, rel=1e-5)


@pytest.mark.parametrize("ends", [(-1.0, 3.0), (-2.7, 0.0), (0.0, 0.0), (-1e-30, 1e-30)], ids=str)
def test_zero_is_exact(ends):
    scale, zero = affine(Range(*ends))
    assert scale > 0
    low, high = (float(scale) * (end - int(zero)) for end in (0, 255))
    assert low <= ends[0] + float(scale) and high >= ends[1] - float(scale)


def pair_sums(weight):
    """Of int8 weights (outputs, inputs, ...): the sums that vpmaddubsw makes, at an input of 255."""
    deep = np.moveaxis(weight.astype(np.int64), 1, -1).reshape(len(weight), -1)
    deep = np.pad(deep, ((0, 0), (0, deep.shape[1] % 2)))
    return 255 * (deep[:, 0::2] + deep[:, 1::2])


def test_no_pair_of_weights_saturates_16_bits(pair):
    _, quantized = pair
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in read(quantized).graph.initializer}
    seen = 0
    for name, weight in stored.items():
        if weight.dtype != np.int8 or weight.ndim < 2 or (weight.ndim > 2 and weight.shape[1] == 1):
            continue
        rows = weight.T if weight.ndim == 2 else weight
        assert np.abs(pair_sums(rows)).max() < 2**15, name
        # Either a weight or a pair uses the range whole: no bit was given away.
        top = np.maximum(
            np.abs(pair_sums(rows)).max(axis=1) / 255, np.abs(rows).reshape(len(rows), -1).max(axis=1)
        )
        assert top.min() >= 126
        seen += 1
    assert seen >= 2


def test_a_bias_that_dwarfs_its_weights_still_fits_into_32_bits():
    weight = np.full((2, 4), 1e-12, np.float32)
    scale = weight_scales(weight, 0, bias=np.array([5.0, 0.0]), into=0.02)
    assert 5.0 / (scale[0] * 0.02) <= 2**30 * 1.001
    assert scale[1] == pytest.approx(2e-12 / 127)


@pytest.mark.parametrize(
    ("depthwise", "step"), [(False, 2.0 / 127), (True, 1.0 / 127)], ids=["one", "groups"]
)
def test_only_depthwise_kernels_are_spared_the_pairs(depthwise, step):
    """A convolution over one channel multiplies neighbours of its kernel in pairs."""
    weight = np.ones((2, 1, 3, 3), np.float32)
    found = weight_scales(weight, 0, bias=None, into=0.02, depthwise=depthwise)
    np.testing.assert_allclose(found, step, rtol=1e-6)
