"""Int8 for ncnn: the scales of the weights and of the activations, and the two files with them.

The PyPI package of ncnn runs int8, but has no quantizer. This one writes what ncnn's own tool
(``tools/quantize/ncnn2int8.cpp``) writes, a requantizing convolution before another one included, and
uses all 255 levels where an activation has one sign, see ``ncnn_grid``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from boardfit.converters.calibrate import Range
from boardfit.converters.quantize.records import Layer
from boardfit.converters.targets import Exported, file_stem
from boardfit.converters.targets.ncnn_graph import NcnnGraph, NcnnLayer, Numbers, float_text, read_graph
from boardfit.converters.targets.ncnn_grid import (
    ACTIVATION,
    ACTIVATION_VALUES,
    LEVELS,
    PAD_VALUE,
    REQUANTIZES,
    TAKES_INT8,
    TERM,
    Grid,
    plan,
    scale_for,
)
from boardfit.converters.targets.ncnn_probe import NcnnProbe
from boardfit.converters.targets.weight_rounding import grid_steps, rounded_weights
from boardfit.errors import ExportError

SCHEMES: tuple[str, ...] = ("int8",)

_HAS_WEIGHTS = {
    "Convolution": "conv",
    "ConvolutionDepthWise": "depthwise",
    "InnerProduct": "dense",
    "Gemm": "matmul",
    "Convolution1D": "conv",
    "ConvolutionDepthWise1D": "depthwise",
    "Deconvolution": "deconv",
    "DeconvolutionDepthWise": "deconv",
    "DeformableConv2D": "conv",
}
_NO_WINOGRAD = 1 << 6
_FEATURE_MASK = 31
_DYNAMIC = 19


def layers(exported: Exported) -> tuple[Layer, ...]:
    """Return the layers that hold weights. The net is run once, since a .param knows no shapes."""
    graph = _read(exported)
    size = exported.artifact.sizes[0]
    probe = open_probe(exported)
    try:
        tensors = probe.run(np.zeros((1, size, size, 3), np.float32))
    finally:
        probe.close()
    origin = graph.copied_from()
    return tuple(
        Layer(
            name=layer.name,
            kind=_kind(layer),
            macs=_macs(layer, tensors[layer.outputs[0]]),
            weights=layer.numbers[0].values.size,
            inputs=tuple(origin[blob] for blob in layer.inputs),
            output=layer.outputs[0],
            integer=_runs_in_int8(layer),
        )
        for layer in graph.layers
        if layer.kind in _HAS_WEIGHTS and layer.numbers and layer.numbers[0].tagged
    )


def open_probe(exported: Exported, *, threads: int = 1) -> NcnnProbe:
    """Open an artifact so that its blobs can be read; see ``records.Probe``."""
    return NcnnProbe(exported, _read(exported), threads)


def quantize(
    exported: Exported,
    *,
    ranges: Mapping[str, Range],
    keep_float: frozenset[str] = frozenset(),
    scheme: str = "int8",
) -> Exported:
    """Quantize an fp32 artifact of one size.

    Weights have a scale per output channel, in a grouped convolution per group, which is all that ncnn
    takes. What stays in float is stored in half precision, as ncnn's own tool does; so do grouped
    convolutions that no int8 convolution follows, see ``_sound``.

    Args:
        exported: The fp32 artifact.
        ranges: By blob, of at least those that a convolution or a dense layer reads.
        keep_float: Names of layers that are not quantized.
        scheme: ``int8``.

    Raises:
        ExportError: The artifact is no fp32 net of ncnn for one size, a range is missing, or there is
            no such scheme or layer.
    """
    _require_source(exported, scheme)
    graph = _read(exported)
    candidates = frozenset(layer.name for layer in graph.layers if _can_be_int8(layer))
    unknown = keep_float - {layer.name for layer in graph.layers if layer.kind in _HAS_WEIGHTS}
    if unknown:
        raise ExportError(
            f"{', '.join(sorted(unknown))} cannot be kept in float, as there is no such layer with weights: "
            f"expected names such as {', '.join(sorted(candidates)[:3])}"
        )
    integer, grids = _sound(graph, candidates - keep_float, ranges)
    origin = graph.copied_from()
    made = [
        _in_int8(layer, grids[origin[layer.inputs[0]]], grids.get(layer.outputs[0]))
        if layer.name in integer
        else _in_half(layer)
        for layer in graph.layers
    ]
    return _exported(exported, NcnnGraph(tuple(made)), scheme)


def _sound(
    graph: NcnnGraph, integer: frozenset[str], ranges: Mapping[str, Range]
) -> tuple[frozenset[str], dict[str, Grid]]:
    """Return which layers run in int8, and the grids of what they read.

    A grouped convolution that is not depthwise answers in int8, or stays in float: where it answers in float,
    ncnn 1.0.20261020 on x86-64 packs a group's channels by 4 and the layer's by 8, and returns memory that
    was never written, other numbers at each run.
    """
    while True:
        grids = plan(graph, integer, ranges)
        unsound = {
            layer.name
            for layer in graph.layers
            if layer.name in integer and _kind(layer) == "grouped" and not _answers_int8(layer, grids)
        }
        if not unsound:
            return integer, grids
        # Those before them answer in float now.
        integer -= unsound


def _answers_int8(layer: NcnnLayer, grids: Mapping[str, Grid]) -> bool:
    grid = grids.get(layer.outputs[0])
    return grid is not None and grid.chained


def _in_int8(layer: NcnnLayer, source: Grid, target: Grid | None) -> NcnnLayer:
    """Return a layer with int8 weights and its scales.

    Args:
        layer: In float.
        source: Grid of the blob that it reads.
        target: Grid of the blob that it writes, where that has one.
    """
    onto = target if target is not None and target.chained else Grid(1.0)
    outputs = layer.integer(0)
    weights = layer.numbers[0].values.astype(np.float64)
    groups = layer.integer(7, 1) if layer.kind == "ConvolutionDepthWise" else outputs
    rows = weights.reshape(groups, -1)
    steps = grid_steps(rows)
    tops = np.where(steps > 0.0, LEVELS * steps, np.abs(rows).max(axis=1))
    scales = np.array([scale_for(float(top)) for top in tops], np.float32)
    levels = (rows * scales[:, None]).reshape(outputs, -1)
    integers = rounded_weights(levels, taps=_taps(layer), one_signed=source.one_signed)
    sums = integers.sum(axis=1) / np.repeat(scales.astype(np.float64), outputs // groups)
    bias = layer.numbers[1].values.astype(np.float64) if len(layer.numbers) > 1 else np.zeros(outputs)
    bias = onto.sign * (bias + source.offset * sums) + onto.offset
    with_bias = bool(len(layer.numbers) > 1 or source.zero or onto.zero)
    stored = (
        Numbers((source.sign * onto.sign * integers).astype(np.int8).reshape(-1), tagged=True),
        *([_raw(bias)] if with_bias else []),
        _raw(scales),
        _raw([source.scale]),
        *([_raw([onto.scale])] if onto.chained else []),
    )
    return replace(_declared(layer, source, onto, with_bias=with_bias), numbers=stored)


def _declared(layer: NcnnLayer, source: Grid, onto: Grid, *, with_bias: bool) -> NcnnLayer:
    """Return a layer with the parameters of its int8 form."""
    bias = 1 if layer.kind == "InnerProduct" else 5
    term = (1 if layer.kind == "ConvolutionDepthWise" else 2) + REQUANTIZES * onto.chained
    changes: dict[str, str | None] = {f"p{bias}": str(int(with_bias)), f"p{TERM}": str(term)}
    if onto.zero:
        changes |= {f"p{ACTIVATION}": None, f"p{ACTIVATION_VALUES}": None}
    if source.zero:
        changes[f"p{PAD_VALUE}"] = float_text(source.zero)
    if _would_use_winograd(layer):
        changes[f"p{_FEATURE_MASK}"] = str(layer.integer(_FEATURE_MASK) | _NO_WINOGRAD)
    return layer.with_params(**changes)


def _would_use_winograd(layer: NcnnLayer) -> bool:
    """Return whether ncnn would compute a convolution by Winograd's F(4, 3).

    Its sums overflow on weights of more than 6 bits, to which ncnn2table cuts them; without it they keep 8.
    """
    kernel, stride, dilation = layer.integer(1), layer.integer(3, 1), layer.integer(2, 1)
    square = (layer.integer(11, kernel), layer.integer(13, stride), layer.integer(12, dilation))
    return layer.kind != "InnerProduct" and (kernel, stride, dilation) == (3, 1, 1) == square


def _in_half(layer: NcnnLayer) -> NcnnLayer:
    """Return a layer that stays in float with its weights in half precision, where they fit."""
    if layer.kind not in TAKES_INT8 or not layer.numbers:
        return layer
    weights, *others = layer.numbers
    with np.errstate(over="ignore"):
        half = weights.values.astype(np.float16)
    if not np.isfinite(half).all():
        return layer
    return replace(layer, numbers=(Numbers(half, tagged=True), *others))


def _raw(values: np.ndarray | list[float]) -> Numbers:
    return Numbers(np.asarray(values, np.float32), tagged=False)


def _can_be_int8(layer: NcnnLayer) -> bool:
    """Return whether int8 is right for a layer: in int8 ncnn pads with an integer, not with a value."""
    known = layer.kind in TAKES_INT8 and len(layer.inputs) == 1 and not layer.integer(_DYNAMIC)
    return known and not any(layer.floats(PAD_VALUE))


def _runs_in_int8(layer: NcnnLayer) -> bool:
    """Return whether ncnn computes a layer in integers: its int8 term is set, and its weights are int8."""
    return layer.kind in TAKES_INT8 and layer.integer(TERM) != 0 and layer.numbers[0].values.dtype == np.int8


def _kind(layer: NcnnLayer) -> str:
    """Return the kind: a grouped convolution is depthwise only if every group has one channel."""
    kind = _HAS_WEIGHTS[layer.kind]
    if kind != "depthwise":
        return kind
    return "depthwise" if layer.integer(6) == layer.integer(0) * _taps(layer) else "grouped"


def _taps(layer: NcnnLayer) -> int:
    """Return the area of a layer's kernel."""
    return 1 if layer.kind == "InnerProduct" else layer.integer(1) * layer.integer(11, layer.integer(1))


