from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.calibrate import Range
from boardfit.converters.targets.ncnn_graph import NcnnGraph, NcnnLayer
from boardfit.converters.targets.ncnn_grid import Grid, plan
from boardfit.converters.targets.weight_rounding import rounded_weights

RELU, RELU6, BELOW = "9=1", "9=3 -23310=2,0.0,6.0", "9=3 -23310=2,-6.0,0.0"


def layer(text):
    kind, name, inputs, outputs, *params = text.split()
    named = dict(param.split("=") for param in params)
    blobs = tuple(inputs.split(",")) if inputs != "-" else ()
    return NcnnLayer(kind, name, blobs, tuple(outputs.split(",")), {int(k): v for k, v in named.items()})


def planned(*lines, seen=None, integer=("first", "second", "third")):
    graph = NcnnGraph(tuple(map(layer, ("Input in - image", *lines))))
    ranges = {"image": Range(-1, 1), "a": seen or Range(0, 4), "d": Range(0, 1)}
    return plan(graph, frozenset(integer), ranges)


@pytest.mark.parametrize(
    ("activation", "seen", "reader", "expected"),
    [
        (RELU, Range(0, 4), "4=1", Grid(63.5, 127, True, True)),
        (RELU6, Range(0, 6), "4=1", Grid(254 / 6, 127, True, True)),
        (RELU6, Range(0, 4), "4=1", Grid(63.5, 127, True, True)),
        ("9=2 -23310=1,0.1", Range(-0.4, 4), "4=1", Grid(31.75, 0, True, True)),
        ("9=6 -23310=2,0.2,0.5", Range(-0.3, 4), "4=1", Grid(31.75, 0, True, True)),
        ("", Range(-1, 3), "4=1", Grid(63.5, 64, True, False)),
        ("", Range(-3, 1), "4=1", Grid(127 / 3, 0, True, False)),
        ("", Range(-3, 1), "4=0", Grid(63.5, -64, True, False)),
        (BELOW, Range(-6, 0), "4=1", Grid(127 / 6, 0, True, True)),
        (BELOW, Range(-6, 0), "4=0", Grid(254 / 6, -127, True, True)),
        (RELU, Range(-0.5, 4), "4=1", Grid(31.75, 0, True, False)),
        (RELU, Range(0, 0), "4=1", Grid(1.0, 0, True, True)),
    ],
    ids=[
        "relu",
        "relu6",
        "relu6 that is never reached",
        "leaky",
        "hard swish",
        "linear, more above zero",
        "linear, more below zero, padded",
        "linear, more below zero",
        "below zero, padded",
        "below zero",
        "a range that the activation contradicts",
        "nothing but zeros",
    ],
)
def test_the_grid_between_two_convolutions(activation, seen, reader, expected):
    found = planned(
        f"Convolution first image a {activation}", f"Convolution second a logits {reader}", seen=seen
    )["a"]
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)
    assert found == Grid(found.scale, expected.zero, expected.chained, expected.one_signed)


SEPARATE = {
    "a writer in float": (("Convolution second a logits",), ("second",)),
    "another reader in float": (
        ("Split s a b,c", "Convolution second b d", "Convolution third c logits"),
        ("first", "second"),
    ),
    "a dense reader": (("InnerProduct second a logits",), ("first", "second")),
    "an addition beside": (
        ("Split s a b,c", "Convolution second b d", "BinaryOp add c,d logits"),
        ("first", "second"),
    ),
    "an output of the net": (("Split s a b,c", "Convolution second b logits"), ("first", "second")),
}


@pytest.mark.parametrize(("lines", "integer"), SEPARATE.values(), ids=SEPARATE)
def test_a_blob_that_is_needed_in_float_is_float(lines, integer):
    grids = planned(f"Convolution first image a {RELU}", *lines, integer=integer)
    assert grids["a"] == Grid(31.75, 0, chained=False, one_signed=True)


def test_a_reader_in_float_takes_no_grid():
    lines = f"Convolution first image a {RELU}", "Convolution second a logits"
    assert set(planned(*lines, integer=("first",))) == {"image"}


def test_grid_values():
    assert Grid(2.0).values(np.array([-127, 4])).tolist() == [-63.5, 2.0]
    assert Grid(2.0, 127).values(np.array([127, -127])).tolist() == [0.0, 127.0]


@pytest.mark.parametrize("one_signed", [True, False], ids=["channels have a mean", "channels have none"])
def test_errors_of_rounding_do_not_add_up(one_signed):
    weights = np.random.default_rng(0).uniform(-127, 127, (20, 72))
    weights[0, 0] = 127.0
    integers = rounded_weights(weights, taps=9, one_signed=one_signed)
    errors = integers - weights
    kernels = np.abs(errors.reshape(20, 8, 9).sum(axis=2))
    nearest = np.abs((np.round(weights) - weights).reshape(20, 8, 9).sum(axis=2))
    assert np.abs(errors).max() <= 1.0
    assert np.abs(integers).max() <= 127
    assert nearest.max() > 1.6
    assert kernels.max() <= (1.5 if one_signed else 0.5) + 1e-9
    if one_signed:
        assert np.abs(errors.sum(axis=1)).max() <= 0.5 + 1e-9


def test_weights_on_the_grid_are_left_alone():
    weights = np.random.default_rng(0).integers(-127, 128, (5, 18)).astype(np.float64)
    assert np.array_equal(rounded_weights(weights + 0.01, taps=9, one_signed=True), weights)
