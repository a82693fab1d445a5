"""TFLite in integers, through AI Edge Quantizer with ranges of our own.

``int8``: int8 weights per channel, int8 activations. ``int16x8``: int16 activations, which few kernels are
fast for. ``dynamic``: int8 weights; a kernel rounds its float input while it runs. Inputs and outputs of the
file stay float32, and so does a softmax or sigmoid at its end: in int8 it knows no probability below 1/256.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from boardfit.converters.calibrate import Range
from boardfit.converters.capture import captured_output
from boardfit.converters.quantize.records import Layer, Probe
from boardfit.converters.targets import Exported, file_stem
from boardfit.converters.targets.tflite_probe import TfliteProbe
from boardfit.converters.targets.tflite_view import Op, View, pack, tensor_name, view_of
from boardfit.converters.targets.tflite_weights import rebalance, weight_rows
from boardfit.converters.targets.weight_rounding import grid_steps
from boardfit.errors import ExportError, ToolMissing

SCHEMES = ("int8", "int16x8", "dynamic")

LARGEST_BIAS = 2**30
"""Of the int32 that a bias is stored in: the sum of products that it is added to wants room as well."""
LARGEST_RATIO = 256.0
"""XNNPACK refuses a layer whose input and weight steps multiply to so many output steps, and with it the
file (2026, ``xnn_create_convolution2d_nhwc_qs8``)."""
LARGEST_SUM = 2.0**12
"""TFLite's own Add ends the process if a step of an input is worth some 2^19 of its output, in int16 2^14."""
FINEST_CLIP = 6.0 / 2**30
"""TFLite counts the 6 of a fused ReLU6 in steps of the output, in an int32."""
_RELU6 = 3
_ROUNDS = 8
_SQUASHING = ("SOFTMAX", "LOGISTIC")
_SHAPING = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def layers(exported: Exported) -> tuple[Layer, ...]:
    """Return the layers of an artifact that multiply; see ``quantize.records``."""
    return tuple(layer for _, layer in _view(exported).layers())


def open_probe(exported: Exported, *, threads: int = 1) -> Probe:
    """Open an artifact so that its inner tensors can be read; see ``quantize.records``."""
    return TfliteProbe(_view(exported), name=exported.artifact.name, threads=threads)


def quantize(
    exported: Exported,
    *,
    ranges: Mapping[str, Range],
    keep_float: frozenset[str] = frozenset(),
    scheme: str = "int8",
) -> Exported:
    """Quantize an fp32 artifact of one size; see ``quantize.records``.

    Raises:
        ExportError: The artifact is not fp32, the scheme is none of ``SCHEMES``, a layer to leave in float
            does not exist, a tensor has no range, or the quantizer failed.
        ToolMissing: AI Edge Quantizer is not installed.
    """
    _require_tools()
    view = _view(exported)
    _check(exported, view, ranges, keep_float, scheme)
    named = {layer.name: layer.output for _, layer in view.layers()}
    recipe = _recipe(scheme, sorted({named[name] for name in keep_float} | _squashed(view, scheme)))
    data = exported.files[exported.artifact.files[0]]
    if scheme == "dynamic":
        made = _run(data, view, recipe)
    else:
        statistics = _Statistics({name: ranges[name] for name in view.activations()}, dict(_on_grids(view)))
        made = _settled(data, view, recipe, statistics)
    finished = view_of(made, name="the quantized file")
    rebalance(view, finished)
    _shorten_bias_names(finished)
    path = f"{file_stem('tflite', precision=scheme, sizes=exported.artifact.sizes)}.tflite"
    artifact = replace(exported.artifact, precision=scheme, files=(path,))
    return Exported(artifact=artifact, files={path: pack(finished.model)})


def _require_tools() -> None:
    if find_spec("ai_edge_quantizer") is None:
        raise ToolMissing(
            "int8 for tflite needs AI Edge Quantizer, which is not installed: pip install 'boardfit[convert]'"
        )


def _view(exported: Exported) -> View:
    return view_of(exported.files[exported.artifact.files[0]], name=exported.artifact.name)


