"""Layers behind channels that went: what the others can tell of those, the readers take over."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from boardfit.converters.compress import prune
from boardfit.converters.compress import repair as repair_module
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.repair import _fit, _patches, _places, _Task, repair
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.recipe_prune import PruneSection
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec

SIDE = 16


def twins_net(*, norm: bool = True, bias: bool = False, reader: str = "convolution"):
    """Half of its first layer's channels are sums of the other half: what they say can be taken over."""
    rng = np.random.default_rng(3)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="twins")(image)
    if reader == "dense":
        x = layers.Dense(8, use_bias=bias, name="reader")(layers.Flatten()(x))
    elif reader == "separable":
        x = layers.SeparableConv2D(8, 3, padding="same", use_bias=bias, name="reader")(x)
    elif reader == "twice":
        layer = layers.Conv2D(8, 3, padding="same", use_bias=bias, name="reader")
        x = layers.Add()([layer(x), layer(layers.ReLU()(x))])
    else:
        x = layers.Conv2D(8, 3, padding="same", use_bias=bias, name="reader")(x)
    x = layers.BatchNormalization(name="norm")(x) if norm else x
    x = layers.ReLU()(x)
    x = x if reader == "dense" else layers.GlobalAveragePooling2D()(x)
    net = keras.Model(image, layers.Dense(4, name="scores")(x))
    for weight in net.weights:
        scale = 1.0 if len(weight.shape) < 2 else np.prod(weight.shape[:-1]) ** -0.5
        value = rng.normal(0.0, scale, weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    kernels, biases = net.get_layer("twins").get_weights()
    mixed = rng.normal(0.0, 0.4, (8, 8))
    kernels[..., 8:], biases[8:] = kernels[..., :8] @ mixed, biases[:8] @ mixed
    net.get_layer("twins").set_weights([kernels, biases])
    return net


def stage_of(images: ImageSet, **options) -> Prune:
    chosen = {"macs": 0.4, "criterion": "l2", "keep": 0.5, "multiple": 8, **options}
    return Prune(PruneSection(**chosen), SIDE, images=lambda side: images)


def error(model, source, images: ImageSet) -> float:
    """Squared error of the answers over their variance."""
    tensor = images.pixels.astype(np.float32) / 127.5 - 1.0
    found, expected = (np.asarray(each.reference(tensor)[0]) for each in (model, source))
    return float(((found - expected) ** 2).mean() / expected.var())


@pytest.fixture
def source_of(make_source):
    """Return a function that makes a source model of a net."""

    def make(net):
        return replace(make_source(), net=net, reference=keras_reference(net))

    return make


@pytest.mark.parametrize(
    "form",
    [{"norm": True}, {"norm": True, "bias": True}, {"norm": False, "bias": True}, {"norm": False}],
    ids=["norm", "norm and bias", "bias", "neither"],
)
def test_what_can_be_told_from_the_others_is_not_lost(form, source_of, make_images):
    source, seen = source_of(twins_net(**form)), make_images(48, seed=9)
    lost, kept = (run_stage(stage_of(make_images(96), repair=on), source).model for on in (False, True))
    assert lost.net.get_layer("twins").filters == kept.net.get_layer("twins").filters == 8
    before, after = (error(model, source, seen) for model in (lost, kept))
    assert before > 5e-3 and after < before / (100 if form["norm"] or form.get("bias") else 5), (
        before,
        after,
    )


def test_fewer_places_than_weights_do_as_well(source_of, make_images):
    """2,048 inputs and one place an image: another way to the same equations."""
    source, seen = source_of(twins_net(reader="dense")), make_images(48, seed=9)
    few = make_images(480)
    lost, kept = (run_stage(stage_of(few, repair=on), source).model for on in (False, True))
    assert error(kept, source, seen) < error(lost, source, seen) / 2


def test_both_ways_to_the_equations_agree(make_images):
    net = twins_net()
    twin = keras.models.clone_model(net)
    twin.set_weights(
        [weight + 0.1 * np.sin(np.arange(weight.size)).reshape(weight.shape) for weight in net.get_weights()]
    )
    values = np.random.default_rng(1).normal(size=(2, 10, SIDE, SIDE, 16)).astype(np.float32)
    nodes = [
        next(node for node in graph_of(each).nodes if node.operation.name == "reader") for each in (net, twin)
    ]
    task = _Task(whole=nodes[0], small=nodes[1], outputs=np.ones(8, bool), inputs=tuple(values), norm=None)
    one, other = repair_module._by_weights(task), repair_module._by_rows(task)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


def test_the_notes_say_what_was_fitted(source_of, make_images):
    result = run_stage(stage_of(make_images(96)), source_of(twins_net()))
    assert "prune: layers fitted to give what they gave before, without training: 2" in result.notes


def test_each_step_is_told_with_how_far_the_fit_is(source_of, make_images, monkeypatch):
    monkeypatch.setattr(prune, "TOLD_EVERY_S", 0.0)
    said = []
    options = PruneSection(macs=0.4, multiple=1, steps=2)
    stage = Prune(options, SIDE, images=lambda _: make_images(96), progress=said.append)
    result = run_stage(stage, source_of(twins_net()))
    fits = [note for note in result.notes if "layer" in note and "fitted" in note]
    assert [note.split(":")[0] for note in fits] == ["prune, step 1 of 2", "prune, step 2 of 2"]
    calls = len(graph_of(result.model.net).nodes)
    last = f"prune, step 2 of 2: fitting layers to what they gave before: {calls} of {calls} calls of the net"
    assert said[-1] == last
    assert "prune, step 1 of 2: choosing channels by taylor" in said


def test_as_many_images_are_looked_at_as_memory_allows(source_of, make_images, monkeypatch):
    seen = []
    monkeypatch.setattr(repair_module, "_fit", lambda task: bool(seen.append(len(task.inputs[0]))))
    # At most what the reader reads in both nets, 16 and 8 channels, and the 8 that it writes in one.
    monkeypatch.setattr(repair_module, "MEMORY", 20 * 4 * SIDE**2 * (16 + 8 + 8))
    run_stage(stage_of(make_images(96)), source_of(twins_net()))
    assert set(seen) == {20}


@pytest.mark.parametrize("reader", ["separable", "twice"])
def test_what_cannot_be_fitted_gets_new_statistics(reader, source_of, make_images, monkeypatch):
    tried = []
    monkeypatch.setattr(repair_module, "_fit", lambda task: bool(tried.append(task.small.operation.name)))
    source = source_of(twins_net(reader=reader))
    result = run_stage(stage_of(make_images(96)), source)
    assert tried == ["scores"]
    assert any("taken anew, no layer was fitted: none reads" in note for note in result.notes)
    means = [np.asarray(each.net.get_layer("norm").moving_mean) for each in (source, result.model)]
    assert not np.allclose(*means, atol=1e-3)


def test_fewer_than_five_images_fit_nothing(source_of, make_images):
    result = run_stage(stage_of(make_images(4)), source_of(twins_net()))
    assert any("no layer was fitted" in note for note in result.notes)


# Keras has no strides with dilation.
@pytest.mark.parametrize(("stride", "apart"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_what_a_layer_reads_times_its_kernel_is_what_it_gives(kernel, stride, padding, apart):
    values = np.random.default_rng(0).normal(size=(10, 11, 14, 3)).astype(np.float32)
    image = keras.Input((11, 14, 3))
    layer = layers.Conv2D(5, kernel, stride, padding=padding, dilation_rate=apart, use_bias=False)
    net = keras.Model(image, layer(image))
    (node,) = graph_of(net).nodes
    task = _Task(whole=node, small=node, outputs=np.ones(5, bool), inputs=(values, values), norm=None)
    written = keras.ops.convert_to_numpy(layer(values))
    flat, seen = layer.get_weights()[0].reshape(-1, 5), 0
    for judged in (False, True):
        for places in _places(task, judged=judged):
            assert np.allclose(_patches(layer, values, places) @ flat, written[places], atol=1e-5)
            seen += len(places[0])
    assert seen == written[..., 0].size


@pytest.mark.parametrize("confirmed", [True, False])
def test_only_a_fit_that_other_images_confirm_is_taken(confirmed):
    rng = np.random.default_rng(0)
    image = keras.Input((6,))
    whole, small = (keras.Model(image, layers.Dense(3, use_bias=False)(image)) for _ in range(2))
    inputs = rng.normal(size=(2000, 6)).astype(np.float32)
    read = inputs.copy()
    if not confirmed:
        # Every fifth image, which judges, has it the other way round.
        read[4::5] *= -1.0
    nodes = [graph_of(net).nodes[0] for net in (whole, small)]
    small.layers[-1].set_weights([whole.layers[-1].get_weights()[0] * 0.5])
    before = small.get_weights()
    task = _Task(whole=nodes[0], small=nodes[1], outputs=np.ones(3, bool), inputs=(inputs, read), norm=None)
    assert _fit(task) == confirmed
    kernel = whole.layers[-1].get_weights()[0]
    assert np.allclose(small.get_weights()[0], kernel if confirmed else before[0], atol=0.01)


def test_a_net_whose_calls_are_not_followed_gets_new_statistics(source_of, make_images, monkeypatch):
    def refuse(*_, **__):
        raise UnsupportedModel("its calls are others")

    monkeypatch.setattr(prune, "repair", refuse)
    source = source_of(twins_net())
    result = run_stage(stage_of(make_images(96)), source)
    assert any("statistics of batch normalisation were taken anew" in note for note in result.notes)
    means = [np.asarray(each.net.get_layer("norm").moving_mean) for each in (source, result.model)]
    assert not np.allclose(*means, atol=1e-3)


def test_nets_of_other_calls_are_refused(make_images):
    net = twins_net()
    with pytest.raises(UnsupportedModel, match="calls"):
        repair(
            net,
            twins_net(norm=False),
            None,
            alive=np.ones(1, bool),
            images=make_images(8),
            image=ImageSpec(),
        )
