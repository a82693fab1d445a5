"""Trained ranges in every format: the artifacts answer as the training simulated them."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from boardfit.converters.calibrate import Range, estimate, observe
from boardfit.converters.compress.fake_quant import rounded_kernel
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.qat import Qat, simulated_answers
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.bench import find_quantizer, run_exported
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.quantize.outcome import Shelf
from boardfit.converters.quantize.photos import choose_pictures
from boardfit.converters.quantize.rescue import climb
from boardfit.converters.quantize.stage import Order, fingerprint, quantize_all
from boardfit.converters.quantize.trained import QatOrder, trained_ranges
from boardfit.converters.ranges import TrainedRanges
from boardfit.converters.recipe import ParitySection, QuantizeSection
from boardfit.converters.targets import export
from boardfit.converters.targets.ncnn_graph import read_graph
from boardfit.converters.targets.onnx_qdq import QUANTIZED
from boardfit.converters.targets.tflite_view import view_of
from boardfit.converters.targets.weight_rounding import grid_steps
from boardfit.specs import ImageSpec, TensorSpec

FORMATS = ("onnx", "tflite", "ncnn")
SIZE = 12
IMAGE = ImageSpec(crop=1.0, mean=(127.5,) * 3, std=(64.0,) * 3)


def model_of(net) -> TrainedModel:
    return TrainedModel(
        name="small",
        net=net,
        outputs=(TensorSpec("scores", (None, 6), activation="logits"),),
        image=IMAGE,
        reference=keras_reference(net),
    )


def pixels(count: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def inputs(count: int = 24, seed: int = 1) -> np.ndarray:
    return ((pixels(count, seed) - np.float32(127.5)) / np.float32(64.0)).astype(np.float32)


@pytest.fixture(scope="module", params=["relu", "relu6, gate", "hard_silu, gate"])
def trained(request, nets) -> TrainedModel:
    """A net after a few steps of training: a residual sum, a depthwise convolution, squeeze-excite."""
    activation, _, gate = request.param.partition(", ")
    training = Training(epochs=2, batch=16, optimizer="adamw", learning_rate=1e-3)
    images = ImageSet(pixels=pixels())
    stage = Qat(size=SIZE, images=lambda side: images, labelled=False, training=training)
    return run_stage(stage, model_of(nets.small_net(activation, gate=bool(gate)))).model


def in_int8(model: TrainedModel, format_name: str, *, ranges_of: TrainedModel | None = None):
    """The int8 artifact with the ranges that a model learned, extremes where it has none."""
    quantizer = find_quantizer(format_name)
    twin = export(model, format_name=format_name, sizes=(SIZE,), precision="fp32")
    probe = quantizer.open_probe(twin)
    seen = {name: estimate(each, "min-max") for name, each in observe(probe, inputs()).items()}
    probe.close()
    learned = trained_ranges(ranges_of or model, twin, quantizer, inputs(1))
    return quantizer.quantize(twin, ranges={**seen, **learned}), learned


def error(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest and the mean difference, over the range of what is expected."""
    difference = np.abs(found - expected) / np.ptp(expected)
    return float(difference.max()), float(difference.mean())


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_artifact_answers_as_training_simulated_it(trained, format_name):
    made, _ = in_int8(trained, format_name)
    found = run_exported(made, inputs())[0]
    expected = simulated_answers(trained, inputs(), as_ncnn=format_name == "ncnn")[0]
    worst, mean = error(found, expected)
    # Where a value stands in the middle between two integers, engines may go either way. TFLite rounds the
    # outputs as well.
    assert worst < 0.02 and mean < 0.003


@pytest.mark.parametrize("format_name", FORMATS)
def test_narrow_ranges_are_followed_where_float_is_left_behind(trained, format_name):
    """Ranges a third as wide clip a lot: only what has these very ranges answers like that."""
    narrow = {
        label: each if label == "image" else Range(each.low / 3, each.high / 3)
        for label, each in trained.ranges.by_call.items()
    }
    clipped = replace(trained, ranges=TrainedRanges(narrow))
    made, learned = in_int8(clipped, format_name)
    found = run_exported(made, inputs())[0]
    expected = simulated_answers(clipped, inputs(), as_ncnn=format_name == "ncnn")[0]
    wide = simulated_answers(trained, inputs(), as_ncnn=format_name == "ncnn")[0]
    assert len(learned) >= len(narrow)
    assert error(wide, expected)[1] > 0.1
    assert error(found, expected)[1] < error(wide, expected)[1] / 5


