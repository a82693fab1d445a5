"""Training in simulated int8: the contract, what it repairs, that it resumes, on any backend."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from boardfit.converters.calibrate import Range
from boardfit.converters.compress import qat as compress_qat
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.qat import Qat, first_ranges, simulated_answers
from boardfit.converters.compress.qat_net import QatNet, QatOptions, rounded_tensors
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.fold import folded
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.quantize.surgery import equalized_where_better
from boardfit.converters.ranges import TrainedRanges
from boardfit.errors import CompressError
from boardfit.specs import ImageSpec, TensorSpec

HERE = Path(__file__).parent
SIDE = 16
CLASSES = 4
IMAGE = ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3)


def model_of(net, activation: str = "logits", **more) -> TrainedModel:
    return TrainedModel(
        name="small",
        net=net,
        outputs=(TensorSpec(name="scores", shape=(None, CLASSES), activation=activation),),
        image=IMAGE,
        reference=keras_reference(net),
        **more,
    )


@pytest.fixture
def stage(make_images):
    """Return a function that makes the stage."""

    def make(images: ImageSet | None = None, **options) -> Qat:
        found = make_images() if images is None else images
        given = {
            "size": SIDE,
            "images": lambda side: found,
            "labelled": found.labels is not None,
            "training": Training(epochs=2, batch=16, optimizer="adamw", learning_rate=1e-3, seed=3),
        }
        return Qat(**{**given, **options})

    return make


def tensor(images: ImageSet) -> np.ndarray:
    return ((images.pixels - np.float32(127.5)) / np.float32(127.5)).astype(np.float32)


def weights(net) -> list[np.ndarray]:
    return [np.array(weight) for weight in net.get_weights()]


@pytest.mark.parametrize(
    ("activation", "labelled"),
    [("logits", True), ("softmax", False)],
    ids=["logits, labels", "softmax, none"],
)
def test_the_contract(activation, labelled, stage, make_net, make_images):
    model = model_of(make_net(softmax=activation == "softmax"), activation)
    before = weights(model.net)
    result = run_stage(stage(make_images(labelled=labelled)), model)
    after = result.model
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model.net), strict=True))
    assert model.ranges is None and isinstance(after.ranges, TrainedRanges)
    assert not after.net.trainable
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in after.net.layers)
    tensors = 4 + (activation == "softmax")
    assert result.notes[0].startswith(
        f"qat: at {SIDE} pixels 3 layers and {tensors} tensors were rounded to 8 bits while training"
    )
    inputs = tensor(make_images(8))
    assert np.allclose(after.reference(inputs)[0], np.asarray(after.net(inputs)), atol=1e-6)


def test_it_learns_weights_that_are_not_only_rounded_and_ranges(stage, make_net):
    model = model_of(make_net())
    swift = replace(stage().training, learning_rate=1e-2)
    after = run_stage(stage(training=swift), model).model
    seen = tensor(stage().images(SIDE))
    start = equalized_where_better(folded(model.net), seen)
    first = first_ranges(graph_of(start), seen)
    assert set(after.ranges.by_call) == {*first, *graph_of(after.net).outputs}
    assert any(abs(after.ranges.by_call[k].high - first[k].high) > 1e-3 for k in first)
    moved = [
        np.abs(a - b).max() / np.abs(b).max()
        for a, b in zip(weights(after.net), weights(start), strict=True)
        if b.any()
    ]
    assert max(moved) > 0.02


def spread_net(make_net, spread: float = 2.5):
    """The small net with its channels' scales spread, which float does not see and int8 does."""
    net = make_net()
    factors = np.exp(np.random.default_rng(5).normal(0.0, spread, 8)).astype(np.float32)
    norm, reader = net.layers[2], net.layers[4]
    assert isinstance(norm, layers.BatchNormalization) and isinstance(reader, layers.Conv2D)
    norm.gamma.assign(norm.gamma * factors)
    norm.beta.assign(norm.beta * factors)
    reader.kernel.assign(reader.kernel / factors[:, None])
    # Untrained, it would answer all images alike.
    net.layers[-1].kernel.assign(net.layers[-1].kernel * 10.0)
    return net


def divergence(found: np.ndarray, expected: np.ndarray) -> float:
    def log_softmax(x):
        return x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)

    p, q = log_softmax(expected), log_softmax(found)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def as_it_comes(model: TrainedModel, inputs: np.ndarray) -> TrainedModel:
    """The model with the ranges and the rounded kernels that training begins with."""
    net = folded(model.net)
    ranges = first_ranges(graph_of(net), inputs)
    QatNet(net, ranges, image=IMAGE, activation="logits", options=QatOptions(), labelled=False).settle()
    return replace(model, net=net, ranges=TrainedRanges(ranges))


