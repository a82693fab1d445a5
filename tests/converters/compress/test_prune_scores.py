"""What tells the channels that matter: idle ones go first, scores rank as silencing does, statistics anew."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boardfit.converters.compress.criteria import weight_scores
from boardfit.converters.compress.follow import follow
from boardfit.converters.compress.groups import structure_of
from boardfit.converters.compress.nets import batch_norms
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.recalibrate import recalibrate
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.taylor import taylor_scores
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe_prune import PruneSection
from boardfit.specs import ImageSpec

_SHAPES = runpy.run_path(str(Path(__file__).with_name("prunable.py")))
model_of, widths, SIDE = (_SHAPES[name] for name in ("model_of", "widths", "SIDE"))
NETS, scramble = _SHAPES["NETS"], _SHAPES["scramble"]


def silent(model: TrainedModel, layer: str, channels: list[int]) -> None:
    """Make channels of a convolution idle: what normalises them gives 0 for all images."""
    layers = model.net.layers
    place = next(i for i, each in enumerate(layers) if each.name == layer)
    norm = next(each for each in layers[place:] if each in batch_norms(model.net))
    weights = norm.get_weights()
    weights[0][channels], weights[1][channels] = 0.0, 0.0
    norm.set_weights(weights)


@pytest.mark.parametrize("criterion", ["taylor", "bn"])
def test_channels_that_do_nothing_go_first(criterion, make_images):
    model = model_of("plain")
    names = [layer.name for layer in model.net.layers if hasattr(layer, "filters")]
    idle = {names[0]: [1, 5], names[1]: [0, 3, 7, 8], names[2]: [20, 21]}
    for name, channels in idle.items():
        silent(model, name, channels)
    kernels = {name: np.array(model.net.get_layer(name).get_weights()[0]) for name in names}
    images = make_images()
    options = PruneSection(macs=0.25, multiple=1, criterion=criterion, repair=False)
    after = run_stage(Prune(options, SIDE, images=lambda _: images), model).model
    tensor = np.asarray(input_tensor(images.pixels[:8], model.image, SIDE))
    first = after.net.get_layer(names[0]).get_weights()[0]
    kept = [
        c
        for c in range(8)
        if any(np.array_equal(kernels[names[0]][..., c], k) for k in np.moveaxis(first, -1, 0))
    ]
    assert not set(kept) & set(idle[names[0]])
    if sum(widths(after)) == sum(widths(model)) - 8:
        assert np.allclose(after.reference(tensor)[0], model.reference(tensor)[0], atol=1e-4)


@pytest.mark.parametrize("activation", ["logits", "softmax", "sigmoid", "none"])
def test_first_order_scores_rank_as_what_silencing_really_does(activation, make_images):
    """The score of a unit goes with the change of the answer when its readers are silenced, one by one."""
    from boardfit.converters.compress.shrink import silenced

    model = model_of("plain", activation=activation)
    if activation in ("softmax", "sigmoid"):
        import keras

        net = model.net
        net = keras.Model(net.inputs, keras.layers.Activation(activation)(net.outputs[0]))
        model = replace(model, net=net, reference=keras_reference(net))
    images = make_images()
    found = structure_of(follow(model.net, SIDE), model.net)
    scores = taylor_scores(found, model, images, seed=0)
    tensor = np.asarray(input_tensor(images.pixels, model.image, SIDE))
    whole = np.asarray(model.net(tensor, training=False))
    changes = []
    units = range(0, found.count, 2)
    for unit in units:
        alive = np.arange(found.count) != unit
        changed = np.asarray(silenced(model.net, found, alive)(tensor, training=False))
        changes.append(float(((changed - whole) ** 2).sum(1).mean()))
    ranks = [np.argsort(np.argsort(values)) for values in (scores[units], changes)]
    assert np.corrcoef(*ranks)[0, 1] > 0.75


def test_scores_by_weights_are_one_on_average():
    found = structure_of(follow(scramble(NETS["squeeze_excite"]()), SIDE), NETS["squeeze_excite"]())
    for criterion in ("l1", "l2", "bn", "random"):
        scores = weight_scores(found, criterion)
        assert np.isfinite(scores).all() and scores.min() >= 0.0
        for group in found.groups:
            assert scores[group.units].mean() == pytest.approx(
                1.0, abs=0.25 if criterion == "random" else 1e-6
            )
    assert not np.array_equal(weight_scores(found, "random", seed=1), weight_scores(found, "random", seed=2))


def test_new_statistics_are_those_of_the_images(make_net, make_images):
    import keras

    net, images = make_net(), make_images(192)
    spec = ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3)
    recalibrate(net, images, spec)
    first = keras.Model(net.inputs, net.layers[1].output)
    seen = np.asarray(
        first(np.asarray(input_tensor(images.pixels, spec, images.pixels.shape[1])), training=False)
    )
    norm = batch_norms(net)[0]
    assert np.allclose(norm.moving_mean, seen.mean((0, 1, 2)), atol=1e-4)
    assert np.allclose(norm.moving_variance, seen.var((0, 1, 2)), rtol=0.02)
    assert norm.momentum == 0.8