def test_a_format_s_tensors_are_known_by_their_values(trained):
    """All that training rounded is found in every format; ncnn computes through what a sigmoid reads."""
    graph = graph_of(trained.net)
    before_sigmoid = {
        node.inputs[0]
        for node in graph.nodes
        if getattr(node.operation, "activation", None) is keras.activations.sigmoid
    }
    ranges = trained.ranges.by_call
    for format_name in FORMATS:
        _, learned = in_int8(trained, format_name)
        highs = {each.high for each in learned.values()}
        lost = {label for label, each in ranges.items() if each.high not in highs}
        assert lost <= (before_sigmoid if format_name == "ncnn" else set())


def test_a_model_without_ranges_gives_none(nets):
    model = model_of(nets.small_net())
    twin = export(model, format_name="onnx", sizes=(SIZE,), precision="fp32")
    assert trained_ranges(model, twin, find_quantizer("onnx"), inputs(1)) == {}


def test_ranges_of_another_net_are_not_taken(trained, nets):
    """Values decide: what a net does not compute has none of its ranges, whatever it is called."""
    keras.utils.set_random_seed(11)
    other = keras.models.clone_model(trained.net)
    foreign = replace(trained, net=other)
    _, learned = in_int8(trained, "onnx", ranges_of=foreign)
    assert set(learned) == {"image"}


def integers_of(made) -> list[np.ndarray]:
    """Every layer's int8 weights in ascending order, which no layout changes."""
    if made.artifact.format == "onnx":
        import onnx
        from onnx import numpy_helper

        graph = onnx.load_from_string(made.files[made.artifact.files[0]]).graph
        found = [
            numpy_helper.to_array(each) for each in graph.initializer if each.name.endswith(f"w{QUANTIZED}")
        ]
    elif made.artifact.format == "tflite":
        view = view_of(made.files[made.artifact.files[0]], name="it")
        found = [view.values(op.weight) for op, _ in view.layers()]
    else:
        parsed = read_graph(*(made.files[path] for path in made.artifact.files))
        tagged = [each.numbers[0].values for each in parsed.layers if each.numbers and each.numbers[0].tagged]
        # A convolution that counts downwards has its weights negated.
        found = [np.abs(each) for each in tagged]
    return sorted(
        (np.sort(np.abs(each.astype(int)), axis=None) for each in found), key=lambda x: (x.size, x.sum())
    )


def test_all_formats_have_the_integers_of_the_training(trained):
    expected = []
    for node in graph_of(trained.net).nodes:
        if node.weighted:
            kernel = np.asarray(node.operation.weights[0])
            rows = np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)
            if isinstance(node.operation, layers.DepthwiseConv2D):
                rows = kernel.reshape(-1, kernel.shape[2] * kernel.shape[3]).T
            steps = grid_steps(rows)
            assert (steps > 0.0).all()
            expected.append(np.sort(np.abs(np.rint(rows / steps[:, None])).astype(int), axis=None))
    expected.sort(key=lambda x: (x.size, x.sum()))
    for format_name in FORMATS:
        found = integers_of(in_int8(trained, format_name)[0])
        assert len(found) == len(expected)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)), format_name


@pytest.mark.parametrize("largest", [127, 100, 64])
def test_the_step_of_a_grid_is_found(largest):
    rng = np.random.default_rng(0)
    integers = rng.integers(-largest, largest + 1, (20, 18))
    integers[:, 0] = largest
    steps = np.exp(rng.normal(0.0, 3.0, 20))
    rows = (integers * steps[:, None]).astype(np.float32)
    assert np.allclose(grid_steps(rows), steps, rtol=1e-5)


def test_a_row_on_no_grid_has_no_step():
    rows = np.random.default_rng(0).normal(size=(50, 27)).astype(np.float32)
    rows[7] = 0.0
    assert not grid_steps(rows).any()


def test_rounding_twice_changes_nothing_that_formats_see():
    kernel = np.random.default_rng(2).normal(size=(3, 3, 6, 10)).astype(np.float32)
    once = np.asarray(rounded_kernel(kernel, depthwise=False)).reshape(-1, 10).T
    steps = grid_steps(once)
    assert np.abs(once / steps[:, None] - np.rint(once / steps[:, None])).max() < 1e-3


