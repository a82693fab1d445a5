"""From folded graphs, one per size, to one Keras net: the table of operators and the walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boardfit.converters.ingest import onnx_elementwise as elementwise
from boardfit.converters.ingest import onnx_layers as layers
from boardfit.converters.ingest import onnx_pools as pools
from boardfit.converters.ingest import onnx_shapes as shapes
from boardfit.converters.ingest.onnx_records import (
    BOUND,
    NHWC_OF_NCHW,
    Build,
    Graph,
    Node,
    SizeBound,
    Step,
    Value,
    align,
)
from boardfit.errors import BoardfitError, UnsupportedModel

Handler = Callable[[Step, Build], Value]

HANDLERS: Mapping[str, Handler] = {
    "Add": elementwise.add,
    "AveragePool": pools.average_pool,
    "BatchNormalization": layers.batch_normalization,
    "Clip": elementwise.clip,
    "Concat": shapes.concat,
    "Conv": layers.conv,
    "Div": elementwise.div,
    "Elu": elementwise.elu,
    "Flatten": shapes.reshape,
    "Gelu": elementwise.gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": pools.global_average_pool,
    "GlobalMaxPool": pools.global_max_pool,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.hard_swish,
    "LeakyRelu": elementwise.leaky_relu,
    "MatMul": layers.matmul,
    "MaxPool": pools.max_pool,
    "Mul": elementwise.mul,
    "PRelu": elementwise.prelu,
    "Pad": shapes.pad,
    "ReduceMax": pools.reduce_max,
    "ReduceMean": pools.reduce_mean,
    "Relu": elementwise.relu,
    "Reshape": shapes.reshape,
    "Sigmoid": elementwise.sigmoid,
    "Silu": elementwise.silu,
    "Softmax": elementwise.softmax,
    "Squeeze": shapes.reshape,
    "Sub": elementwise.sub,
    "Tanh": elementwise.tanh,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.reshape,
}
"""Operator -> handler. Identity, Dropout, Cast, constants and shape arithmetic are gone before this table."""

_BENDING = frozenset(
    ("Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Silu", "Tanh")
)
"""What comes out of these is no logit any more: a softmax over it would be made up."""


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A Keras net made of ONNX graphs.

    Attributes:
        net: keras.Model, NHWC.
        activation: Of the output: ``logits``, ``softmax``, ``sigmoid``, or ``none`` behind another one.
        classes: Columns of the output.
    """

    net: Any
    activation: str
    classes: int


def convert_graphs(
    graphs: Sequence[Graph], *, reading: str, own: int = 0, layout: str, name: str
) -> Converted:
    """Turn the graphs of all sizes into one Keras net.

    Args:
        graphs: The same net at each size, folded and fused.
        reading: How explicit padding is read; see ``decide_padding``.
        own: Index of the source's own size, where ``reading`` is ``fixed``.
        layout: ``NCHW`` or ``NHWC``: the order of the graphs' input.
        name: The source's name.

    Raises:
        SizeBound: A node is right at one size only.
        UnsupportedModel: A node cannot become a layer, or the graphs differ in more than size.
    """
    import keras

    build = Build(sizes=tuple(graph.size for graph in graphs), reading=reading, own=own)
    side = graphs[0].size if reading == BOUND else None
    image = keras.Input((side, side, 3), name="image")
    batch = graphs[0].shapes[graphs[0].image][0]
    axes = NHWC_OF_NCHW if layout == "NCHW" else (0, 1, 2, 3)
    values = {graphs[0].image: Value(tuple(g.shapes[g.image] for g in graphs), tensor=image, axes=axes)}
    names = [{graph.image: graphs[0].image} for graph in graphs]
    _require_same_length(graphs, name)
    for index, node in enumerate(graphs[0].nodes):
        step = _step(graphs, index, values, names)
        values[node.outputs[0]] = _run(step, build)
        for table, graph in zip(names, graphs, strict=True):
            table.update(zip(graph.nodes[index].outputs[:1], node.outputs[:1], strict=True))
    output = values[graphs[0].outputs[0]]
    if output.rank != 2 or len(set(output.shapes)) > 1 or output.shapes[0][0] != batch:
        raise UnsupportedModel(
            f"the output of {name} has the shape {list(output.shapes[0])}: expected [N, classes]. "
            "Add pooling and flattening to the net, or bring one that classifies."
        )
    net = keras.Model(image, align(output, (0, 1), build), name=_identifier(name))
    return Converted(net, _activation(graphs[0]), output.shapes[0][1])


