"""One folded net in simulated int8, as a model that Keras trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from boardfit.converters.calibrate import Range
from boardfit.converters.compress.fake_quant import (
    TOP,
    round_through,
    rounded_activation,
    rounded_kernel,
    weight_steps,
)
from boardfit.converters.compress.losses import as_logits, cross_entropy, softened_kl
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.quantize.fold import kernel_of
from boardfit.converters.quantize.graph import Graph, Node, Ref, graph_of
from boardfit.converters.quantize.simulate import handed_on, is_stored, moved_from
from boardfit.converters.targets.weight_rounding import grid_steps
from boardfit.errors import CompressError
from boardfit.specs import ImageSpec

_SMALLEST_WIDTH = 1e-6


@dataclass(frozen=True, slots=True)
class QatOptions:
    """What teaches a net in simulated int8.

    Attributes:
        labels: Weight of the cross entropy with labels, where there are some.
        teacher: Weight of the divergence from the float net's answer.
        temperature: Of the softened answers.
    """

    labels: float = 1.0
    teacher: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.labels, self.teacher) < 0.0 or self.temperature < 1.0:
            raise CompressError("the weights of qat must not be negative, and its temperature at least 1")


class QatNet(keras.Model):  # type: ignore[misc]
    """A folded net that computes as int8 does.

    Formats differ in where they round. TFLite stores every tensor in integers, biases too. ncnn rounds what a
    convolution or dense layer reads, mostly on a grid around zero, and nothing else: what a sum reads is not
    even clipped there. ONNX Runtime is in between. So half of the images of a batch are computed as TFLite
    does, half as ncnn does: trained for one of them alone, a net leans on what the other does not do.
    """

    def __init__(
        self,
        net: Any,
        ranges: Mapping[str, Range],
        *,
        image: ImageSpec,
        activation: str,
        options: QatOptions,
        labelled: bool,
        teacher: Any = None,
        settled: bool = False,
    ) -> None:
        """Take up a net, which is trained itself.

        Args:
            net: keras.Model from ``quantize.fold.folded``.
            ranges: Of every tensor of ``rounded_tensors``, to begin with; those of others are left out.
            image: Mean and deviation of the input.
            activation: Of the net's scores: ``softmax`` or ``logits``.
            options: Weights of the losses.
            labelled: Whether the images have labels.
            teacher: keras.Model that answers in float, or None.
            settled: Whether its kernels lie on their grid already.
        """
        super().__init__(name="qat")
        self.net = net
        self.phase = "all"
        self._graph = graph_of(net)
        labels = [label for label in rounded_tensors(self._graph) if label in ranges]
        self._places = {label: place for place, label in enumerate(labels)}
        self._roots = moved_from(self._graph, labels)
        self._handed_on = handed_on(self._graph, labels)
        found = [ranges[label] for label in labels]
        ends = [(each.low, max(each.high, each.low + _SMALLEST_WIDTH)) for each in found]
        shape = (len(ends), 2)
        # A variable, so that a checkpoint brings back the very ranges that its growth belongs to.
        self._ends = self.add_weight(name="ends", shape=shape, trainable=False, initializer="zeros")
        self._ends.assign(np.array(ends, np.float32))
        self._growth = self.add_weight(name="growth", shape=shape[:1], initializer="zeros")
        self._image, self._activation, self._options = image, activation, options
        self._labelled = labelled
        self._settled: dict[str, Any] = self._steps_as_stored() if settled else {}
        self._right = keras.metrics.Mean(name="accuracy" if labelled else "agreement")
        # A closure: Keras would take a net in an attribute for a part of what is trained and saved.
        self._teach = None if teacher is None else lambda images: teacher(images, training=False)

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with, as JSON values."""
        return {
            "image": [self._image.channels, self._image.mean, self._image.std],
            "activation": self._activation,
            "labelled": self._labelled,
            "taught": self._teach is not None,
            # By place in the graph: Keras counts on in the names of layers that were given none.
            "rounded": [label.partition(":")[0] for label in self._places],
            "options": asdict(self._options),
        }

    def call(self, images: Any, training: bool = False) -> dict[str, Any]:
        """Return the (B, K) logits of ``net``; while it trains, also those of the ``teacher``.

        Dropout and statistics rest, as on a board.

        Args:
            images: (B, S, S, 3) uint8.
            training: Whether the teacher is asked.
        """
        tensor = self.tensor(images)
        as_ncnn = ops.equal(ops.arange(ops.shape(images)[0]) % 2, 1)
        found = {"net": as_logits(self.answers(tensor, as_ncnn)[0], self._activation)}
        if self._teach is not None and training:
            found["teacher"] = as_logits(self._teach(tensor), self._activation)
        return found

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return what labels and the float net teach, weighted."""
        options, loss = self._options, 0.0
        if self._labelled:
            loss = loss + options.labels * cross_entropy(y_pred["net"], y)
        if "teacher" in y_pred:
            loss = loss + options.teacher * softened_kl(
                y_pred["teacher"], y_pred["net"], temperature=options.temperature
            )
        return loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Count the answers that are the labels', or the teacher's where there are none."""
        wanted = y if self._labelled else ops.argmax(y_pred["teacher"], axis=-1)
        found = ops.argmax(y_pred["net"], axis=-1)
        self._right.update_state(ops.cast(ops.equal(found, ops.cast(wanted, found.dtype)), "float32"))
        return dict(self.get_metrics_result())

    def tensor(self, images: Any) -> Any:
        """Return the (B, S, S, 3) float32 input tensor of (B, S, S, 3) uint8 images."""
        return input_tensor(images, self._image, images.shape[1])

    def answers(self, tensor: Any, as_ncnn: Any) -> list[Any]:
        """Return the net's outputs in simulated int8, in their order.

        Args:
            tensor: (N, S, S, 3) float32.
            as_ncnn: (N,) bool: whether an image is computed as ncnn does it, or as TFLite does.
        """
        graph = self._graph
        stored: dict[str, Any] = {}
        rounded: dict[str, Any] = {}

        def store(label: str, values: Any) -> None:
            if label in self._places:
                rounded[label] = self._rounded(label, values, as_ncnn)
                rows = ops.reshape(as_ncnn, (-1, *[1] * (len(values.shape) - 1)))
                values = ops.where(rows, values, rounded[label])
            stored[label] = values

        def read(label: str, node: Node) -> Any:
            if not node.weighted:
                return stored[label]
            if label not in rounded and label in self._roots:
                rounded[label] = self._rounded(self._roots[label], stored[label], as_ncnn)
            return rounded.get(label, stored[label])

        store(graph.image, tensor)
        for node in graph.nodes:
            inputs = {label: read(label, node) for label in node.inputs}
            store(
                node.label, self._weighted(node, inputs, as_ncnn) if node.weighted else _called(node, inputs)
            )
        return [stored[label] for label in graph.outputs]

    def ranges(self) -> dict[str, Range]:
        """Return the range of each rounded tensor as it is learned."""
        stretch = np.exp(np.asarray(ops.convert_to_numpy(self._growth), np.float64))
        # A low end of -0.0 becomes 0.0.
        ends = np.asarray(ops.convert_to_numpy(self._ends), np.float64) * stretch[:, None] + 0.0
        return {label: Range(float(ends[i, 0]), float(ends[i, 1])) for label, i in self._places.items()}

    def settle(self) -> None:
        """Put the rounded kernels into the net: every format then finds them on their grid."""
        for node in self._graph.nodes:
            if node.weighted:
                kernel, bias = map(ops.convert_to_tensor, node.operation.weights)
                kernel = rounded_kernel(kernel, depthwise=_is_depthwise(node))
                node.operation.set_weights([ops.convert_to_numpy(each) for each in (kernel, bias)])
        self._settled = self._steps_as_stored()

    def _weighted(self, node: Node, inputs: Mapping[str, Any], as_ncnn: Any) -> Any:
        """Return what a layer writes with its kernel rounded, and its bias where that is not ncnn's."""
        kernel, bias = node.operation.weights
        values, offset = map(ops.convert_to_tensor, (kernel, bias))
        if self._settled:
            steps = self._settled[node.label]
        else:
            steps = weight_steps(values, depthwise=_is_depthwise(node))
            values = round_through(values / steps) * steps
        args, kwargs = _arguments(node, inputs)
        # Inside a scope a variable that it does not name has the value from before the training step.
        with keras.StatelessScope(state_mapping=[(kernel, values), (bias, ops.zeros_like(offset))]):
            found = node.operation(*args, **kwargs)
        return found + self._bias(node, offset, ops.reshape(steps, (-1,)), as_ncnn, rank=len(found.shape))

    def _bias(self, node: Node, bias: Any, steps: Any, as_ncnn: Any, *, rank: int) -> Any:
        """Return a layer's bias for each image, a channel last: a whole number of products of both steps.

        Where one weight is large beside the others, such a product may be many steps of the output.
        """
        source = self._roots.get(node.inputs[0], node.inputs[0])
        own = ops.reshape(bias, (*[1] * (rank - 1), -1))
        if source not in self._places:
            return own
        place = self._places[source]
        width = self._ends[place, 1] - self._ends[place, 0]
        product = ops.stop_gradient(ops.exp(self._growth[place]) * width / TOP * steps)
        whole = ops.reshape(round_through(bias / product) * product, (*[1] * (rank - 1), -1))
        return ops.where(ops.reshape(as_ncnn, (-1, *[1] * (rank - 1))), own, whole)

    def _steps_as_stored(self) -> dict[str, Any]:
        return {node.label: _settled_steps(node.operation) for node in self._graph.nodes if node.weighted}

    def _rounded(self, label: str, values: Any, as_ncnn: Any) -> Any:
        place = self._places[label]
        low, high = self._ends[place, 0], self._ends[place, 1]
        return rounded_activation(
            values, low, high, self._growth[place], as_ncnn, handed_on=label in self._handed_on
        )


