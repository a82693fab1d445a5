from __future__ import annotations

import keras
import numpy as np
import pytest

from boardfit.converters.quantize.fold import folded
from boardfit.converters.quantize.graph import graph_of, largest_difference
from boardfit.converters.quantize.surgery import folded_exactly
from boardfit.errors import ExportError


def kinds(net) -> list[str]:
    return [node.kind for node in graph_of(net).nodes]


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_silu", "silu"])
def test_a_folded_net_answers_as_before_without_batch_norm(nets, activation):
    net = nets.small_net(activation, gate=True)
    before = net.get_weights()
    found = folded(net)
    assert "BatchNormalization" not in kinds(found)
    assert largest_difference(found, net, nets.images()) < 1e-5
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_activations_become_layers_of_their_own(nets):
    found = folded(nets.small_net())
    weighted = [node.operation for node in graph_of(found).nodes if node.weighted]
    assert len(weighted) == 8
    assert all(layer.use_bias and layer.activation is keras.activations.linear for layer in weighted)


def shared_convolution():
    image = keras.Input((8, 8, 3))
    layer, norm = keras.layers.Conv2D(3, 1, use_bias=False), keras.layers.BatchNormalization()
    return keras.Model(image, keras.layers.Flatten()(norm(layer(layer(image)))))


def normed_twice_read():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(image)
    return keras.Model(image, keras.layers.Add()([x, keras.layers.BatchNormalization()(x)]))


def normed_before():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(4, 3)(keras.layers.BatchNormalization()(image)))


@pytest.mark.parametrize("make", [shared_convolution, normed_twice_read, normed_before])
def test_what_cannot_be_folded_stays(nets, make):
    net = make()
    nets.settle(net)
    found = folded(net)
    assert "BatchNormalization" in kinds(found)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    assert largest_difference(found, net, images) < 1e-5


def test_a_fold_that_changes_answers_is_refused(nets, monkeypatch):
    net = nets.small_net()

    def damaged(source):
        found = folded(source)
        found.layers[-1].bias.assign(found.layers[-1].bias + 1.0)
        return found

    monkeypatch.setattr("boardfit.converters.quantize.surgery.folded", damaged)
    with pytest.raises(ExportError, match="changed the answers"):
        folded_exactly(net, nets.images())