def _step(
    graphs: Sequence[Graph], index: int, values: Mapping[str, Value], names: Sequence[Mapping[str, str]]
) -> Step:
    nodes = [graph.nodes[index] for graph in graphs]
    first = nodes[0]
    step = Step(
        op=first.op,
        name=first.name,
        opset=graphs[0].opset,
        attrs=tuple(node.attrs for node in nodes),
        inputs=(),
        shapes=tuple(g.shapes[n.outputs[0]] for g, n in zip(graphs, nodes, strict=True)),
    )
    if any(node.op != first.op or len(node.inputs) != len(first.inputs) for node in nodes):
        raise step.refuse(f"at the sizes {[g.size for g in graphs]} it is {[node.op for node in nodes]}")
    inputs = [_input(step, graphs, nodes, place, values, names) for place in range(len(first.inputs))]
    return replace(step, inputs=tuple(inputs))


def _input(
    step: Step,
    graphs: Sequence[Graph],
    nodes: Sequence[Node],
    place: int,
    values: Mapping[str, Value],
    names: Sequence[Mapping[str, str]],
) -> Value | None:
    wanted = [node.inputs[place] for node in nodes]
    if not any(wanted):
        return None
    if all(name in graph.consts for name, graph in zip(wanted, graphs, strict=True)):
        consts = tuple(graph.consts[name] for name, graph in zip(wanted, graphs, strict=True))
        return Value(shapes=tuple(const.shape for const in consts), consts=consts)
    found = {table.get(name) for name, table in zip(wanted, names, strict=True)}
    source = next(iter(found))
    if len(found) > 1 or source is None:
        raise step.refuse(
            f"its input {place} comes from another node at another size, or from a second output"
        )
    return values[source]


def _run(step: Step, build: Build) -> Value:
    handler = HANDLERS.get(step.op)
    if handler is None:
        raise UnsupportedModel(
            f"ONNX node {step.name!r} has the operator {step.op} (opset {step.opset}), which boardfit "
            f"does not know. Known: {', '.join(sorted(HANDLERS))}. Replace it in the net, or "
            "bring the model from Keras."
        )
    try:
        return handler(step, build)
    except (BoardfitError, SizeBound):
        raise
    except (ValueError, TypeError, IndexError, KeyError) as error:
        # Keras refuses arguments with any of these, and so does a damaged attribute.
        raise step.refuse(str(error).strip().split("\n")[0]) from error


def _require_same_length(graphs: Sequence[Graph], name: str) -> None:
    lengths = [len(graph.nodes) for graph in graphs]
    if len(set(lengths)) > 1:
        raise UnsupportedModel(
            f"{name} has {lengths} nodes at the sizes {[graph.size for graph in graphs]}: expected the same "
            "net at every size. Make a factory whose net does not change with the size."
        )


def _activation(graph: Graph) -> str:
    """What the last node makes of the scores, looking through what only moves them."""
    maker = {node.outputs[0]: node for node in graph.nodes}
    name = graph.outputs[0]
    while name in maker and maker[name].op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"):
        name = maker[name].inputs[0]
    op = maker[name].op if name in maker else ""
    return "none" if op in _BENDING else {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(op, "logits")


def _identifier(name: str) -> str:
    """Return the name with only letters, digits and underscores, as TensorFlow's scopes want it."""
    text = "".join(char if char.isascii() and char.isalnum() else "_" for char in name)
    return text if text[:1].isalpha() else f"net_{text}"
