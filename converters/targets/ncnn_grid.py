"""On which grid of 8-bit integers ncnn computes each blob.

ncnn quantizes a blob to -127..127 with one scale and no zero point, which wastes half of the levels on
what a ReLU leaves. Between two convolutions that both run in int8 the blob itself is int8 (ncnn calls the
first a requantizing one), and there the other half can be won back with what ncnn has:

    the first convolution computes  c - x  instead of x, with negated weights and a moved bias;
    its integers end at -127 and 127, so that they clip as the activation did, which is taken out;
    the next one reads  x = c - y:  negated weights again, a moved bias, and padding with c.

x is counted downwards so that c is positive: ncnn's x86 kernels fill seven of eight padded channels with
-1 when asked for a negative integer (``padding_x86.cpp``, ``v8 | (v8 << 8) | ...`` on a signed number).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boardfit.converters.calibrate import Range
from boardfit.converters.targets.ncnn_graph import NcnnGraph, NcnnLayer
from boardfit.errors import ExportError

LEVELS = 127
"""Largest integer that ncnn uses on either side."""

CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
TAKES_INT8 = (*CONVOLUTIONS, "InnerProduct")
"""Layers that ncnn can run in int8 with a fixed scale of their input."""

PADS = (4, 14, 15, 16)
PAD_VALUE, ACTIVATION, ACTIVATION_VALUES, TERM = 18, 9, 10, 8
REQUANTIZES = 100
"""Added to the int8 term of a layer whose output is int8."""

_NONE, _RELU, _CLIP = 0, 1, 3
_SMALLEST = 1e-30
_ONE_SIGNED = 0.1


@dataclass(frozen=True, slots=True)
class Grid:
    """What the integers of a blob stand for.

    Attributes:
        scale: Levels per unit.
        zero: The integer that stands for 0. Unless it is 0, the integers count downwards: the value of q
            is ``(zero - q) / scale``.
        chained: Whether the blob itself is int8, not only what its readers make of it.
        one_signed: Whether its values are, but for few, of one sign.
    """

    scale: float
    zero: int = 0
    chained: bool = False
    one_signed: bool = False

    @property
    def sign(self) -> int:
        """-1 where the integers count downwards."""
        return -1 if self.zero else 1

    @property
    def offset(self) -> float:
        """What is added to the counted value: 0, or half of the range."""
        return self.zero / self.scale

    def values(self, integers: np.ndarray) -> np.ndarray:
        """Return the float32 values of integers."""
        return np.asarray(self.sign * (integers - self.zero) / self.scale, np.float32)


def scale_for(peak: float) -> float:
    """Return levels per unit for numbers up to a peak; 1 where there is nothing to scale."""
    return float(np.float32(LEVELS / peak)) if peak > _SMALLEST else 1.0


def plan(graph: NcnnGraph, integer: frozenset[str], ranges: Mapping[str, Range]) -> dict[str, Grid]:
    """Return the grid of every blob that a layer reads in int8.

    Args:
        graph: The net; its blobs are those that are no copies.
        integer: Names of the layers that are to run in int8.
        ranges: By blob.

    Raises:
        ExportError: A range is missing.
    """
    origin, readers = graph.copied_from(), graph.readers()
    writer = {blob: layer for layer in graph.layers for blob in layer.outputs}
    grids: dict[str, Grid] = {}
    for layer in graph.layers:
        if layer.name not in integer:
            continue
        blob = origin[layer.inputs[0]]
        if blob not in ranges:
            raise ExportError(
                f"there is no range for the blob {blob!r}, which the ncnn layer {layer.name} reads: "
                "calibrate on the same fp32 artifact that is to be quantized"
            )
        if blob not in grids:
            grids[blob] = _grid(writer[blob], readers[blob], _copies(graph, blob), integer, ranges[blob])
    return grids


def grids_of(graph: NcnnGraph) -> dict[str, Grid]:
    """Return the grids of the blobs that are int8 in a quantized net."""
    readers = graph.readers()
    grids = {}
    for layer in graph.layers:
        if layer.kind in CONVOLUTIONS and layer.integer(TERM) > REQUANTIZES:
            blob = layer.outputs[0]
            padding = readers[blob][0].floats(PAD_VALUE)
            zero = round(padding[0]) if padding else 0
            grids[blob] = Grid(float(layer.numbers[-1].values[0]), zero, chained=True)
    return grids


def pads(layer: NcnnLayer) -> bool:
    """Return whether a convolution pads its input."""
    return any(layer.integer(number) for number in PADS)


def _copies(graph: NcnnGraph, blob: str) -> set[str]:
    """Return a blob and its copies that no layer reads: outputs of the net."""
    read = {name for layer in graph.layers for name in layer.inputs}
    return {copy for copy, source in graph.copied_from().items() if source == blob and copy not in read}


def _grid(
    writer: NcnnLayer, readers: Sequence[NcnnLayer], outputs: set[str], integer: frozenset[str], seen: Range
) -> Grid:
    symmetric = scale_for(max(-seen.low, seen.high))
    one_signed = min(-seen.low, seen.high) <= _ONE_SIGNED * max(-seen.low, seen.high)
    inside = all(layer.name in integer and layer.kind in CONVOLUTIONS for layer in (writer, *readers))
    if not inside or outputs:
        return Grid(symmetric, one_signed=one_signed)
    zero, scale = _downwards(writer, readers, seen)
    return Grid(scale if zero else symmetric, zero, chained=True, one_signed=one_signed)


def _downwards(writer: NcnnLayer, readers: Sequence[NcnnLayer], seen: Range) -> tuple[int, float]:
    """Return the integer for 0 and the scale that use all levels; 0 where ncnn cannot be made to."""
    if seen.high - seen.low <= _SMALLEST:
        return 0, 1.0
    scale = float(np.float32(2 * LEVELS / (seen.high - seen.low)))
    zero = round(LEVELS + seen.low * scale)
    low, high = _activation_ends(writer)
    slack = 0.01 / scale
    clips_alike = (zero - LEVELS) / scale >= low - slack and (zero + LEVELS) / scale <= high + slack
    if not clips_alike or (zero < 0 and any(map(pads, readers))):
        return 0, 1.0
    return zero, scale


def _activation_ends(layer: NcnnLayer) -> tuple[float, float]:
    """Return what a layer's activation clips its values to; nothing fits where it does more than clip."""
    kind = layer.integer(ACTIVATION)
    if kind == _NONE:
        return -math.inf, math.inf
    if kind == _RELU:
        return 0.0, math.inf
    values = layer.floats(ACTIVATION_VALUES)
    return (values[0], values[1]) if kind == _CLIP and len(values) == 2 else (math.inf, -math.inf)