def names(state) -> list[str]:
    return [step.name for step in state.steps]


@pytest.fixture
def cured(fake_format):
    """What makes the fake net with its loud channel brought down, and counts how often."""
    weights = fake_format.weights(ruined=True)
    equal = {
        **weights,
        "second": weights["second"] * np.where(np.arange(24) == 0, 5e-4, 1.0),
        "third": weights["third"] * np.where(np.arange(24) == 0, 2e3, 1.0)[:, None],
    }
    calls = []

    def make():
        calls.append(1)
        return fake_format.export(equal, 16), {}

    make.calls = calls
    return make


def test_training_comes_before_float_layers_and_ends_the_ladder(make_bench, cured):
    state = climb(replace(make_bench(ruined=True), qat=cured), scheme="int8")
    assert names(state) == ["ranges", "qat"]
    assert state.verdict.passed and not state.best.keep_float


def test_nothing_is_trained_where_the_gate_is_met(make_bench, cured):
    state = climb(replace(make_bench(), qat=cured), scheme="int8")
    assert names(state) == ["ranges"] and not cured.calls


def test_it_is_trained_always_where_that_is_asked_for(make_bench, cured):
    state = climb(replace(make_bench(), qat=cured, qat_always=True), scheme="int8")
    assert names(state) == ["ranges", "qat"]


@pytest.mark.parametrize("scheme", ["dynamic"])
def test_other_schemes_are_not_trained_for(make_bench, cured, scheme):
    climb(replace(make_bench(ruined=True), qat=cured, qat_always=True), scheme=scheme)
    assert not cured.calls


def test_training_is_no_rescue_and_goes_without_one(make_bench, cured):
    state = climb(replace(make_bench(ruined=True), qat=cured), scheme="int8", rescue=False)
    assert names(state) == ["ranges", "qat"] and state.verdict.passed


def test_what_training_made_worse_is_not_kept(make_bench, fake_format):
    weights = fake_format.weights(ruined=True)
    worse = fake_format.export({**weights, "third": -weights["third"]}, 16)
    state = climb(replace(make_bench(ruined=True), qat=lambda: (worse, {})), scheme="int8")
    assert names(state) == ["ranges", "qat", "float layers"]
    assert [step.kept for step in state.steps] == [True, False, True]


def test_trained_ranges_are_taken_as_they_are(make_bench, cured):
    exported, _ = cured()
    known = {"a": Range(-0.5, 0.5)}
    bench = replace(make_bench(ruined=True), qat=lambda: (exported, known), qat_always=True)
    state = climb(bench, scheme="int8", rescue=False)
    assert state.steps[1].detail.startswith("training (1 of ")
    assert state.steps[1].kept is False or state.best.ranges["a"] == known["a"]


@pytest.fixture
def order(many_pictures, fake_model, fake_format):
    """Return a function that makes an order over the fake format, with a training that counts its calls."""

    def make(**more) -> Order:
        return Order(
            model=fake_model(fake_format.weights(ruined=True)),
            formats=("fake",),
            sizes=(16,),
            schemes=("int8",),
            fp16_too=False,
            pictures=choose_pictures(str(many_pictures)),
            options=QuantizeSection(),
            parity=ParitySection(),
            **more,
        )

    return make


def test_a_net_is_trained_once_at_its_size_and_what_is_finished_is_taken_up(order, fake_format, tmp_path):
    calls = []

    def train(model, size):
        calls.append(size)
        return model

    asked = order(qat=QatOrder(always=False, train=train, about={"epochs": 1}))
    tools = fake_format.tools(fake_format.quantizer(), fake_format.weights(ruined=True))
    outcomes = quantize_all(asked, Shelf(tmp_path), tools=tools)
    assert calls == [16]
    assert [step.name for step in outcomes[0].steps][:2] == ["ranges", "qat"]
    quantize_all(asked, Shelf(tmp_path), tools=tools)
    assert calls == [16]


def test_another_training_does_not_take_old_outcomes(order):
    def asked(**about) -> str:
        return fingerprint(order(qat=QatOrder(always=False, train=lambda m, s: m, about=about)))

    assert len({asked(epochs=1), asked(epochs=2), fingerprint(order())}) == 3
