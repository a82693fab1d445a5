"""Cross-layer equalisation: neighbouring layers share scales per channel that leave its answers alone.

M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(https://arxiv.org/abs/1906.04721), section 4.1. There weights had one range per tensor, and the scales
equalise those. All our formats give weights a range per output channel, so what is left to equalise are
activations, against the weights that read them: among some compromises, as in G. Xiao et al., "SmoothQuant",
ICML 2023 (https://arxiv.org/abs/2211.10438), the one is taken that a model of the rounding noise likes best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boardfit.converters.calibrate import LEVELS
from boardfit.converters.quantize.channels import Group, groups_of
from boardfit.converters.quantize.fold import kernel_of, set_kernel
from boardfit.converters.quantize.graph import Graph, Node, forget, graph_of, largest_difference, run_node
from boardfit.converters.quantize.simulate import WEIGHT_STEPS, some_of

EXACT = 1e-4
"""Largest difference of answers, relative to the largest answer, that counts as none."""
CEILING_MARGIN = 1.5
"""ReLU6 scales like ReLU where a channel stays below 6: so far above what calibration saw."""
_COMPROMISES = ((0.25, 0.0), (0.5, 0.0), (0.75, 0.0), (1.0, 0.0), (0.5, 0.5), (0.75, 0.25))
"""Powers of the activations' and of the weights' magnitude in a scale."""
_WIDEST = 1e3
_CHECKED = 16
_GRAIN = 8
"""Scales are powers of 2^(1/8)."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """What one tensor's channels hold on calibration images, each (C,) float64."""

    low: np.ndarray
    high: np.ndarray
    square: np.ndarray
    """Mean of squares."""

    @property
    def magnitude(self) -> np.ndarray:
        """Largest magnitude."""
        return np.asarray(np.maximum(self.high, -self.low))


def equalize(net: Any, images: np.ndarray) -> bool:
    """Equalise a folded net's channels in place, if its answers to the images then stay the same.

    Args:
        net: keras.Model from ``fold.folded``; its weights are left as they were where False is returned.
        images: (N, S, S, 3) float32, to calibrate on.

    Returns:
        Whether anything was changed.
    """
    import keras

    chosen = some_of(images)
    graph = graph_of(net)
    seen = channels_of(graph, chosen)
    before = net.get_weights()
    twin = keras.models.clone_model(net)
    twin.set_weights(before)
    changed = False
    for group in groups_of(graph):
        scale = _scale(group, seen)
        if scale is not None:
            changed = True
            apply_scale(group, scale)
    if changed and largest_difference(net, twin, chosen[:_CHECKED]) > EXACT:
        net.set_weights(before)
        return False
    return changed


def channels_of(graph: Graph, images: np.ndarray) -> dict[str, Channels]:
    """Return what each tensor's channels hold, by label."""
    values = {graph.image: images}
    found = {graph.image: _channels(images)}
    for position, node in enumerate(graph.nodes):
        values[node.label] = run_node(node, values)
        found[node.label] = _channels(values[node.label])
        forget(values, graph, position)
    return found


def _channels(values: np.ndarray) -> Channels:
    flat = values.reshape(-1, values.shape[-1])
    square = np.einsum("nc,nc->c", flat, flat, dtype=np.float64) / len(flat)
    return Channels(flat.min(axis=0).astype(float), flat.max(axis=0).astype(float), square)


