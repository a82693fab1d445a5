from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.fold import folded, kernel_of
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.quantize.rounding import (
    Moments,
    choose,
    grouped,
    moments,
    patches,
    round_adaptively,
    ungrouped,
)
from boardfit.converters.quantize.simulate import steps_of
from boardfit.converters.quantize.surgery import surgeries
from boardfit.specs import ImageSpec, TensorSpec

LAYERS = {
    "same": lambda: keras.layers.Conv2D(6, 3, padding="same"),
    "strided": lambda: keras.layers.Conv2D(6, 3, 2, padding="same"),
    "valid": lambda: keras.layers.Conv2D(6, 3, 2),
    "dilated": lambda: keras.layers.Conv2D(6, 3, padding="same", dilation_rate=2),
    "grouped": lambda: keras.layers.Conv2D(6, 3, groups=2, padding="same"),
    "depthwise": lambda: keras.layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2),
    "dense": lambda: keras.layers.Dense(5),
}


def nearest(columns: np.ndarray) -> np.ndarray:
    step = steps_of(columns)
    return np.asarray(np.rint(columns / step) * step, np.float32)


def correlated(count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    mixed = rng.normal(size=(count, 3)) @ rng.normal(size=(3, width))
    return (mixed + 0.1 * rng.normal(size=(count, width)) + 1.0).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_kernel_is_what_the_layer_computes(name):
    inputs = np.random.default_rng(0).normal(size=(3, 9, 9, 4)).astype(np.float32)
    layer = LAYERS[name]()
    expected = np.asarray(layer(inputs))
    rows, answers = patches(layer, inputs, expected)
    columns = kernel_of(layer)
    weights = grouped(columns, rows.shape[1])
    found = np.einsum("rgf,gfo->rgo", rows, weights).reshape(len(rows), -1)
    assert np.abs(found - answers).max() < 1e-4
    assert np.array_equal(ungrouped(weights, columns.shape), columns)


def test_rounding_beats_the_nearest_and_reaches_the_best_of_a_small_layer():
    rows = correlated(400, 10)[:, None]
    weights = np.random.default_rng(1).normal(size=(1, 10, 4))
    steps = np.full(weights.shape, 0.3)
    of = moments(rows, (rows[:, 0] @ weights[0]), weights)
    chosen = choose(weights / steps, steps, of)
    assert (np.abs(chosen - weights / steps) < 1.0).all()

    def error(integers: np.ndarray) -> np.ndarray:
        return of.error(integers * steps - weights)[0]

    plain = error(np.rint(weights / steps))
    corners = [np.array(up)[None, :, None] for up in itertools.product((0.0, 1.0), repeat=10)]
    best = np.min([error(np.floor(weights / steps) + corner) for corner in corners], axis=0)
    found = error(chosen)
    assert (found <= plain + 1e-12).all() and found.sum() < 0.9 * plain.sum()
    assert found.sum() < 1.25 * best.sum()


def test_uncorrelated_inputs_leave_the_nearest():
    scaled = np.array([[[0.2], [1.7], [-2.4]]])
    of = Moments(np.eye(3)[None], np.zeros((1, 3, 1)))
    assert choose(scaled, np.ones_like(scaled), of).ravel().tolist() == [0.0, 2.0, -2.0]


def test_a_layers_output_error_falls(nets):
    inputs = correlated(600, 24).reshape(6, 10, 10, 24)
    image = keras.Input((10, 10, 24))
    net = folded(keras.Model(image, keras.layers.Conv2D(8, 1)(image)))
    layer = net.layers[-1]
    # Few bits make the difference plain: 8-bit steps, but one weight per channel that widens them.
    kernel, bias = layer.get_weights()
    kernel[0, 0, 0] = 20.0
    layer.set_weights([kernel, bias])
    expected = nets.answers(net, inputs)

    def error(columns: np.ndarray) -> float:
        difference = inputs.reshape(-1, 24) @ (columns - kernel.reshape(24, 8))
        return float(difference.var(axis=0).sum())

    plain = error(nearest(kernel_of(layer)))
    round_adaptively(net, inputs)
    assert error(kernel_of(layer)) < 0.5 * plain
    assert np.abs(nets.answers(net, inputs).mean() - expected.mean()) < 0.05


def test_a_quantizer_finds_the_chosen_integers_again(nets):
    net, images = folded(nets.small_net(gate=True)), nets.images()
    before = {n.label: kernel_of(n.operation) for n in graph_of(net).nodes if n.weighted}
    round_adaptively(net, images)
    moved = 0
    for node in (node for node in graph_of(net).nodes if node.weighted):
        columns = kernel_of(node.operation)
        largest = np.abs(columns).max(axis=0)
        assert np.allclose(largest, np.abs(before[node.label]).max(axis=0), rtol=1e-6)
        scaled = columns / (largest / np.float32(127.0))
        assert np.abs(scaled - np.rint(scaled)).max() < 1e-3
        moved += int((np.abs(columns - nearest(before[node.label])) > 0.5 * steps_of(columns)).sum())
    assert moved > 0


def test_surgeries_leave_the_source_and_are_done_once(nets):
    net, images = nets.small_net("hard_silu", gate=True), nets.images()
    model = TrainedModel(
        name="small",
        net=net,
        outputs=(TensorSpec("scores", (None, 6), activation="logits"),),
        image=ImageSpec(),
        reference=lambda x: [nets.answers(net, x)],
    )
    before = net.get_weights()
    made = surgeries(model, images)
    assert list(made) == ["biases", "equalize+bias", "adaptive rounding"]
    for make in made.values():
        found = make()
        assert found is make()
        assert found.net is not net and found.outputs == model.outputs
        assert np.abs(nets.answers(found.net, images) - nets.answers(net, images)).max() < 0.2
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))
