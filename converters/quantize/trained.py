"""A net that was trained in simulated int8: when it is asked for, and how its ranges reach a format.

A format names its tensors as its converter likes, ncnn's with numbers. So a tensor is known by its values:
on one image the float artifact computes there what the Keras net computes in one of its calls, in whatever
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boardfit.converters.calibrate import Range
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.bench import Quantizer
from boardfit.converters.quantize.graph import forget, graph_of, run_node
from boardfit.converters.quantize.simulate import moved_from
from boardfit.converters.targets import Exported

ALIKE = 1e-3
"""Of a tensor's largest magnitude: what float kernels of two engines differ by at most."""
_POINTS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class QatOrder:
    """When a net is trained in simulated int8, and by what.

    Attributes:
        always: Whether it is even where the gate is met without it.
        train: From a model and an input side in pixels, the model of that size with its trained ranges; its
            notes are those of the training.
        about: What the outcome hangs on, as JSON values.
    """

    always: bool
    train: Callable[[TrainedModel, int], TrainedModel]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """A tensor of the Keras net: how many values, some of them in ascending order, and its range."""

    size: int
    values: np.ndarray
    range: Range


def trained_ranges(
    model: TrainedModel, exported: Exported, quantizer: Quantizer, image: np.ndarray
) -> dict[str, Range]:
    """Return the ranges that a model learned, by the tensor names of its fp32 artifact.

    A tensor that the net does not have, such as a part of an activation that the format takes apart, is not
    among them.

    Args:
        model: Of one size; without ranges nothing is returned.
        exported: Its fp32 artifact.
        quantizer: Of the format.
        image: (1, S, S, 3) float32.
    """
    if model.ranges is None:
        return {}
    known = list(_known(model.net, model.ranges.by_call, image))
    probe = quantizer.open_probe(exported)
    try:
        tensors = probe.run(image)
        found = {name: _range_of(values, known) for name, values in tensors.items()}
    finally:
        probe.close()
    return {name: each for name, each in found.items() if each is not None}


def _known(net: Any, by_call: Mapping[str, Range], image: np.ndarray) -> Iterator[_Known]:
    """Yield the tensors of a net that have a range, and those that only move the values of such a one."""
    graph = graph_of(net)
    moved = moved_from(graph, by_call)
    ranges = {**by_call, **{label: by_call[source] for label, source in moved.items()}}
    values = {graph.image: image}
    yield _Known(image.size, _in_order(image), ranges[graph.image])
    for position, node in enumerate(graph.nodes):
        values[node.label] = run_node(node, values)
        if node.label in ranges:
            found = values[node.label]
            yield _Known(found.size, _in_order(found), ranges[node.label])
        forget(values, graph, position)


def _range_of(values: np.ndarray, known: Sequence[_Known]) -> Range | None:
    """Return the range of the tensor that has these values; None where none has."""
    ordered = _in_order(values)
    scale = max(float(np.abs(ordered).max()), 1e-12)
    distances = [
        float(np.abs(ordered - each.values).max()) / scale if each.size == values.size else np.inf
        for each in known
    ]
    best = int(np.argmin(distances))
    return known[best].range if distances[best] <= ALIKE else None


def _in_order(values: np.ndarray) -> np.ndarray:
    """Return up to so many of a tensor's values in ascending order, evenly spaced, both ends among them."""
    flat = np.sort(values, axis=None)
    return np.asarray(flat[np.linspace(0, flat.size - 1, min(flat.size, _POINTS)).round().astype(int)])
