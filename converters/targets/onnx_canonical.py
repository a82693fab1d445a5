"""Make an ONNX graph a pure function of the net: names, order and metadata.

tf2onnx names tensors by counters that differ from process to process, so that two exports of one net
give two files. Here nodes are sorted by a depth-first walk from the outputs, and tensors are numbered
in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boardfit.errors import ExportError

HALF_FROM_ELEMENTS = 256
"""Smaller tensors (biases, clip bounds) stay in float32: they cost nothing and lose the most."""


def canonical(proto: Any, *, output_names: Sequence[str], further: Sequence[str] = ()) -> Any:
    """Return a copy with canonical names and order.

    Args:
        proto: onnx.ModelProto; its initializers are inside the file.
        output_names: New names of the outputs, in the graph's order.
        further: Names of the inputs besides the image, in the wanted order.

    Raises:
        ExportError: The graph has another number of inputs or outputs.
    """
    from onnx import helper

    graph = proto.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    if len(inputs) != 1 + len(further) or len(graph.output) != len(output_names):
        raise ExportError(
            f"the ONNX graph has {len(inputs)} inputs and {len(graph.output)} outputs: "
            f"expected {1 + len(further)} and {len(output_names)}"
        )
    inputs = _in_order(inputs, further)
    nodes = _walk(graph)
    names = {value.name: name for value, name in zip(inputs, ["image", *further], strict=True)}
    names.update({value.name: name for value, name in zip(graph.output, output_names, strict=True)})
    used = [name for node in nodes for name in node.input if name in initializers]
    names.update({name: f"w{i}" for i, name in enumerate(dict.fromkeys(used))})
    produced = (name for node in nodes for name in node.output if name and name not in names)
    names.update({name: f"t{i}" for i, name in enumerate(list(produced))})

    model = helper.make_model(
        helper.make_graph(
            [_renamed_node(node, i, names) for i, node in enumerate(nodes)],
            "boardfit",
            [_free_axes(value, name) for value, name in zip(inputs, ["image", *further], strict=True)],
            [_free_axes(value, name) for value, name in zip(graph.output, output_names, strict=True)],
            initializer=[_renamed_tensor(initializers[name], names[name]) for name in dict.fromkeys(used)],
        ),
        producer_name="boardfit",
        opset_imports=[helper.make_opsetid("", _opset(proto))],
    )
    # ONNX Runtime 1.17 reads up to IR 9; opset 17 came with IR 8.
    model.ir_version = 8
    return model


def _in_order(inputs: Sequence[Any], further: Sequence[str]) -> list[Any]:
    """Return the image, then the others as they are named; tf2onnx adds ``:0`` to names."""
    by_name = {value.name.removesuffix(":0"): value for value in inputs}
    others = [by_name[name] for name in further if name in by_name]
    rest = [value for value in inputs if value not in others]
    if len(others) != len(further) or len(rest) != 1:
        raise ExportError(f"the ONNX graph has the inputs {sorted(by_name)}: expected {list(further)} too")
    return [*rest, *others]


def half_weights(proto: Any) -> Any:
    """Return a copy whose large float32 weights are stored in float16, with a Cast behind each.

    Arithmetic stays in float32: every engine folds the Cast when it loads the file.
    """
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    casts = []
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALF_FROM_ELEMENTS:
            continue
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(np.float16).max):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_cast", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _walk(graph: Any) -> list[Any]:
    """Return the nodes that the outputs need, producers first, by a depth-first walk."""
    producer = {name: node for node in graph.node for name in node.output}
    done: set[int] = set()
    ordered: list[Any] = []
    stack = [(value.name, False) for value in reversed(graph.output)]
    while stack:
        name, expanded = stack.pop()
        node = producer.get(name)
        if node is None or id(node) in done:
            continue
        if expanded:
            done.add(id(node))
            ordered.append(node)
            continue
        stack.append((name, True))
        stack.extend((source, False) for source in reversed(node.input))
    return ordered


def _renamed_node(node: Any, index: int, names: dict[str, str]) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = f"n{index}_{node.op_type}"
    copy.doc_string = ""
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    attributes = sorted(copy.attribute, key=lambda attribute: attribute.name)
    del copy.attribute[:]
    copy.attribute.extend(attributes)
    return copy


def _renamed_tensor(tensor: Any, name: str) -> Any:
    """Return the tensor as raw little-endian data under a new name: one encoding for all."""
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor), name)


def _free_axes(value: Any, name: str) -> Any:
    """Return the value's type under a new name, its free axes named by their position."""
    copy = type(value)()
    copy.CopyFrom(value)
    copy.name = name
    copy.doc_string = ""
    for axis, dim in enumerate(copy.type.tensor_type.shape.dim):
        if not dim.HasField("dim_value") or dim.dim_value <= 0:
            dim.dim_param = "batch" if axis == 0 else f"{name}_{axis}"
    return copy


def _opset(proto: Any) -> int:
    return max(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
