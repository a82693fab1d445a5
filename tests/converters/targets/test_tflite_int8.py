"""What the TFLite quantizer writes, and what LiteRT makes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from boardfit.converters.calibrate import Range, estimate, observe
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.naming import share_of
from boardfit.converters.targets import Exported, export, tflite_int8
from boardfit.converters.targets.tflite_view import tensor_name, view_of
from boardfit.converters.verify import open_engine
from boardfit.errors import EngineError, ExportError, ToolMissing
from boardfit.specs import ImageSpec, TensorSpec

SIDE = 24
NETS = ("residual", "modern")
TYPES = {"int8": "INT8", "int16x8": "INT16", "dynamic": "FLOAT32"}


def keras_layers():
    import keras

    keras.utils.set_random_seed(5)
    return keras, keras.layers


def residual_net():
    """Convolution, depthwise, Add, GlobalAveragePooling and a dense layer that gives logits."""
    keras, layers = keras_layers()
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(24, 3, 2, "same", activation="relu6", name="stem")(image)
    y = layers.DepthwiseConv2D(3, 1, "same", activation="relu6", name="wide")(x)
    x = layers.Add()([x, layers.Conv2D(24, 1, name="narrow")(y)])
    x = layers.Conv2D(48, 1, activation="relu", name="head")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(64, name="scores")(x)), "logits"


def modern_net():
    """Swish, squeeze-excite, hard-swish, leaky ReLU, pooling, concatenation, a deconvolution, a softmax."""
    keras, layers = keras_layers()
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(24, 3, 2, "same", activation="silu", name="stem")(image)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="relu", name="squeeze")(gate)
    x = layers.Multiply()([x, layers.Conv2D(24, 1, activation="sigmoid", name="excite")(gate)])
    y = layers.Conv2D(24, 1, activation="hard_swish", name="hard")(x)
    z = layers.MaxPooling2D(2)(layers.Conv2D(24, 1, activation="leaky_relu", name="leaky")(x))
    z = layers.Conv2DTranspose(24, 2, 2, name="up")(z)
    x = layers.AveragePooling2D(2)(layers.Concatenate()([y, z]))
    x = layers.Conv2D(32, 3, activation="tanh", name="late")(x)
    x = layers.Dense(64, name="scores")(layers.Flatten()(x))
    return keras.Model(image, layers.Softmax()(x)), "softmax"


def dead_net():
    """A layer whose output is zero throughout, and channels that are nothing but a large bias."""
    keras, layers = keras_layers()
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(16, 3, activation="relu", name="zero")(image)
    x = layers.Conv2D(16, 1, name="revived")(x)
    y = layers.Conv2D(16, 3, name="biased")(image)
    x = layers.Multiply()([layers.Add()([x, y]), layers.Conv2D(16, 3, activation="relu", name="none")(image)])
    x = layers.Concatenate()([x, y])
    net = keras.Model(image, layers.Dense(64, name="scores")(layers.GlobalAveragePooling2D()(x)))
    for name in ("zero", "none"):
        kernel, bias = net.get_layer(name).get_weights()
        net.get_layer(name).set_weights([kernel, bias - 1000.0])
    kernel, bias = net.get_layer("biased").get_weights()
    kernel[..., :4], bias[:4] = 1e-12 * kernel[..., :4], (5.0, -3.0, 2.0, 1.0)
    net.get_layer("biased").set_weights([kernel, bias])
    kernel, bias = net.get_layer("revived").get_weights()
    net.get_layer("revived").set_weights([kernel, bias + 0.5])
    return net, "logits"


def exported_of(net, activation) -> Exported:
    model = TrainedModel(
        name="net",
        net=net,
        outputs=(TensorSpec(name="scores", shape=(None, *net.output_shape[1:]), activation=activation),),
        image=ImageSpec(),
        reference=lambda x: [np.asarray(net(x))],
    )
    return export(model, format_name="tflite", sizes=(SIDE,), precision="fp32")


def images(count, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, 3)).astype(np.float32)


def ranges_of(exported) -> dict[str, Range]:
    probe = tflite_int8.open_probe(exported)
    stats = observe(probe, images(16))
    probe.close()
    return {name: estimate(each, "min-max") for name, each in stats.items()}


def run(exported, tensor) -> np.ndarray:
    engine = open_engine(exported, threads=1)
    name = exported.artifact.inputs[0].name
    answers = np.concatenate([engine.run({name: image[None]})[0] for image in tensor])
    engine.close()
    return answers


def view(exported):
    return view_of(exported.files[exported.artifact.files[0]], name="test")


def layer(exported, name):
    return next(each for each in tflite_int8.layers(exported) if each.name == name)


@pytest.fixture(scope="module")
def twins() -> dict[str, Exported]:
    makers = {"residual": residual_net, "modern": modern_net, "dead": dead_net}
    return {name: exported_of(*make()) for name, make in makers.items()}


@pytest.fixture(scope="module")
def ranges(twins) -> dict[str, dict[str, Range]]:
    return {name: ranges_of(twin) for name, twin in twins.items()}


@pytest.fixture(scope="module")
def made(twins, ranges) -> dict[tuple[str, str], Exported]:
    return {
        (name, scheme): tflite_int8.quantize(twins[name], ranges=ranges[name], scheme=scheme)
        for name in twins
        for scheme in tflite_int8.SCHEMES
    }


@pytest.mark.parametrize(("scheme", "worst"), [("int8", 0.05), ("int16x8", 0.02), ("dynamic", 0.03)])
@pytest.mark.parametrize("net", [*NETS, "dead"])
def test_answers_stay_near_those_of_the_float_file(net, scheme, worst, twins, made):
    unseen = images(8, seed=1)
    actual, expected = run(made[net, scheme], unseen), run(twins[net], unseen)
    assert np.abs(actual - expected).max() <= worst * np.abs(expected).max()


@pytest.mark.parametrize("net", NETS)
def test_int16_activations_come_nearer_than_int8(net, twins, made):
    unseen = images(8, seed=1)
    error = {
        s: np.abs(run(made[net, s], unseen) - run(twins[net], unseen)).mean() for s in ("int8", "int16x8")
    }
    assert error["int16x8"] < 0.7 * error["int8"]


@pytest.mark.parametrize("scheme", tflite_int8.SCHEMES)
@pytest.mark.parametrize("net", NETS)
def test_every_layer_runs_in_integers_between_float_borders(net, scheme, made):
    quantized = made[net, scheme]
    assert all(each.integer for each in tflite_int8.layers(quantized))
    seen = view(quantized)
    for op, _ in seen.layers():
        assert seen.type_of(op.inputs[op.data]) == TYPES[scheme]
        assert seen.type_of(op.weight) == "INT8"
        assert len(seen.scales(op.weight)) in (seen.shape(op.weight)[0], seen.shape(op.weight)[-1])
    assert {seen.type_of(tensor) for tensor in (*seen.graph.inputs, *seen.graph.outputs)} == {"FLOAT32"}
    assert quantized.artifact.precision == scheme
    assert quantized.artifact.files == (f"models/tflite-{scheme}-{SIDE}.tflite",)


def test_layers_are_described_alike_in_both_files(twins, made):
    expected = {"stem": "conv", "wide": "depthwise", "narrow": "conv", "head": "conv", "scores": "dense"}
    for exported, integer in ((twins["residual"], False), (made["residual", "int8"], True)):
        found = tflite_int8.layers(exported)
        assert {each.name: each.kind for each in found} == expected
        assert {each.integer for each in found} == {integer}
        assert [each.macs for each in found] == [
            12 * 12 * 24 * 27,
            12 * 12 * 24 * 9,
            12 * 12 * 24 * 24,
            12 * 12 * 24 * 48,
            48 * 64,
        ]
        assert [each.weights for each in found] == [24 * 27, 24 * 9, 24 * 24, 24 * 48, 48 * 64]
    strip = [replace(each, integer=False) for each in tflite_int8.layers(made["residual", "int8"])]
    assert strip == list(tflite_int8.layers(twins["residual"]))


def test_a_deconvolution_counts_its_input(twins):
    up = layer(twins["modern"], "up")
    assert (up.kind, up.macs, up.weights) == ("deconv", 6 * 6 * 24 * 24 * 4, 24 * 24 * 4)
    assert len(up.inputs) == 1


@pytest.mark.parametrize("scheme", tflite_int8.SCHEMES)
@pytest.mark.parametrize("net", NETS)
def test_probes_of_both_files_read_the_same_tensors(net, scheme, twins, made):
    image = images(1, seed=2)
    probes = tflite_int8.open_probe(twins[net]), tflite_int8.open_probe(made[net, scheme])
    expected, actual = (probe.run(image) for probe in probes)
    assert expected.keys() == actual.keys()
    assert {each.output for each in tflite_int8.layers(made[net, scheme])} <= actual.keys()
    for name, values in expected.items():
        assert actual[name].dtype == np.float32
        assert actual[name].shape == values.shape
        assert np.abs(actual[name] - values).max() <= 0.1 * np.abs(values).max() + 1e-6, name
    output = twins[net].artifact.outputs[0].name
    assert np.array_equal(actual[output], run(made[net, scheme], image))
    for probe in probes:
        probe.close()
        probe.close()


def test_a_closed_probe_says_so(twins):
    probe = tflite_int8.open_probe(twins["residual"])
    probe.close()
    with pytest.raises(EngineError, match="closed"):
        probe.run(images(1))


def test_inner_tensors_of_an_integer_file_lie_on_its_grid(made, ranges):
    quantized = made["residual", "int8"]
    name = layer(quantized, "stem").output
    values = tflite_int8.open_probe(quantized).run(images(1))[name]
    span = ranges["residual"][name]
    assert 8 < len(np.unique(values)) <= 256
    assert values.min() >= span.low - 1e-3
    assert values.max() <= span.high + 1e-3


@pytest.mark.parametrize("scheme", tflite_int8.SCHEMES)
def test_a_layer_can_be_left_in_float(scheme, twins, ranges):
    kept = tflite_int8.quantize(
        twins["residual"], ranges=ranges["residual"], keep_float=frozenset({"wide", "scores"}), scheme=scheme
    )
    assert {each.name for each in tflite_int8.layers(kept) if not each.integer} == {"wide", "scores"}
    unseen = images(4, seed=1)
    assert np.allclose(run(kept, unseen), run(twins["residual"], unseen), atol=0.1)
    assert tflite_int8.open_probe(kept).run(unseen[:1]).keys() == ranges["residual"].keys()


def test_a_layer_in_float_alone_is_exact(twins, ranges):
    names = frozenset(each.name for each in tflite_int8.layers(twins["residual"]))
    kept = tflite_int8.quantize(twins["residual"], ranges=ranges["residual"], keep_float=names)
    assert not any(each.integer for each in tflite_int8.layers(kept))


@pytest.mark.parametrize("scheme", tflite_int8.SCHEMES)
@pytest.mark.parametrize("name", ["stem", "wide", "narrow", "scores"])
def test_errors_of_rounding_weights_cancel(name, scheme, twins, made):
    before, after = view(twins["residual"]), view(made["residual", scheme])
    (source, kind), (op, _) = next(
        pair for pair in zip(before.layers(), after.layers(), strict=True) if pair[0][1].name == name
    )
    axis = 3 if kind.kind == "depthwise" else 0
    steps = np.moveaxis(before.values(source.weight), axis, -1) / after.scales(op.weight)
    integers = np.moveaxis(after.values(op.weight), axis, -1)
    errors = (integers - steps.astype(np.float64)).reshape(-1, len(after.scales(op.weight)))
    assert np.abs(errors).max() < 1.0 + 1e-4
    assert np.abs(errors.sum(axis=0)).max() <= 0.5 + 1e-3
    if name == "stem":
        taps = (integers - steps).sum(axis=(0, 1))
        # Rounded to nearest, nine errors add up to 0.7 in the mean.
        assert np.abs(taps).max() <= 1.5 + 1e-3
        assert np.abs(taps).mean() < 0.5


def test_a_softmax_at_the_end_stays_in_float(made):
    seen = view(made["modern", "int8"])
    assert Counter(op.code for op in seen.ops)["SOFTMAX"] == 1
    softmax = next(op for op in seen.ops if op.code == "SOFTMAX")
    assert seen.type_of(softmax.inputs[0]) == seen.type_of(softmax.outputs[0]) == "FLOAT32"
    assert np.allclose(run(made["modern", "int8"], images(3)).sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_zero_activations_and_channels_of_bias_alone_are_held(scheme, twins, made):
    seen = view(made["dead", scheme])
    for op, _ in seen.layers():
        assert (seen.scales(op.weight) > 0.0).all()
        if op.bias >= 0:
            largest = np.abs(seen.values(op.bias).astype(np.int64)).max()
            assert largest <= 1.01 * tflite_int8.LARGEST_BIAS
        into, out = seen.scales(op.inputs[op.data])[0], seen.scales(op.outputs[0])[0]
        assert into * seen.scales(op.weight).max() / out < tflite_int8.LARGEST_RATIO
    image = images(1, seed=3)
    name = layer(twins["dead"], "biased").output
    actual = tflite_int8.open_probe(made["dead", scheme]).run(image)[name]
    expected = tflite_int8.open_probe(twins["dead"]).run(image)[name]
    assert np.abs(actual - expected)[..., :4].max() < 0.05


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
@pytest.mark.parametrize("strange", ["tiny", "wide", "tiny sum"])
def test_strange_ranges_do_not_keep_the_file_from_running(strange, scheme, twins, ranges):
    # XNNPACK refuses a layer whose products are worth more than 256 steps of its output, and an Add whose
    # output is that fine ends the process: it stands between Add's inputs and "head".
    summed = layer(twins["residual"], "head").inputs[0]
    spans = {
        "tiny": {name: Range(0.0, 1e-9) for name in ranges["residual"]},
        "wide": {name: Range(-1e6, 1e6) for name in ranges["residual"]},
        "tiny sum": ranges["residual"] | {summed: Range(0.0, 1e-7)},
    }
    quantized = tflite_int8.quantize(twins["residual"], ranges=spans[strange], scheme=scheme)
    assert np.isfinite(run(quantized, images(2))).all()


def test_the_same_order_gives_the_same_bytes(twins, ranges, made):
    again = tflite_int8.quantize(twins["modern"], ranges=ranges["modern"])
    assert again.files == made["modern", "int8"].files


def test_ranges_are_not_changed(twins, ranges):
    before = dict(ranges["dead"])
    tflite_int8.quantize(twins["dead"], ranges=ranges["dead"])
    assert ranges["dead"] == before


def test_buffers_lie_in_the_flatbuffer_at_multiples_of_16(made):
    from ai_edge_litert import schema_py_generated as schema

    data = made["residual", "int8"].files[made["residual", "int8"].artifact.files[0]]
    model = schema.Model.GetRootAs(data, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    assert all(buffer.Offset() <= 1 for buffer in buffers)
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(starts) > 5
    assert all(start % 16 == 0 for start in starts)


def test_equal_vectors_are_written_once(made):
    exported = made["residual", "int8"]
    data = exported.files[exported.artifact.files[0]]
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    places = {}
    for number in range(graph.TensorsLength()):
        steps = graph.Tensors(number).Quantization()
        if steps is not None and steps.ZeroPointLength() > 1:
            zeros = steps.ZeroPointAsNumpy()
            places.setdefault(zeros.tobytes(), set()).add(zeros.__array_interface__["data"][0])
    assert places and all(len(found) == 1 for found in places.values())
    wide = view(exported)
    biases = [tensor_name(wide.graph.tensors[op.bias]) for op, _ in wide.layers() if op.bias >= 0]
    assert biases and not any(";" in name for name in biases)


def test_a_large_file_shrinks_as_the_name_int8_demands():
    keras, layers = keras_layers()
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(256, 3, 2, activation="relu")(image)
    x = layers.Conv2D(256, 3, 2, activation="relu")(x)
    net = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    twin = exported_of(net, "logits")
    quantized = tflite_int8.quantize(twin, ranges=ranges_of(twin))
    assert share_of(tflite_int8.layers(quantized), quantized, twin).may_be_called_int8


def test_a_tensor_without_a_range_is_named(twins, ranges):
    some = dict(list(ranges["residual"].items())[1:])
    with pytest.raises(ExportError, match=r"1 tensors have no range.*calibrate"):
        tflite_int8.quantize(twins["residual"], ranges=some)


def test_dynamic_needs_no_ranges(twins, made):
    again = tflite_int8.quantize(twins["residual"], ranges={}, scheme="dynamic")
    assert again.files == made["residual", "dynamic"].files


def test_an_unknown_layer_is_named(twins, ranges):
    with pytest.raises(ExportError, match="no layer 'stm'"):
        tflite_int8.quantize(twins["residual"], ranges=ranges["residual"], keep_float=frozenset({"stm"}))


def test_an_unknown_scheme_is_refused(twins, ranges):
    with pytest.raises(ExportError, match=r"int4.*int8, int16x8, dynamic"):
        tflite_int8.quantize(twins["residual"], ranges=ranges["residual"], scheme="int4")


def test_a_quantized_artifact_is_not_quantized_again(made, ranges):
    with pytest.raises(ExportError, match="expected an fp32 artifact"):
        tflite_int8.quantize(made["residual", "int8"], ranges=ranges["residual"])


def test_a_file_of_another_format_is_refused(twins):
    artifact = twins["residual"].artifact
    with pytest.raises(ExportError, match="TFL3"):
        tflite_int8.layers(Exported(artifact=artifact, files={artifact.files[0]: b"nothing at all"}))


def test_a_missing_quantizer_is_named_with_the_command(twins, monkeypatch):
    monkeypatch.setattr(tflite_int8, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match="pip install"):
        tflite_int8.quantize(twins["residual"], ranges={}, scheme="dynamic")
