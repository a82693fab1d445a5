"""Layers behind channels that went: what the others can tell of those, the readers take over."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from boardfit.converters.compress import prune
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.repair import _places, _read, _Task, repair
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.recipe_prune import PruneSection
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec

SIDE = 16


def twins_net(*, norm: bool, bias: bool = False, kernel: int = 3, stride: int = 1):
    """Half of its first layer's channels are sums of the other half: what they say can be taken over."""
    rng = np.random.default_rng(3)
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="twins")(image)
    x = layers.Conv2D(8, kernel, stride, padding="same", use_bias=bias, name="reader")(x)
    x = layers.BatchNormalization(name="norm")(x) if norm else x
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
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


def test_the_notes_say_what_was_fitted(source_of, make_images):
    result = run_stage(stage_of(make_images(96)), source_of(twins_net(norm=True)))
    assert "prune: 2 layers were fitted to give what they gave before, without training" in result.notes


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
        for places in _places(task, len(flat), judged=judged):
            assert np.allclose(_read(layer, values, places) @ flat, written[places], atol=1e-5)
            seen += len(places[0])
    assert seen == written[..., 0].size


def test_a_fit_that_other_images_do_not_confirm_is_not_taken(source_of, make_images):
    """With as many weights as places, the fit learns by heart; what judges has not been seen."""
    net = twins_net(norm=False, bias=True)
    source = source_of(net)
    few = make_images(5)
    flat = ImageSet(pixels=np.full_like(few.pixels, 128), labels=None)
    seen = make_images(48, seed=9)
    kept = run_stage(stage_of(flat), source).model
    lost = run_stage(stage_of(flat, repair=False), source).model
    assert error(kept, source, seen) <= 1.5 * error(lost, source, seen)


def test_a_net_whose_calls_are_not_followed_gets_new_statistics(source_of, make_images, monkeypatch):
    def refuse(*_):
        raise UnsupportedModel("its calls are others")

    monkeypatch.setattr(prune, "repair", refuse)
    source = source_of(twins_net(norm=True))
    result = run_stage(stage_of(make_images(96)), source)
    assert any("statistics of batch normalisation were taken anew" in note for note in result.notes)
    means = [np.asarray(each.net.get_layer("norm").moving_mean) for each in (source, result.model)]
    assert not np.allclose(*means, atol=1e-3)


def test_nets_of_other_calls_are_refused(make_images):
    net = twins_net(norm=True)
    with pytest.raises(UnsupportedModel, match="calls"):
        repair(net, twins_net(norm=False), None, np.ones(1, bool), make_images(8), ImageSpec())
