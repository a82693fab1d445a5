from __future__ import annotations

import keras
import numpy as np
import pytest

from boardfit.converters.quantize.channels import groups_of
from boardfit.converters.quantize.equalize import channels_of, equalize
from boardfit.converters.quantize.fold import folded
from boardfit.converters.quantize.graph import graph_of, largest_difference
from boardfit.converters.quantize.simulate import run_rounded, simulate


def int8_error(net, expected, images) -> float:
    found = simulate(graph_of(net), images, lambda node, inputs, _: run_rounded(node, inputs))
    return float(np.mean((next(iter(found.values())) - expected) ** 2) / expected.var())


@pytest.mark.parametrize("activation", ["relu", "hard_silu"])
def test_a_badly_scaled_net_is_levelled_and_answers_as_before(nets, activation):
    net, images = folded(nets.small_net(activation, gate=activation == "hard_silu")), nets.images()
    nets.badly_scaled(net)
    before, expected = folded(net), nets.answers(net, images)
    error = int8_error(net, expected, images)
    assert equalize(net, images)
    assert largest_difference(net, before, images) < 1e-4
    assert int8_error(net, expected, images) < 0.5 * error


def test_groups_end_where_scales_do_not_commute(nets):
    def sizes(activation: str) -> list[tuple[int, int]]:
        found = groups_of(graph_of(folded(nets.small_net(activation))))
        return [(len(group.writers), len(group.readers)) for group in found]

    # The residual stream alone for hard-swish: two write it, two read it.
    assert sizes("hard_silu") == [(2, 2)]
    assert len(sizes("relu")) == 6
    assert (2, 2) in sizes("relu")


def test_a_clipped_channel_keeps_its_scale(nets):
    net = folded(nets.small_net("relu6"))
    first = next(node.operation for node in graph_of(net).nodes if node.weighted)
    kernel, bias = first.get_weights()
    kernel[..., 0] *= 40.0
    first.set_weights([kernel, bias])
    images = nets.images()
    before = folded(net)
    graph = graph_of(net)
    assert channels_of(graph, images)[graph.nodes[0].label].high[0] > 6.0
    equalize(net, images)
    assert np.array_equal(first.get_weights()[0][..., 0], kernel[..., 0])
    assert largest_difference(net, before, images) < 1e-4


def test_a_change_of_answers_is_taken_back(nets, monkeypatch):
    net, images = folded(nets.small_net()), nets.images()
    nets.badly_scaled(net)
    before = net.get_weights()
    monkeypatch.setattr("boardfit.converters.quantize.equalize.largest_difference", lambda *_: 2e-4)
    assert not equalize(net, images)
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_grouped_convolutions_are_left_alone():
    image = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 1)(image))
    net = keras.Model(image, keras.layers.Conv2D(4, 3, groups=2)(x))
    assert groups_of(graph_of(folded(net))) == ()