def _check(
    exported: Exported, view: View, ranges: Mapping[str, Range], keep_float: frozenset[str], scheme: str
) -> None:
    name = exported.artifact.name
    if exported.artifact.precision != "fp32" or scheme not in SCHEMES:
        raise ExportError(
            f"{name} cannot be made {scheme}: expected an fp32 artifact and one of {', '.join(SCHEMES)}"
        )
    unknown = sorted(keep_float - {layer.name for _, layer in view.layers()})
    if unknown:
        raise ExportError(f"{name} has no layer {unknown[0]!r}: see layers() for the names")
    missing = [tensor for tensor in view.activations() if tensor not in ranges]
    if missing and scheme != "dynamic":
        raise ExportError(
            f"{len(missing)} tensors have no range, the first is {missing[0]!r}: calibrate on the fp32 "
            "artifact that is quantized"
        )


def _squashed(view: View, scheme: str) -> set[str]:
    """Return the outputs of the operators that stay in float at the end: what makes probabilities."""
    if scheme == "dynamic":
        return set()
    maker = {tensor: op for op in view.ops for tensor in op.outputs}
    found: set[str] = set()
    for output in view.graph.outputs:
        path = list(_upwards(output, maker))
        if path and path[-1].code in _SQUASHING:
            found |= {view.names[op.outputs[0]] for op in path}
    return found


def _upwards(tensor: int, maker: Mapping[int, Op]) -> Iterator[Op]:
    """Yield what shapes a tensor, from the last operator up, and what made it."""
    while tensor in maker:
        yield maker[tensor]
        if maker[tensor].code not in _SHAPING:
            return
        tensor = maker[tensor].inputs[0]


def _recipe(scheme: str, floats: list[str]) -> Any:
    """Return the recipe of AI Edge Quantizer: it knows operators by their outputs, each ended by ``;``."""
    from ai_edge_quantizer.qtyping import TFLOperationName as Name
    from ai_edge_quantizer.recipe_manager import RecipeManager

    rules = RecipeManager()
    if scheme == "dynamic":
        rules.add_dynamic_config(".*", Name.ALL_SUPPORTED, num_bits=8)
    else:
        bits = 16 if scheme == "int16x8" else 8
        rules.add_static_config(".*", Name.ALL_SUPPORTED, activation_num_bits=bits, weight_num_bits=8)
        for border in (Name.INPUT, Name.OUTPUT):
            rules.add_quantization_config(".*", border, None, "no_quantize")
    if floats:
        exactly = "|".join(re.escape(name) for name in floats)
        rules.add_quantization_config(f"^(?:{exactly});$", Name.ALL_SUPPORTED, None, "no_quantize")
    return rules.get_quantization_recipe()


@dataclass(frozen=True, slots=True, eq=False)
class _Statistics:
    """What AI Edge Quantizer is told to cover, by tensor name.

    Attributes:
        ranges: Of activations.
        weights: By name of a layer's weights, the largest magnitude of each output channel, of the weights'
            rank; only where it is not the one that the weights have.
    """

    ranges: Mapping[str, Range]
    weights: Mapping[str, np.ndarray]

    def to_qsv(self) -> dict[str, dict[str, np.ndarray]]:
        """Return it as AI Edge Quantizer wants it, which changes what it is given."""
        found = {}
        for name, span in self.ranges.items():
            # Any step serves a tensor that is zero throughout; 0 does not.
            high = span.high if span.high > span.low else 1.0
            found[name] = {"min": np.array(span.low, np.float32), "max": np.array(high, np.float32)}
        return found | {name: {"min": -top, "max": top} for name, top in self.weights.items()}


def _settled(data: bytes, view: View, recipe: Any, statistics: _Statistics) -> bytes:
    """Quantize, and again with wider steps where a layer cannot run or does not hold its bias."""
    for _ in range(_ROUNDS):
        made = _run(data, view, recipe, statistics)
        wider = _widened(view, view_of(made, name="the quantized file"), statistics)
        if wider is None:
            return made
        statistics = wider
    raise ExportError(
        "no steps were found at which every layer's bias fits into 32 bits and XNNPACK runs it: weights or "
        "ranges of neighbouring layers differ by many orders of magnitude; leave tflite int8 out"
    )


