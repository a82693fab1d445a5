"""An ONNX graph as a quantizer sees it: who makes which tensor, which layers hold weights, what fuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boardfit.converters.targets import Exported
from boardfit.errors import ExportError

CONVOLUTIONS = ("Conv", "ConvInteger")
DENSE = ("Gemm", "MatMul", "MatMulInteger")
MARK = "~"
"""In the names of tensors that quantising adds, behind the name of the float graph's tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A graph and what is asked of it again and again.

    Attributes:
        proto: onnx.ModelProto, canonical.
        weights: The constants by name; of a dequantized one its integers.
        producer: Node by the name of a tensor that it makes.
        consumers: Nodes by the name of a tensor that they read.
        outputs: Names of the graph's outputs.
        shapes: Of every tensor that has one; None where an axis is free.
    """

    proto: Any
    weights: Mapping[str, np.ndarray]
    producer: Mapping[str, Any]
    consumers: Mapping[str, tuple[Any, ...]]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int | None, ...]]

    def only_consumer(self, tensor: str) -> Any | None:
        """Return the one node that reads a tensor which nobody else sees, or None."""
        readers = self.consumers.get(tensor, ())
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def is_layer(self, node: Any) -> bool:
        """Return whether a node is a convolution or a dense layer with weights in the file."""
        if len(node.input) < 2 or node.input[1] not in self.weights:
            return False
        rank = self.weights[node.input[1]].ndim
        biased = len(node.input) < 3 or node.input[2] in self.weights
        if node.op_type.endswith("Integer"):  # behind these stand zero points
            biased = True
        return biased and (
            (node.op_type in CONVOLUTIONS and rank >= 3) or (node.op_type in DENSE and rank == 2)
        )

    def layers(self) -> Iterator[Any]:
        """Yield the nodes that are layers."""
        return (node for node in self.proto.graph.node if self.is_layer(node))

    def activation(self, tensor: str) -> Any | None:
        """Return the Relu or Clip from 0 that fuses into what makes a tensor, or None.

        ONNX Runtime drops it where the integers behind it cannot express what it would clip; only with a
        lower end of 0 does that hold for every range.
        """
        node = self.only_consumer(tensor)
        if node is None or node.op_type not in ("Relu", "Clip"):
            return None
        return node if node.op_type == "Relu" or self._clips_from_zero(node) else None

    def _clips_from_zero(self, clip: Any) -> bool:
        ends = [self.weights.get(name) for name in clip.input[1:]]
        if not ends or ends[0] is None or ends[0].size != 1 or float(ends[0].reshape(())) != 0.0:
            return False
        return len(ends) < 2 or (ends[1] is not None and float(ends[1].reshape(())) > 0.0)

    def behind(self, node: Any) -> str:
        """Return the tensor that a node writes, behind the activation that fuses into it."""
        activation = self.activation(node.output[0])
        return str(activation.output[0] if activation is not None else node.output[0])

    def bias_adder(self, node: Any) -> Any | None:
        """Return the Add that gives a MatMul its bias, or None."""
        adder = self.only_consumer(node.output[0]) if node.op_type == "MatMul" else None
        if adder is None or adder.op_type != "Add" or not self.is_layer(node):
            return None
        units = self.weights[node.input[1]].shape[1]
        return (
            adder
            if any(self.weights[n].shape == (units,) for n in adder.input if n in self.weights)
            else None
        )

    def layer_output(self, node: Any) -> str:
        """Return the tensor that a layer writes: behind the bias of a dense layer, and its activation."""
        if node.op_type.endswith("Integer"):
            node = self.producer[known_as(node.output[0])]
        return self.behind(self.bias_adder(node) or node)

    def macs(self, node: Any) -> int:
        """Return the multiplications of a layer for one image."""
        values = self.weights[node.input[1]].size
        shape = self.shapes.get(node.output[0], ())
        places = shape[2:] if node.op_type in CONVOLUTIONS else shape[1:-1]
        return int(values * np.prod([place or 1 for place in places], dtype=np.int64))

    def hidden(self) -> frozenset[str]:
        """Return the tensors between a node and the activation that fuses into it: no engine makes them."""
        return frozenset(
            node.output[0]
            for node in self.proto.graph.node
            if node.output and self.activation(node.output[0]) is not None
        )


def read(exported: Exported) -> Any:
    """Return the artifact's onnx.ModelProto.

    Raises:
        ExportError: The file is damaged.
    """
    import onnx

    try:
        return onnx.load_from_string(exported.files[exported.artifact.files[0]])
    except Exception as error:  # protobuf's, which is a dependency of onnx and none of ours
        raise ExportError(f"{exported.artifact.files[0]} is damaged: {error}; export it again") from error


def known_as(tensor: str) -> str:
    """Return the float graph's name of what a tensor holds."""
    return tensor.partition(MARK)[0]


def view_of(proto: Any) -> View:
    """Return the view of a graph."""
    from onnx import numpy_helper, shape_inference

    inferred = shape_inference.infer_shapes(proto).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    consumers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in dict.fromkeys(node.input):
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return View(
        proto=proto,
        weights=weights,
        producer={name: node for node in proto.graph.node for name in node.output},
        consumers={name: tuple(nodes) for name, nodes in consumers.items()},
        outputs=tuple(value.name for value in proto.graph.output),
        shapes={value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")},
    )


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
