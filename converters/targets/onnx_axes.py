"""Tensors of more than four axes, written with four: ncnn has no others, and pnnx loses the batch among them.

A net's batch is one here, and its extents are known where its size is. Then a tensor of many axes is the same
numbers in the same order as one of shape (1, all before, last but one, last), and only what an operator does
to single axes has to be said anew: ``onnx_axes_rules`` says it, ``onnx_axes_writer`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boardfit.converters.targets.onnx_axes_permute import Shape
from boardfit.converters.targets.onnx_axes_rules import write
from boardfit.converters.targets.onnx_axes_writer import AXES, Writer
from boardfit.errors import ExportError


def with_few_axes(model: Any, input_shapes: Sequence[Shape]) -> Any | None:
    """Return a copy of the model that has no tensor of more than four axes, or None where it has none itself.

    Args:
        model: onnx.ModelProto, of any opset; it is not changed.
        input_shapes: Of its inputs, in their order; the batch is one.

    Raises:
        ExportError: An operator on more axes cannot be written with four.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    shapes = _known_shapes(copy, input_shapes)
    if not any(len(shape) > AXES for shape in shapes.values()):
        return None
    for value in graph.output:
        if len(shapes.get(value.name, ())) > AXES:
            raise ExportError(
                f"the output {value.name} has the shape {shapes[value.name]}, and ncnn has tensors of at "
                "most four axes: build without ncnn (leave it out of --formats), or reshape that output"
            )
    opset = next(item.version for item in copy.opset_import if item.domain in ("", "ai.onnx"))
    writer = Writer(graph, shapes, _constants(graph), opset)
    for node in graph.node:
        write(writer, node)
    live = _needed(writer.nodes, {value.name for value in graph.output})
    read = {name for node in live for name in node.input}
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(live)
    graph.initializer.extend(stored)
    return copy


def _constants(graph: Any) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _known_shapes(model: Any, input_shapes: Sequence[Shape]) -> dict[str, Shape]:
    """Return the shapes that are told by those of the inputs, which are bound."""
    import onnx

    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    for value, shape in zip(inputs, input_shapes, strict=True):
        for extent, bound in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            extent.dim_value = bound
    del model.graph.value_info[:]
    for value in model.graph.output:
        for extent in value.type.tensor_type.shape.dim:
            extent.ClearField("dim_param")
    told = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*told.input, *told.value_info, *told.output):
        extents = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(item.HasField("dim_value") for item in extents):
            shapes[value.name] = tuple(item.dim_value for item in extents)
    return shapes


def _needed(nodes: Sequence[Any], outputs: set[str]) -> list[Any]:
    """Return the nodes that something reads."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]