def rounded_tensors(graph: Graph) -> tuple[str, ...]:
    """Return the labels of what int8 rounds: the image, and what calls store, but for constants."""
    constant: set[str] = set()
    for node in graph.nodes:
        if node.kind == "Constant" or all(label in constant for label in node.inputs):
            constant.add(node.label)
    stored = (node.label for node in graph.nodes if node.label not in constant and is_stored(graph, node))
    return (graph.image, *stored)


def _arguments(node: Node, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the arguments of a call with its tensors in their places."""

    def value(leaf: Any) -> Any:
        return inputs[leaf.label] if isinstance(leaf, Ref) else leaf

    args, kwargs = keras.tree.map_structure(value, (node.args, dict(node.kwargs)))
    return args, kwargs


def _called(node: Node, inputs: Mapping[str, Any]) -> Any:
    """Return what a call writes that nothing is simulated of."""
    args, kwargs = _arguments(node, inputs)
    operation = node.operation
    # Otherwise the layer would follow fit, which trains.
    if isinstance(operation, keras.Layer) and "training" in inspect.signature(operation.call).parameters:
        kwargs = {**kwargs, "training": False}
    return operation(*args, **kwargs)


def _settled_steps(layer: Any) -> Any:
    """Return the (outputs,) float32 steps of kernels that lie on their grid, as formats find them."""
    columns = kernel_of(layer)
    steps = grid_steps(columns.T)
    return np.where(steps > 0.0, steps, np.maximum(np.abs(columns).max(axis=0), 1e-20) / 127).astype(
        np.float32
    )


def _is_depthwise(node: Node) -> bool:
    return isinstance(node.operation, keras.layers.DepthwiseConv2D)