def _run(data: bytes, view: View, recipe: Any, statistics: _Statistics | None = None) -> bytes:
    """Return the quantized file, its outputs named as in the float one."""
    from ai_edge_quantizer.quantizer import Quantizer

    with captured_output() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            quantizer = Quantizer(data, recipe)
            result = quantizer.quantize(
                statistics.to_qsv() if statistics else None,
                enable_progress_bar=False,
                enable_progress_report=False,
            )
        except (ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
            raise ExportError(f"AI Edge Quantizer failed: {error}") from error
    assert result.quantized_model is not None, log
    return _with_output_names(bytes(result.quantized_model), view)


def _on_grids(view: View) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights that lie on an 8-bit grid already, and the magnitudes that keep them there."""
    for op, layer in view.layers():
        if layer.kind not in ("conv", "depthwise", "dense") or not view.is_constant(op.weight):
            continue
        rows = weight_rows(op, view.values(op.weight).astype(np.float64))
        steps, nearest = grid_steps(rows), np.abs(rows).max(axis=1) / 127.0
        if (steps > 1.001 * nearest).any():
            tops = _magnitudes(np.maximum(steps, nearest), view.shape(op.weight), op.code)
            yield tensor_name(view.graph.tensors[op.weight]), tops


def _widened(view: View, made: View, statistics: _Statistics) -> _Statistics | None:
    """Return wider statistics, or None where every operator of the quantized file is sound."""
    ranges, weights = dict(statistics.ranges), dict(statistics.weights)
    stretched = {name: _stretched(ranges[name], factor) for name, factor in _too_fine(made)}
    thin = dict(_overflowing(view, made))
    for name, tops in thin.items():
        weights[name] = np.maximum(tops, weights.get(name, 0.0))
    return _Statistics(ranges | stretched, weights) if stretched or thin else None


def _too_fine(made: View) -> Iterator[tuple[str, float]]:
    """Yield outputs whose steps are too fine for what feeds them, and how many times wider they must be."""
    sources = {op.outputs[0]: (op.inputs[op.data], op.weight) for op, _ in made.layers()}
    for op in made.ops:
        output = op.outputs[0]
        out = made.scales(output)
        if not len(out):
            continue
        if getattr(op.options, "fusedActivationFunction", 0) == _RELU6 and out[0] < FINEST_CLIP:
            yield made.names[output], 2.0 * FINEST_CLIP / out[0]
        if output not in sources and op.code != "ADD":
            continue
        read = sources.get(output, op.inputs)
        steps = [float(made.scales(place).max(initial=0.0)) for place in read]
        ratio = steps[0] * steps[1] if output in sources else max(steps)
        limit = LARGEST_RATIO if output in sources else LARGEST_SUM
        if ratio >= limit * out[0]:
            yield made.names[output], 2.0 * ratio / limit / out[0]


def _overflowing(view: View, made: View) -> Iterator[tuple[str, np.ndarray]]:
    """Yield weights whose steps make a bias overflow, and the magnitudes that they must cover instead."""
    for (source, _), (op, _) in zip(view.layers(), made.layers(), strict=True):
        into, scale = made.scales(op.inputs[op.data]), made.scales(op.weight)
        if not len(into) or not len(scale) or source.bias < 0 or not view.is_constant(source.weight):
            continue
        least = np.abs(view.values(source.bias).astype(np.float64)) / (into[0] * LARGEST_BIAS)
        if (least > 1.001 * scale).any():
            tops = _magnitudes(np.maximum(scale, least), view.shape(source.weight), op.code)
            yield tensor_name(view.graph.tensors[source.weight]), tops


def _stretched(span: Range, factor: float) -> Range:
    width = span.high - span.low or 1.0
    return Range(span.low, span.low + factor * width)


def _magnitudes(scale: np.ndarray, shape: tuple[int, ...], code: str) -> np.ndarray:
    """Return the largest magnitudes that int8 covers with these steps, of the weights' rank."""
    channels = [1] * len(shape)
    channels[3 if code == "DEPTHWISE_CONV_2D" else 0] = -1
    return (127.0 * scale).reshape(channels).astype(np.float32)


def _shorten_bias_names(made: View) -> None:
    """Leave a bias the first of the names of all that TensorFlow fused into it: none looks it up by them."""
    for op, _ in made.layers():
        if op.bias >= 0 and made.is_constant(op.bias):
            tensor = made.graph.tensors[op.bias]
            tensor.name = tensor_name(tensor).partition(";")[0].encode()


def _with_output_names(data: bytes, view: View) -> bytes:
    """Give the outputs of a quantized file the names that they have in the float file."""
    made = view_of(data, name="the quantized file")
    tensors = made.graph.tensors
    for place, before in zip(made.graph.outputs, view.graph.outputs, strict=True):
        name = tensor_name(view.graph.tensors[before])
        for tensor in tensors:
            if tensor_name(tensor) == name:
                tensor.name = f"{name}_integer".encode()
        tensors[place].name = name.encode()
    return pack(made.model)
