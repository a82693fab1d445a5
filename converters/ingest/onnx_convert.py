"""From folded graphs, one per size, to one Keras net: the walk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boardfit.converters.ingest.interface import FRAME
from boardfit.converters.ingest.last_activation import activation_behind
from boardfit.converters.ingest.onnx_inputs import further_values
from boardfit.converters.ingest.onnx_layout import align
from boardfit.converters.ingest.onnx_operators import HANDLERS
from boardfit.converters.ingest.onnx_records import (
    BOUND,
    FIXED,
    NHWC_OF_NCHW,
    SYMBOLIC,
    WAY_OUT,
    Build,
    Graph,
    Node,
    SizeBound,
    SizeVaries,
    Step,
    Value,
)
from boardfit.errors import BoardfitError, UnsupportedModel
from boardfit.specs import TensorSpec


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A Keras net made of ONNX graphs.

    Attributes:
        net: keras.Model, NHWC inside; its outputs have the source's order of axes, the batch first.
        outputs: Name, shape and activation of each output.
        batch_axes: Where each output's batch is in the source; ``HIDDEN`` where the source has dropped it.
    """

    net: Any
    outputs: tuple[TensorSpec, ...]
    batch_axes: tuple[int, ...]


def convert_graphs(
    graphs: Sequence[Graph], *, reading: str, own: int = 0, layout: str, name: str, task: str = "classify"
) -> Converted:
    """Turn the graphs of all sizes into one Keras net.

    Args:
        graphs: The same net at each size, folded and fused.
        reading: How explicit padding is read; see ``decide_padding``.
        own: Index of the source's own size, where ``reading`` is ``fixed``.
        layout: ``NCHW`` or ``NHWC``: the order of the graphs' input.
        name: The source's name.
        task: What the net is for; a classifier has one output, of (N, classes).

    Raises:
        SizeBound: A node is right at one size only.
        UnsupportedModel: A node cannot become a layer, or the graphs differ in more than size.
    """
    import keras

    build = Build(sizes=tuple(graph.size for graph in graphs), reading=reading, own=own)
    side = graphs[0].size if reading == BOUND else None
    image = keras.Input((side, side, 3), name=FRAME)
    axes = NHWC_OF_NCHW if layout == "NCHW" else (0, 1, 2, 3)
    first = Value(tuple(g.shapes[g.image] for g in graphs), tensor=image, axes=axes)
    values = {graphs[0].image: first, **further_values(graphs, side)}
    inputs = [value.tensor for value in values.values()]
    build.seen.extend(values.values())
    names = [
        {graph.image: graphs[0].image, **{item.source: item.source for item in graph.further}}
        for graph in graphs
    ]
    _require_same_length(graphs, name)
    for index, node in enumerate(graphs[0].nodes):
        step = _step(graphs, index, values, names)
        made = _run(step, build)
        _require_made(step, node.outputs[len(made) :], graphs[0])
        for output, value in zip(node.outputs, made, strict=False):
            values[output] = value
            build.seen.append(value)
        for table, graph in zip(names, graphs, strict=True):
            table.update(zip(graph.nodes[index].outputs, node.outputs, strict=True))
    batch = first.shapes[0][0]
    makers = {node.outputs[0]: (node.op, node.inputs[0]) for node in graphs[0].nodes}
    tensors, specs, places = [], [], []
    for output, label in zip(graphs[0].outputs, graphs[0].labels, strict=True):
        value = values[output]
        if task == "classify":
            _require_scores(value, batch, name, count=len(graphs[0].outputs))
        tensor, spec = _output(value, label, activation_behind(output, makers), build)
        tensors.append(tensor)
        specs.append(spec)
        places.append(value.axes[0])
    _name_operations(tensors, build)
    net = keras.Model(
        inputs if len(inputs) > 1 else image,
        tensors if len(tensors) > 1 else tensors[0],
        name=_identifier(name),
    )
    return Converted(net, tuple(specs), tuple(places))


def _name_operations(tensors: Sequence[Any], build: Build) -> None:
    """Name what is no layer after this net, where Keras counts the operations of the process."""
    import keras

    waiting, seen = list(tensors), set()
    while waiting:
        history = waiting.pop()._keras_history
        operation = history.operation
        if (operation, history.node_index) in seen:
            continue
        seen.add((operation, history.node_index))
        if not isinstance(operation, keras.layers.Layer):
            operation.name = build.name(f"op_{type(operation).__name__.lower()}")
        waiting.extend(operation._inbound_nodes[history.node_index].input_tensors)