def _scale(group: Group, seen: Mapping[str, Channels]) -> np.ndarray | None:
    """Return the (C,) factors of a group's channels that add the least noise; None to leave them alone."""
    stored = [seen[node.inputs[0]] for node in group.readers]
    magnitude = np.max([each.magnitude for each in stored], axis=0)
    live = magnitude > 0.0
    if live.sum() < 2:
        return None
    weights = np.max([_pull(node) for node in group.readers], axis=0)
    ceiling = _ceiling(group, seen)
    best, least = None, 0.995 * _noise(group, seen, np.ones(len(magnitude)))
    for activation_power, weight_power in _COMPROMISES:
        scale = np.ones(len(magnitude))
        pull = np.maximum(weights[live], 1e-6)
        scale[live] = pull**weight_power / (magnitude[live] / magnitude.max()) ** activation_power
        # The group's largest value stays as it was: only ratios between channels matter.
        scale[live] *= magnitude.max() / (scale * magnitude).max()
        # A channel that never spoke shows no scale: its weights shall not widen the range of the others.
        quiet = ~live & ~np.isfinite(ceiling)
        scale[quiet] = np.maximum(weights[quiet] / np.median(weights[live] / scale[live]), 1e-12)
        scale = np.minimum(np.clip(scale, 1.0 / _WIDEST, _WIDEST), ceiling)
        # Downwards, so that the ceiling holds: the last bit of what was measured shall not change weights.
        scale = np.exp2(np.floor(np.log2(scale) * _GRAIN) / _GRAIN)
        scale[np.isfinite(ceiling) & (ceiling <= 1.0)] = 1.0
        noise = _noise(group, seen, scale)
        if noise < least:
            best, least = scale, noise
    return best


def _ceiling(group: Group, seen: Mapping[str, Channels]) -> np.ndarray:
    """Return the (C,) largest factors that ReLU6 allows; 1 for a channel that reaches 6, which must stay."""
    found = np.full(group.channels, np.inf)
    for label, limit in group.ceilings:
        high = np.maximum(seen[label].high, 1e-9) * CEILING_MARGIN
        found = np.minimum(found, np.where(high < limit, limit / high, 1.0))
    return found


def _pull(node: Node) -> np.ndarray:
    """Return the (C,) largest share of each input channel's weights in their output channel's range."""
    columns = by_input(node.operation)
    return np.asarray((np.abs(columns) / _row_range(columns)).max(axis=(0, 2)))


def by_input(layer: Any) -> np.ndarray:
    """Return a layer's kernel as (taps, input channels, outputs of each) float64."""
    kernel = np.asarray(layer.get_weights()[0], np.float64)
    return kernel.reshape(-1, *kernel.shape[-2:])


def _row_range(columns: np.ndarray, *, depthwise: bool = False) -> np.ndarray:
    largest = np.abs(columns).max(axis=0 if depthwise else (0, 1), keepdims=True)
    return np.asarray(np.maximum(largest, 1e-12))


def _noise(group: Group, seen: Mapping[str, Channels], scale: np.ndarray) -> float:
    """Return rounding noise over signal at the outputs of all that read a group, were it scaled so.

    Rounding to steps of d adds d^2 / 12 to each activation and to each weight. Each output channel counts
    alike: how large it is, is for its own group to say.
    """
    total = 0.0
    for node in group.readers:
        read, written = seen[node.inputs[0]], seen[node.label]
        columns = by_input(node.operation) / scale[:, None]
        depthwise = node.kind == "DepthwiseConv2D"
        axes = 0 if depthwise else (0, 1)
        width = float((read.high * scale).max().clip(0.0) - (read.low * scale).min().clip(max=0.0))
        activations = (columns**2).sum(axis=axes) * (width / (LEVELS - 1)) ** 2 / 12.0
        step = _row_range(columns, depthwise=depthwise) / WEIGHT_STEPS
        square = (read.square * scale**2)[:, None]
        weights = (np.broadcast_to(square, columns.shape) * step**2).sum(axis=axes) / 12.0
        noise = (activations + weights).reshape(-1)
        total += float((noise / (noise + written.square + 1e-30)).mean())
    return total


def apply_scale(group: Group, scale: np.ndarray) -> None:
    """Multiply a group's channels by (C,) factors: its writers take these, its readers the inverse."""
    for node in group.writers:
        layer = node.operation
        set_kernel(layer, kernel_of(layer) * scale, np.asarray(layer.get_weights()[1]) * scale)
    for node in group.readers:
        kernel, bias = node.operation.get_weights()
        node.operation.set_weights([(kernel / scale[:, None]).astype(np.float32), bias])
