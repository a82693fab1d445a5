"""A Keras net as a list of calls, so that surgery sees what reads what, and runs it call by call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from boardfit.converters.ingest.keras_rebuild import walk
from boardfit.errors import UnsupportedModel

BATCH = 16
"""Images that are run at once, or more where they are small."""
_VALUES = 4_000_000


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor in the arguments of a call."""

    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One call of a layer or an operation.

    Attributes:
        label: Of the tensor that it writes.
        operation: keras.Layer or keras.Operation.
        args: Positional arguments, a Ref for each tensor.
        kwargs: Named arguments, likewise.
        inputs: Labels of the tensors that it reads.
        once: Whether the operation is called nowhere else.
    """

    label: str
    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[str, ...]
    once: bool

    @property
    def kind(self) -> str:
        """Name of the operation's class."""
        return type(self.operation).__name__

    @property
    def weighted(self) -> bool:
        """Whether surgery may change its kernel: a convolution or dense layer of Keras, called once."""
        import keras

        kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
        return self.once and type(self.operation) in kinds


@dataclass(frozen=True, eq=False)
class Graph:
    """A flat functional net of one input.

    Attributes:
        net: keras.Model.
        nodes: Its calls, producers first.
        image: Label of the input.
        outputs: Labels of the outputs.
    """

    net: Any
    nodes: tuple[Node, ...]
    image: str
    outputs: tuple[str, ...]

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """Who reads each tensor; the net's outputs are read by nobody."""
        found: dict[str, list[Node]] = {self.image: [], **{node.label: [] for node in self.nodes}}
        for node in self.nodes:
            for label in dict.fromkeys(node.inputs):
                found[label].append(node)
        return {label: tuple(nodes) for label, nodes in found.items()}

    @cached_property
    def by_label(self) -> Mapping[str, Node]:
        """Who writes each tensor."""
        return {node.label: node for node in self.nodes}

    def only_reader(self, label: str) -> Node | None:
        """Return the one call that reads a tensor; None where several or the caller of the net do."""
        readers = self.readers[label]
        return readers[0] if len(readers) == 1 and label not in self.outputs else None


def graph_of(net: Any) -> Graph:
    """Return the calls of a net.

    Args:
        net: keras.Model, functional, one input.

    Raises:
        UnsupportedModel: It has no graph, or a call writes several tensors.
    """
    import keras

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Ref:
        if len(keras.tree.flatten(operation._inbound_nodes[0].output_tensors)) != 1:
            raise UnsupportedModel(f"{operation.name} of {net.name} writes several tensors: expected one")
        calls.append((operation, args, kwargs))
        return Ref(f"{len(calls)}:{operation.name}")

    image = Ref("image")
    answer = walk(net, image, call)
    outputs = tuple(ref.label for ref in keras.tree.flatten(answer))
    count = Counter(id(operation) for operation, _, _ in calls)
    nodes = tuple(
        Node(
            label=f"{number}:{operation.name}",
            operation=operation,
            args=args,
            kwargs=kwargs,
            inputs=tuple(x.label for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Ref)),
            once=count[id(operation)] == 1,
        )
        for number, (operation, args, kwargs) in enumerate(calls, start=1)
    )
    return Graph(net=net, nodes=nodes, image=image.label, outputs=outputs)


def run_node(node: Node, values: Mapping[str, np.ndarray], operation: Any = None) -> np.ndarray:
    """Run one call on the values of its tensors, in batches.

    Args:
        node: The call.
        values: By label; N rows each, or one that serves all.
        operation: What to call in place of the node's own.
    """
    import keras

    chosen = operation or node.operation
    read = [values[label] for label in node.inputs]
    rows = max(len(value) for value in read)
    batch = max(BATCH, _VALUES // max(value[0].size for value in read))
    found = None
    for start in range(0, rows, batch):

        def part(leaf: Any, start: int = start) -> Any:
            if not isinstance(leaf, Ref):
                return leaf
            value = values[leaf.label]
            return value if len(value) == 1 else value[start : start + batch]

        args, kwargs = keras.tree.map_structure(part, (node.args, dict(node.kwargs)))
        written = np.asarray(keras.ops.convert_to_numpy(chosen(*args, **kwargs)), np.float32)
        if found is None:
            if len(written) == 1 and min(batch, rows) > 1:
                return written  # a constant, which serves all images
            found = np.empty((rows, *written.shape[1:]), np.float32)
        found[start : start + batch] = written
    assert found is not None
    return found


def forget(values: MutableMapping[str, np.ndarray], graph: Graph, position: int) -> None:
    """Drop the values that no call behind ``position`` reads."""
    needed = {label for node in graph.nodes[position + 1 :] for label in node.inputs} | set(graph.outputs)
    for label in [label for label in values if label not in needed]:
        del values[label]


def largest_difference(found: Any, expected: Any, images: np.ndarray) -> float:
    """Return how far two nets differ: the largest difference over the largest magnitude, of each output.

    Args:
        found: keras.Model.
        expected: keras.Model.
        images: (N, S, S, 3) float32.
    """
    import keras

    worst = 0.0
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        pairs = zip(
            keras.tree.flatten(found(part, training=False)),
            keras.tree.flatten(expected(part, training=False)),
            strict=True,
        )
        for a, b in (map(keras.ops.convert_to_numpy, pair) for pair in pairs):
            worst = max(worst, float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-12)))
    return worst if np.isfinite(worst) else float("inf")
