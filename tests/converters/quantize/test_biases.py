from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.calibrate import Range
from boardfit.converters.quantize.biases import correct_biases
from boardfit.converters.quantize.fold import folded, kernel_of
from boardfit.converters.quantize.graph import graph_of
from boardfit.converters.quantize.simulate import rounded, run_rounded, simulate


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


def test_rounding_keeps_zero_and_the_ends():
    values = np.array([-2.0, -0.5, 0.0, 0.49, 6.0, 9.0], np.float32)
    found = rounded(values, Range(-1.0, 6.0))
    step = 7.0 / 255.0
    assert found[2] == 0.0
    assert found[0] == pytest.approx(-1.0, abs=step) and found[5] == pytest.approx(6.0, abs=step)
    assert np.abs(found[1:5] - values[1:5]).max() <= step / 2 + 1e-6
    assert not rounded(values, Range(0.0, 0.0)).any()