def _require_scores(value: Value, batch: int, name: str, *, count: int) -> None:
    if count == 1 and value.rank == 2 and len(set(value.shapes)) == 1 and value.shapes[0][0] == batch:
        return
    found = f"{count} outputs" if count > 1 else f"an output of the shape {list(value.shapes[0])}"
    raise UnsupportedModel(
        f"{name} has {found}: a classifier has one, [N, classes]. Name what it is for: --task detect, "
        "segment, embed or raw; or add pooling and flattening to the net."
    )


def _output(value: Value, label: str, activation: str, build: Build) -> tuple[Any, TensorSpec]:
    """Return a value in the source's own order of axes, but the batch first, and its spec."""
    batch = value.axes[0]
    rest = [axis for axis in range(value.rank) if axis != batch]
    tensor = align(value, (batch, *rest), build)
    extents = [{shape[axis] for shape in value.shapes} for axis in rest]
    shape = (None, *(extent.pop() if len(extent) == 1 else None for extent in extents))
    return tensor, TensorSpec(label, shape, activation=activation)


def _step(
    graphs: Sequence[Graph], index: int, values: Mapping[str, Value], names: Sequence[Mapping[str, str]]
) -> Step:
    nodes = [graph.nodes[index] for graph in graphs]
    first = nodes[0]
    shapes = [
        tuple(g.shapes[n.outputs[place]] for g, n in zip(graphs, nodes, strict=True))
        for place in range(len(first.outputs))
        if all(len(node.outputs) == len(first.outputs) for node in nodes)
    ]
    step = Step(
        op=first.op,
        name=first.name,
        opset=graphs[0].opset,
        attrs=tuple(node.attrs for node in nodes),
        inputs=(),
        shapes=shapes[0] if shapes else (),
        others=tuple(shapes[1:]),
    )
    if not shapes or any(n.op != first.op or len(n.inputs) != len(first.inputs) for n in nodes):
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
    if len(found) > 1 or source is None or source not in values:
        raise step.refuse(f"its input {place} comes from another node at another size")
    return values[source]


def _run(step: Step, build: Build) -> tuple[Value, ...]:
    handler = HANDLERS.get(step.op)
    if handler is None:
        raise UnsupportedModel(
            f"ONNX node {step.name!r} has the operator {step.op} (opset {step.opset}), which boardfit "
            f"does not know. Known: {', '.join(sorted(HANDLERS))}. Replace it in the net, {WAY_OUT}."
        )
    try:
        made = handler(step, build)
    except SizeVaries as error:
        if build.reading in (FIXED, SYMBOLIC) and len(build.sizes) > 1:
            raise SizeBound(f"{step.name} ({step.op})") from error
        raise
    except (BoardfitError, SizeBound):
        raise
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError, AssertionError) as error:
        # Keras refuses arguments with any of these, and so does a damaged attribute.
        why = str(error).strip().split("\n")[0] or "its inputs or attributes are not what it needs"
        raise step.refuse(why) from error
    return made if isinstance(made, tuple) else (made,)


def _require_made(step: Step, missing: Sequence[str], graph: Graph) -> None:
    """Refuse a further output (the places of a MaxPool's maxima) if something is made of it."""
    wanted = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    if wanted.intersection(missing):
        raise step.refuse(f"its output {missing[0]!r} is used: only its first one is carried over")


def _require_same_length(graphs: Sequence[Graph], name: str) -> None:
    lengths = [len(graph.nodes) for graph in graphs]
    if len(set(lengths)) > 1:
        raise UnsupportedModel(
            f"{name} has {lengths} nodes at the sizes {[graph.size for graph in graphs]}: expected the same "
            "net at every size. Make a factory whose net does not change with the size."
        )


def _identifier(name: str) -> str:
    """Return the name with only letters, digits and underscores, as TensorFlow's scopes want it."""
    text = "".join(char if char.isascii() and char.isalnum() else "_" for char in name)
    return text if text[:1].isalpha() else f"net_{text}"
