"""Rounding while training: the grids are those of the formats, gradients are those of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from boardfit.converters.calibrate import Range
from boardfit.converters.compress.fake_quant import (
    round_through,
    rounded_activation,
    rounded_kernel,
    weight_steps,
)
from boardfit.converters.quantize.simulate import rounded
from boardfit.converters.targets.ncnn_grid import Grid
from boardfit.converters.targets.weight_rounding import grid_steps


def scalars(*values: float) -> list:
    return [ops.convert_to_tensor(np.float32(value)) for value in values]


def activation(values, low, high, *, growth=0.0, as_ncnn=False, **more) -> np.ndarray:
    rows = ops.convert_to_tensor(np.full(len(values), as_ncnn))
    return np.asarray(rounded_activation(values, *scalars(low, high, growth), rows, **more))


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, 2.0, (6, 5, 5, 7)).astype(np.float32)


@pytest.mark.parametrize(
    "ends", [(0.0, 3.0), (-1.0, 3.0), (-4.0, 0.5)], ids=["relu", "both signs", "negative"]
)
def test_the_full_grid_is_that_of_calibration(ends, values):
    found = activation(values, *ends)
    expected = rounded(values, Range(*ends))
    step = (ends[1] - ends[0]) / 255
    # Within a step: both round, but a value in the very middle may go either way.
    assert np.abs(found - expected).max() <= step * 1.001
    assert (np.abs(found - expected) > step / 2).mean() < 1e-3


def test_the_symmetric_grid_is_that_of_ncnn(values):
    found = activation(values, -1.0, 3.0, as_ncnn=True)
    expected = np.clip(np.rint(values * (127 / 3.0)), -127, 127) * (3.0 / 127)
    assert np.allclose(found, expected, atol=1e-5)
    assert found.min() < -1.5


@pytest.mark.parametrize("ends", [(0.0, 3.0), (-1.0, 3.0)], ids=["relu", "both signs"])
def test_between_convolutions_the_grid_is_that_of_ncnn_counted_downwards(ends, values):
    low, high = ends
    found = activation(values, low, high, as_ncnn=True, handed_on=True)
    scale = 254 / (high - low)
    grid = Grid(scale, round(127 + low * scale), chained=True)
    integers = np.clip(np.rint(grid.zero - values * scale), -127, 127)
    assert np.abs(found - grid.values(integers)).max() <= 1.001 / scale
    assert (np.abs(found - grid.values(integers)) > 0.5 / scale).mean() < 1e-3


def test_each_image_of_a_batch_has_its_grid(values):
    rows = ops.convert_to_tensor(np.arange(6) % 2 == 1)
    found = np.asarray(rounded_activation(values, *scalars(-1.0, 3.0, 0.0), rows))
    assert np.array_equal(found[::2], activation(values[::2], -1.0, 3.0))
    assert np.array_equal(found[1::2], activation(values[1::2], -1.0, 3.0, as_ncnn=True))


def test_growth_stretches_both_ends(values):
    found = activation(values, -1.0, 3.0, growth=np.log(2.0))
    assert np.allclose(found, activation(values, -2.0, 6.0), atol=1e-5)


def test_the_gradient_is_that_of_learned_step_sizes():
    """Of the step: round(v) - v inside, the end outside; of the values: 1 inside, 0 outside."""
    import tensorflow as tf

    values = tf.constant([[0.31, 1.07, 5.0, -2.0]], tf.float32)
    growth = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = rounded_activation(values, tf.constant(0.0), tf.constant(2.0), growth, tf.constant([False]))
        total = tf.reduce_sum(found)
    by_value, by_growth = tape.gradient(total, [values, growth])
    step = 2.0 / 255
    inside = np.array([0.31, 1.07]) / step
    expected = step * ((np.rint(inside) - inside).sum() + 255.0) / np.sqrt(4 * 127)
    assert by_value.numpy().tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert float(by_growth) == pytest.approx(expected, rel=1e-3)


def test_rounding_lets_the_gradient_through():
    import tensorflow as tf

    values = tf.Variable([0.2, 1.7])
    with tf.GradientTape() as tape:
        found = tf.reduce_sum(round_through(values) * tf.constant([1.0, 3.0]))
    assert tape.gradient(found, values).numpy().tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("shape", "depthwise"),
    [((3, 3, 5, 8), False), ((1, 1, 16, 8), False), ((10, 4), False), ((3, 3, 6, 2), True)],
    ids=["convolution", "pointwise", "dense", "depthwise"],
)
def test_kernels_lie_on_a_grid_on_which_no_pair_saturates(shape, depthwise):
    kernel = np.random.default_rng(1).normal(0.0, 0.3, shape).astype(np.float32)
    steps = np.asarray(weight_steps(kernel, depthwise=depthwise))
    found = np.asarray(rounded_kernel(kernel, depthwise=depthwise))
    integers = found / steps
    assert np.abs(integers - np.rint(integers)).max() < 1e-3
    assert np.abs(found - kernel).max() <= steps.max() * 0.5001
    assert np.abs(np.rint(integers)).max() <= 127
    columns = np.rint(integers).reshape(-1, shape[-1])
    if not depthwise:
        even = len(columns) // 2 * 2
        assert np.abs(columns[0:even:2] + columns[1:even:2]).max() <= 128
        assert np.allclose(grid_steps(found.reshape(-1, shape[-1]).T), steps, rtol=1e-5)


def test_a_channel_of_zeros_stays_one():
    kernel = np.zeros((3, 3, 2, 4), np.float32)
    assert np.array_equal(np.asarray(rounded_kernel(kernel, depthwise=False)), kernel)