def _macs(layer: NcnnLayer, output: np.ndarray) -> int:
    """Return the multiplications for one image.

    Args:
        layer: One that holds weights.
        output: What it writes: (C, H, W), (rows, C) or (C,).
    """
    weights = int(layer.numbers[0].values.size)
    channels = layer.integer(8) if layer.kind == "Gemm" else layer.integer(0)
    places = max(1, output.size // max(1, channels))
    if layer.kind.startswith("Deconvolution"):
        # Every input place is multiplied, of which there are stride x stride fewer.
        stride = layer.integer(3, 1)
        places = max(1, places // (stride * layer.integer(13, stride)))
    return weights * places


def _read(exported: Exported) -> NcnnGraph:
    artifact = exported.artifact
    if artifact.format != "ncnn" or len(artifact.files) != 2 or len(artifact.sizes) != 1:
        raise ExportError(
            f"{artifact.name} ({artifact.format}, sizes {artifact.sizes}) cannot be read as an ncnn net of "
            "one size: export with format ncnn and one size"
        )
    param, weights = (exported.files[path] for path in artifact.files)
    return read_graph(param, weights)


def _require_source(exported: Exported, scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ExportError(f"ncnn has no precision {scheme!r}: expected {', '.join(SCHEMES)}")
    if exported.artifact.precision != "fp32":
        raise ExportError(
            f"{exported.artifact.name} is {exported.artifact.precision} already: quantize the fp32 artifact"
        )


def _exported(source: Exported, graph: NcnnGraph, scheme: str) -> Exported:
    stem = file_stem("ncnn", precision=scheme, sizes=source.artifact.sizes)
    files = {f"{stem}.param": graph.param, f"{stem}.bin": graph.weights}
    return Exported(artifact=replace(source.artifact, precision=scheme, files=tuple(files)), files=files)