def test_channels_are_equalised_before_training(stage, make_net, make_images):
    model = model_of(spread_net(make_net))
    images, seen = make_images(64, labelled=False), tensor(make_images(64, seed=9))
    expected = model.reference(seen)[0]
    still = Training(epochs=1, batch=64, optimizer="sgd", learning_rate=1e-9, seed=3)
    result = run_stage(stage(images, training=still), model)
    assert result.notes[0].endswith("after the scales of their channels were equalised")
    for as_ncnn in (False, True):
        before, found = (
            simulated_answers(each, seen, as_ncnn=as_ncnn)[0]
            for each in (as_it_comes(model, tensor(images)), result.model)
        )
        assert divergence(found, expected) < divergence(before, expected) / 3, as_ncnn


def test_training_brings_the_source_s_answers_back(stage, make_net, make_images, monkeypatch):
    # Equalised, this net would need no training.
    monkeypatch.setattr(compress_qat, "equalized_where_better", lambda net, images: net)
    model = model_of(spread_net(make_net))
    images, seen = make_images(192, labelled=False), tensor(make_images(64, seed=9))
    expected = model.reference(seen)[0]
    ruined = as_it_comes(model, tensor(images))
    training = Training(epochs=12, batch=16, optimizer="adamw", learning_rate=3e-3, seed=3)
    after = run_stage(stage(images, training=training), model).model
    for as_ncnn in (False, True):
        before, found = (simulated_answers(each, seen, as_ncnn=as_ncnn)[0] for each in (ruined, after))
        assert divergence(found, expected) < divergence(before, expected) / 3, as_ncnn


def test_only_what_formats_store_is_rounded(make_net):
    graph = graph_of(folded(make_net(softmax=True)))
    by_label = {node.label: node.kind for node in graph.nodes}
    kinds = [by_label.get(label, label) for label in rounded_tensors(graph)]
    # Two activations, but not what they read; and what the softmax reads, but not what it gives out.
    assert kinds == ["image", "ReLU", "ReLU", "GlobalAveragePooling2D", "Dense"]


def test_a_constant_is_not_rounded():
    from boardfit.converters.ingest.own_layers import Constant

    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(image)
    x = layers.Add()([x, Constant((8, 8, 4))(image)])
    net = keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    assert not any("constant" in label for label in rounded_tensors(graph_of(net)))


def test_norms_that_cannot_be_folded_keep_their_statistics_and_dropout_rests(stage, make_images):
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="before")(layers.ReLU()(x)))
    x = layers.Dropout(0.9)(layers.GlobalAveragePooling2D()(x))
    net = keras.Model(image, layers.Dense(CLASSES)(x))
    after = run_stage(stage(make_images(labelled=False)), model_of(net)).model
    norm = after.net.get_layer("before")
    assert np.array_equal(norm.moving_mean, net.get_layer("before").moving_mean)
    inputs = tensor(make_images(16))
    # With nine of ten features gone at random it could not have learned to stay where it is.
    assert divergence(np.asarray(after.net(inputs)), np.asarray(net(inputs))) < 0.01


def ends(model: TrainedModel) -> list[tuple[float, float]]:
    """The ranges in their order; layers without a name of their own are called otherwise each time."""
    return [(each.low, each.high) for each in model.ranges.by_call.values()]


def test_interrupted_and_resumed_it_ends_with_the_same_weights(stage, make_net, tmp_path):
    def training(**more) -> Training:
        return Training(epochs=3, batch=16, optimizer="adamw", learning_rate=1e-3, seed=3, **more)

    def interrupt(moment):
        if (moment.epoch, moment.step) == (2, 3):
            raise KeyboardInterrupt

    unbroken = run_stage(stage(training=training()), model_of(make_net())).model
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(training=training(folder=tmp_path, watch=interrupt)), model_of(make_net()))
    resumed = run_stage(stage(training=training(folder=tmp_path, resume=True)), model_of(make_net())).model
    assert ends(resumed) == ends(unbroken)
    assert all(np.array_equal(a, b) for a, b in zip(weights(resumed.net), weights(unbroken.net), strict=True))
    # What is finished is taken up without a step.
    moments: list = []
    done = stage(training=training(folder=tmp_path, resume=True, watch=moments.append))
    assert ends(run_stage(done, model_of(make_net())).model) == ends(unbroken)
    assert moments == []


