"""Writes the nodes of a graph anew whose tensors of many axes are kept with four."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any

import numpy as np

from boardfit.converters.targets.onnx_axes_permute import Shape
from boardfit.errors import ExportError

AXES = 4
"""Axes that a tensor may have, the batch's among them."""


def few(shape: Shape) -> Shape:
    """Return the shape in which a tensor is kept: the last two axes stay, those before are one."""
    return shape if len(shape) <= AXES else (1, prod(shape[:-2]), *shape[-2:])


@dataclass(slots=True)
class Writer:
    """Writes nodes anew. A tensor of many axes keeps its name, and has its shape of four.

    Attributes:
        graph: Takes new constants.
        shapes: Of tensors, as they were.
        constants: Arrays by name.
        opset: Of the graph.
        nodes: What was written.
        origins: For a tensor that is a reshape, of what.
        numbers: Of new names.
    """

    graph: Any
    shapes: dict[str, Shape]
    constants: dict[str, np.ndarray]
    opset: int
    nodes: list[Any] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def refusal(self, node: Any) -> ExportError:
        """Return the error that names a node."""
        shape = next((self.shapes[name] for name in node.input if name in self.shapes), ())
        return ExportError(
            f"ncnn has tensors of at most four axes, and {node.op_type} {node.name or node.output[0]} on the "
            f"shape {shape} cannot be written with four: build without ncnn (leave it out of --formats), or "
            "change that layer"
        )

    def view(self, name: str, shape: Shape) -> str:
        """Return a tensor of these extents with the numbers of another."""
        if name in self.constants:
            value = self.constants[name]
            return name if value.shape == shape else self.constant(value.reshape(shape))
        if few(self.shapes[name]) == shape:
            return name
        made = self._fresh()
        self._reshape(name, made, shape)
        self.shapes[made] = shape
        return made

    def emit(self, node: Any, inputs: Sequence[str], made: Sequence[Shape], **attributes: Any) -> None:
        """Write a node over other tensors.

        Args:
            node: As it was.
            inputs: What it reads instead.
            made: The shapes of what it makes so; each becomes the output in its place.
            **attributes: Set anew.
        """
        import onnx
        from onnx import helper

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        kept = [item for item in copy.attribute if item.name not in attributes]
        kept += [helper.make_attribute(key, value) for key, value in attributes.items()]
        wanted = [few(self.shapes[name]) for name in node.output]
        names = [
            name if shape == kept_in else self._fresh()
            for name, shape, kept_in in zip(node.output, made, wanted, strict=True)
        ]
        del copy.input[:], copy.output[:], copy.attribute[:]
        copy.input.extend(inputs)
        copy.output.extend(names)
        copy.attribute.extend(kept)
        self.nodes.append(copy)
        for name, output in zip(names, node.output, strict=True):
            if name != output:
                self.renamed(name, output)

    def permuted(self, name: str, steps: Sequence[tuple[Shape, Shape]]) -> str:
        """Write a chain of permutations, and return what the last one makes."""
        from onnx import helper

        for extents, moved in steps:
            source, name = self.view(name, (1, *extents)), self._fresh()
            self.shapes[name] = (1, *(extents[axis] for axis in moved))
            perm = [0, *(axis + 1 for axis in moved)]
            self.nodes.append(helper.make_node("Transpose", [source], [name], name=name, perm=perm))
        return name

    def renamed(self, name: str, output: str) -> None:
        """Write a tensor's numbers again under another name, in the shape in which that is kept."""
        self._reshape(name, output, few(self.shapes[output]))

    def _reshape(self, name: str, output: str, shape: Shape) -> None:
        from onnx import helper, numpy_helper

        if name in self.constants:
            value = self.constants[output] = self.constants[name].reshape(shape)
            self.graph.initializer.append(numpy_helper.from_array(value, output))
            return
        origin = self.origins[output] = self.origins.get(name, name)
        extents = self.constant(np.array(shape, np.int64))
        self.nodes.append(helper.make_node("Reshape", [origin, extents], [output], name=f"{output}/reshape"))

    def constant(self, value: np.ndarray) -> str:
        """Return the name of a new constant."""
        from onnx import numpy_helper

        name = self._fresh()
        self.constants[name], self.shapes[name] = value, value.shape
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _fresh(self) -> str:
        return f"few_axes_{next(self.numbers)}"
