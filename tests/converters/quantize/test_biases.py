from __future__ import annotations

import keras
import numpy as np
import pytest

from boardfit.converters.calibrate import Range
from boardfit.converters.quantize.biases import correct_biases, shift_of
from boardfit.converters.quantize.fold import folded, kernel_of
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.quantize.simulate import cancelling, rounded, run_rounded, simulate, steps_of
from boardfit.converters.targets.onnx_qdq import whole_weights


def int8_means(net, images) -> np.ndarray:
    found = simulate(graph_of(net), images, lambda node, inputs, _: run_rounded(node, inputs))
    return next(iter(found.values())).mean(axis=0)


@pytest.mark.parametrize("activation", ["relu", "hard_silu"])
def test_means_return_and_kernels_stay(nets, activation):
    net, images = folded(nets.small_net(activation)), nets.images()
    nets.badly_scaled(net, 1.5)
    expected = nets.answers(net, images).mean(axis=0)
    kernels = [kernel_of(node.operation) for node in graph_of(net).nodes if node.weighted]
    before = np.abs(int8_means(net, images) - expected).max()
    correct_biases(net, images)
    after = [kernel_of(node.operation) for node in graph_of(net).nodes if node.weighted]
    assert all(np.array_equal(a, b) for a, b in zip(kernels, after, strict=True))
    # The means of the corrected net are held against those of the net before.
    found = simulate(graph_of(net), images, lambda node, inputs, _: run_rounded(node, inputs))
    assert np.abs(next(iter(found.values())).mean(axis=0) - expected).max() < 0.5 * before


@pytest.mark.parametrize("images", [4, 64])
def test_a_shift_is_believed_as_far_as_the_images_carry_it(images):
    rng = np.random.default_rng(1)
    error = rng.normal(size=(images, 5, 5, 8)).mean(axis=(1, 2), keepdims=True) * np.ones((1, 5, 5, 1))
    # Half of the channels are off by 5 standard deviations of an image's mean, half by nothing.
    error[..., :4] += 1.0
    shift = shift_of(error, np.zeros_like(error))
    plain = error.mean(axis=(0, 1, 2))
    assert (np.abs(shift) <= np.abs(plain)).all()
    assert np.abs(shift[:4] - 1.0).max() < 0.3
    assert np.abs(shift[4:]).mean() < 0.7 * np.abs(plain[4:]).mean()


def test_no_error_is_no_shift():
    still = np.zeros((3, 2, 2, 4))
    assert not shift_of(still, still).any()


LAYERS = {
    "conv": lambda: keras.layers.Conv2D(6, 3),
    "grouped": lambda: keras.layers.Conv2D(6, 3, groups=2),
    "depthwise": lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
    "dense": lambda: keras.layers.Dense(6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_rounded_as_the_onnx_quantizer_rounds_them(name):
    layer = LAYERS[name]()
    layer(np.zeros((1, 5, 5, 4), np.float32))
    kernel = np.asarray(layer.get_weights()[0])
    shape = (*kernel.shape[:2], 1, -1) if name == "depthwise" else (*[1] * (4 - kernel.ndim), *kernel.shape)
    # ONNX has outputs, inputs of their group, height, width.
    turned = kernel.reshape(shape).transpose(3, 2, 0, 1)
    steps = steps_of(kernel_of(layer))
    expected = whole_weights(turned, steps.astype(np.float32), 0).transpose(2, 3, 1, 0)
    found = cancelling(layer) / steps
    assert np.abs(found - expected.reshape(found.shape)).max() < 1e-3
    assert np.abs(found - np.rint(kernel_of(layer) / steps)).max() > 0.5


def test_rounding_keeps_zero_and_the_ends():
    values = np.array([-2.0, -0.5, 0.0, 0.49, 6.0, 9.0], np.float32)
    found = rounded(values, Range(-1.0, 6.0))
    step = 7.0 / 255.0
    assert found[2] == 0.0
    assert found[0] == pytest.approx(-1.0, abs=step) and found[5] == pytest.approx(6.0, abs=step)
    assert np.abs(found[1:5] - values[1:5]).max() <= step / 2 + 1e-6
    assert not rounded(values, Range(0.0, 0.0)).any()