def test_a_checkpoint_of_another_net_is_refused(stage, make_net, tmp_path):
    first = stage(training=replace(stage().training, folder=tmp_path))
    run_stage(first, model_of(make_net()))
    again = stage(training=replace(stage().training, folder=tmp_path, resume=True))
    with pytest.raises(CompressError, match="checkpoint"):
        run_stage(again, model_of(make_net(seed=2)))


def flat_net():
    image = keras.Input((None, None, 3), name="image")
    scores = layers.Softmax()(layers.GlobalAveragePooling2D()(image))
    return keras.Model(image, scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed_size": 24, "fixed_by": "flatten"}, "takes 24 pixels only, not 16"),
        ({"nets_by_size": {8: None}}, "has no net for 16 pixels"),
        ({"further": (TensorSpec("more", (None, 2)),)}, "takes one image alone"),
        ({"net": None}, "expected a net of layers"),
        (
            {"outputs": (TensorSpec(name="scores", shape=(None, CLASSES), activation="none"),)},
            "needs scores of two or more classes",
        ),
    ],
    ids=["fixed size", "no such size", "two inputs", "passed through", "no scores"],
)
def test_what_it_cannot_work_on_is_refused(change, message, stage, make_net):
    with pytest.raises(CompressError, match=message):
        run_stage(stage(), replace(model_of(make_net()), **change))


def test_a_net_of_nothing_to_round_is_refused(stage):
    with pytest.raises(CompressError, match="no convolution or dense layer"):
        run_stage(stage(), replace(model_of(flat_net(), "softmax")))


@pytest.mark.parametrize(
    "setting",
    [{"numbers": "mixed_bfloat16"}, {"recompute": True}, {"devices": 2}],
    ids=str,
)
def test_settings_that_it_would_not_follow_are_refused(setting, stage, make_net):
    with pytest.raises(CompressError, match=f"training's {next(iter(setting))} to be"):
        run_stage(stage(training=Training(epochs=1, batch=16, **setting)), model_of(make_net()))


def test_a_net_that_nothing_teaches_is_refused(stage, make_net, make_images):
    idle = stage(make_images(labelled=False), options=QatOptions(teacher=0.0))
    with pytest.raises(CompressError, match="nothing teaches the net"):
        run_stage(idle, model_of(make_net()))


@pytest.mark.parametrize("wrong", [{"labels": -1.0}, {"teacher": -0.1}, {"temperature": 0.5}], ids=str)
def test_options_check_themselves(wrong):
    with pytest.raises(CompressError):
        QatOptions(**wrong)


def test_ranges_come_back_from_what_was_written():
    ranges = TrainedRanges({"image": Range(-1.0, 2.0), "3:relu": Range(0.0, 0.5)})
    assert TrainedRanges.from_dict(ranges.to_dict()) == ranges


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"schema": 2, "ranges": {}},
        {"schema": 1, "ranges": {}},
        {"schema": 1, "ranges": {"a": [1.0, 2.0]}},
    ],
    ids=["empty", "schema", "none", "no zero"],
)
def test_wrong_ranges_are_refused(wrong):
    with pytest.raises((CompressError, ValueError)):
        TrainedRanges.from_dict(wrong)


def losses_and_ends() -> tuple[list[float], list[tuple[float, float]]]:
    """What a short training gives on the Keras backend of this process."""
    small = runpy.run_path(str(HERE / "conftest.py"))
    images, losses = small["build_images"](48), []
    training = Training(
        epochs=1,
        batch=16,
        optimizer="adamw",
        learning_rate=1e-3,
        seed=3,
        watch=lambda moment: losses.append(moment.loss),
    )
    stage = Qat(size=SIDE, images=lambda side: images, labelled=True, training=training)
    return losses, ends(run_stage(stage, model_of(small["build_net"]())).model)


def test_it_trains_on_jax_as_on_tensorflow(on_jax):
    on_jax.begin(__file__, "losses_and_ends")
    expected, ours = losses_and_ends()
    assert keras.backend.backend() == "tensorflow"
    losses, ranges = on_jax.end()
    assert losses == pytest.approx(expected, rel=1e-2)
    # A step of an output's range is a hundredth of it: one value rounded otherwise moves its end.
    assert np.allclose(ranges, ours, rtol=1e-2, atol=1e-2)
