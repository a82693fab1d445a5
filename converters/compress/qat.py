"""Quantisation-aware training: a net learns to answer in int8, and with it the ranges of its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from keras import ops

from boardfit.converters.calibrate import Range
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import require_scores
from boardfit.converters.compress.qat_net import QatNet, QatOptions, rounded_tensors
from boardfit.converters.compress.stage import StageResult
from boardfit.converters.compress.train import Training, train
from boardfit.converters.ingest.reference import frozen_copy, keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.equalize import EXACT
from boardfit.converters.quantize.fold import folded
from boardfit.converters.quantize.graph import BATCH, Graph, forget, graph_of, largest_difference, run_node
from boardfit.converters.quantize.simulate import range_of, some_of
from boardfit.converters.quantize.surgery import equalized_where_better
from boardfit.converters.ranges import TrainedRanges
from boardfit.errors import CompressError, UnsupportedModel

_CHECKED = 16
_GRAIN = 32
"""Ranges begin on powers of 2^(1/32): a resumed training finds the very same, whatever the last bit says."""


@dataclass(frozen=True, slots=True, eq=False)
class Qat:
    """The stage: the net of one size becomes one that answers in int8 as the source does in float.

    Batch normalisation is folded first, since every format folds it, and channels are equalised where that
    helps: an optimizer steps as far in a small channel as in a large one, and would wipe it out. Weights and
    activations are rounded at the points at which the formats round them.

    Attributes:
        size: Input side in pixels.
        images: Reads what is trained on, at the side in pixels that it is given; called once.
        labelled: Whether the images have labels. The model as it comes teaches too, unless
            ``options.teacher`` is 0.
        training: The loop's settings, and where its checkpoint goes.
        options: What teaches.
    """

    size: int
    images: Callable[[int], ImageSet]
    labelled: bool
    training: Training
    options: QatOptions = field(default_factory=QatOptions)

    @property
    def name(self) -> str:
        """Name of the stage."""
        return "qat"

    def requires(self, model: TrainedModel) -> None:
        """Raise CompressError unless the model takes the size, answers scores, and has layers to round."""
        if model.net is None or model.further:
            raise CompressError(
                f"{model.name} cannot be trained in int8: expected a net of layers that takes one image alone"
            )
        self._require_plain()
        if model.fixed_size not in (None, self.size):
            raise CompressError(f"{model.name} takes {model.fixed_size} pixels only, not {self.size}")
        if model.nets_by_size is not None and self.size not in model.nets_by_size:
            raise CompressError(f"{model.name} has no net for {self.size} pixels")
        if not (self.options.teacher or (self.labelled and self.options.labels)):
            raise CompressError(
                "nothing teaches the net: expected qat.teacher_weight above 0, or labels (distill.labels) "
                "with qat.label_weight above 0"
            )
        net = model.at(self.size).net
        require_scores(net, model.outputs[0].activation)
        try:
            graph = graph_of(net)
        except UnsupportedModel as error:
            raise CompressError(f"{model.name} cannot be trained in int8: {error}") from error
        if not any(node.weighted for node in graph.nodes):
            raise CompressError(f"{model.name} has no convolution or dense layer that int8 would round")

    def _require_plain(self) -> None:
        """Raise CompressError if the training has settings that this stage would not follow."""
        wanted = {"numbers": "float32", "recompute": False, "devices": 1}
        for name, value in wanted.items():
            found = getattr(self.training, name)
            if found != value:
                raise CompressError(
                    f"integers are simulated in float32, layer by layer, on one device: expected the "
                    f"training's {name} to be {value!r}, not {found!r}"
                )

    def __call__(self, model: TrainedModel) -> StageResult:
        """Train, and return the model of this size with its ranges."""
        source = model.at(self.size)
        images = self.images(self.size)
        net, equalized = net_to_train(source, images)
        some = _tensor(source, images, len(some_of(images.pixels)))
        ranges = first_ranges(graph_of(net), some)
        teacher = frozen_copy(source.net) if self.options.teacher else None
        qat = QatNet(
            net,
            ranges,
            image=model.image,
            activation=model.outputs[0].activation,
            options=self.options,
            labelled=self.labelled,
            teacher=teacher,
        )
        report = train(qat, images, settings=self.training)
        qat.settle()
        net.trainable = False
        learned = TrainedRanges({**qat.ranges(), **_output_ranges(qat, graph_of(net), some)})
        trained = replace(source, net=net, reference=keras_reference(net), ranges=learned)
        notes = (*_notes(graph_of(net), ranges, equalized=equalized), report.sentence())
        return StageResult(model=trained, notes=tuple(f"qat: at {self.size} pixels {note}" for note in notes))

    def ensures(self, before: TrainedModel, after: TrainedModel) -> None:
        """Raise CompressError unless outputs are as before, weights finite, and every tensor has a range."""
        if tuple(after.net.outputs[0].shape) != tuple(before.net.outputs[0].shape):
            raise CompressError(f"the net trained in int8 answers {tuple(after.net.outputs[0].shape)}")
        if not all(np.isfinite(weight).all() for weight in after.net.get_weights()):
            raise CompressError("the net trained in int8 has weights that are not finite")
        graph = graph_of(after.net)
        wanted = {*rounded_tensors(graph), *graph.outputs}
        if after.ranges is None or set(after.ranges.by_call) != wanted:
            raise CompressError("the net trained in int8 has tensors without a range")


def net_to_train(model: TrainedModel, images: ImageSet) -> tuple[Any, bool]:
    """Return what training begins with, and whether its channels were equalised: a folded copy.

    Args:
        model: Of one size; it is not changed.
        images: To calibrate on.

    Raises:
        CompressError: Folded, the net answers otherwise.
    """
    net = _folded(model, _tensor(model, images, _CHECKED))
    better = equalized_where_better(net, _tensor(model, images, len(some_of(images.pixels))))
    return better, better is not net


def simulated_answers(model: TrainedModel, images: np.ndarray, *, as_ncnn: bool) -> list[np.ndarray]:
    """Return what a trained model answers in simulated int8: what its artifacts should answer.

    Args:
        model: Of one size, as the stage returns it.
        images: (N, S, S, 3) float32.
        as_ncnn: Whether activations are rounded where and as ncnn does it, or as TFLite does.

    Returns:
        The outputs, float32, in their order.

    Raises:
        CompressError: The model has no trained ranges.
    """
    if model.ranges is None:
        raise CompressError(f"{model.name} has no trained ranges: train it in int8 first")
    qat = QatNet(
        model.net,
        model.ranges.by_call,
        image=model.image,
        activation=model.outputs[0].activation,
        options=QatOptions(),
        labelled=False,
        settled=True,
    )
    return _answers(qat, images, as_ncnn=as_ncnn)


def _answers(qat: QatNet, images: np.ndarray, *, as_ncnn: bool) -> list[np.ndarray]:
    parts = [
        [ops.convert_to_numpy(found) for found in qat.answers(rows, np.full(len(rows), as_ncnn))]
        for rows in (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    ]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def _output_ranges(qat: QatNet, graph: Graph, images: np.ndarray) -> dict[str, Range]:
    """Return the extremes of the outputs in int8, which TFLite rounds: in float they may be others."""
    found = zip(*(_answers(qat, images, as_ncnn=each) for each in (False, True)), strict=True)
    return {
        label: Range(min(0.0, *(float(x.min()) for x in both)), max(0.0, *(float(x.max()) for x in both)))
        for label, both in zip(graph.outputs, found, strict=True)
    }


def first_ranges(graph: Graph, images: np.ndarray) -> dict[str, Range]:
    """Return the ranges that training begins with: of the least squared error, on images in float.

    Args:
        graph: Of a folded net.
        images: (N, S, S, 3) float32.
    """
    wanted = rounded_tensors(graph)
    values = {graph.image: images}
    found = {graph.image: _grained(range_of(images))}
    for position, node in enumerate(graph.nodes):
        values[node.label] = run_node(node, values)
        if node.label in wanted:
            found[node.label] = _grained(range_of(values[node.label]))
        forget(values, graph, position)
    return found


def _grained(found: Range) -> Range:
    low, high = (
        float(np.exp2(np.ceil(np.log2(end) * _GRAIN) / _GRAIN)) if end > 1e-30 else 0.0
        for end in (-found.low, found.high)
    )
    return Range(-low, high)


def _tensor(model: TrainedModel, images: ImageSet, count: int) -> np.ndarray:
    """Return (count, S, S, 3) float32 input tensors of images evenly spaced over the set."""
    pixels = images.spread(count).pixels
    mean, std = (np.asarray(value, np.float32) for value in (model.image.mean, model.image.std))
    return np.asarray((pixels - mean) / std, np.float32)


def _folded(model: TrainedModel, images: np.ndarray) -> Any:
    net = folded(model.net)
    difference = largest_difference(net, model.net, images)
    if difference > EXACT:
        raise CompressError(
            f"folding batch normalisation changed the answers of {model.name} by {difference:.1e} of the "
            f"largest, expected at most {EXACT:g}: leave qat out"
        )
    return net


def _notes(graph: Graph, ranges: Mapping[str, Range], *, equalized: bool) -> tuple[str, ...]:
    rounded = sum(node.weighted for node in graph.nodes)
    others = [
        node.operation.name
        for node in graph.nodes
        if not node.weighted and any(len(w.shape) > 1 for w in getattr(node.operation, "weights", ()))
    ]
    note = f"{rounded} layers and {len(ranges)} tensors were rounded to 8 bits while training"
    if equalized:
        note += ", after the scales of their channels were equalised"
    if not others:
        return (note,)
    kept = ", ".join(others[:3])
    return (f"{note}; the weights of {len(others)} others ({kept}) were not, as they are of another kind",)
