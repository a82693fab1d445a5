"""Which tensors of a net share their channels' scale, and who would have to take it up.

Two tensors share it where what stands between them commutes with a positive factor per channel: ReLU does,
residual sums do where all terms have the same factor, hard-swish does not. A group of such tensors can be
scaled if only convolutions and dense layers write into it and read from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from boardfit.converters.quantize.graph import Graph, Node

_THROUGH = (
    "Dropout", "SpatialDropout2D", "Identity", "ZeroPadding2D", "Cropping2D", "UpSampling2D", "MaxPooling2D",
    "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "LeakyReLU",
)  # fmt: skip
_GATES = ("sigmoid", "hard_sigmoid")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Tensors whose channels share a scale.

    Attributes:
        channels: How many.
        labels: Of the tensors.
        writers: Weighted calls whose output channels take the scale.
        readers: Weighted calls whose input channels take its inverse.
        ceilings: Labels of what a clipped ReLU of the group reads, with the value that it clips at.
    """

    channels: int
    labels: tuple[str, ...]
    writers: tuple[Node, ...]
    readers: tuple[Node, ...]
    ceilings: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class _Ties:
    """Sets of labels that are joined step by step; one that is fixed keeps its scale."""

    parent: dict[str, str]
    fixed: set[str] = field(default_factory=set)
    ceilings: list[tuple[str, float]] = field(default_factory=list)

    def root(self, label: str) -> str:
        while self.parent[label] != label:
            label = self.parent[label]
        return label

    def tie(self, *labels: str) -> None:
        first = self.root(labels[0])
        for label in labels[1:]:
            self.parent[self.root(label)] = first

    def fix(self, *labels: str) -> None:
        self.fixed.update(labels)


def groups_of(graph: Graph) -> tuple[Group, ...]:
    """Return the groups of a folded net that can be scaled, in the order of the net."""
    labels = [graph.image, *(node.label for node in graph.nodes)]
    ties = _Ties({label: label for label in labels})
    ties.fix(graph.image, *graph.outputs)
    for node in graph.nodes:
        _visit(graph, node, ties)
    fixed = {ties.root(label) for label in ties.fixed}
    members: dict[str, list[str]] = {}
    for label in labels:
        members.setdefault(ties.root(label), []).append(label)
    found = [_group(graph, names, ties) for root, names in members.items() if root not in fixed]
    return tuple(group for group in found if group.readers and _fits(group))


def _group(graph: Graph, labels: list[str], ties: _Ties) -> Group:
    inside = set(labels)
    readers = tuple(n for n in graph.nodes if n.weighted and n.inputs[0] in inside)
    writers = tuple(n for n in graph.nodes if n.weighted and n.label in inside)
    ceilings = tuple((label, limit) for label, limit in ties.ceilings if label in inside)
    channels = int(writers[0].operation.output.shape[-1]) if writers else 0
    return Group(channels, tuple(labels), writers, readers, ceilings)


def _fits(group: Group) -> bool:
    widths = [node.operation.output.shape[-1] for node in group.writers]
    widths += [node.operation.input.shape[-1] for node in group.readers]
    return bool(group.writers) and set(widths) == {group.channels}


def _visit(graph: Graph, node: Node, ties: _Ties) -> None:
    """Tie what a call reads to what it writes, or fix both."""
    if node.weighted:
        if getattr(node.operation, "groups", 1) != 1:
            ties.fix(*node.inputs)
        return
    if node.once and len(node.inputs) == 1 and _commutes(node, ties):
        ties.tie(node.inputs[0], node.label)
    elif node.kind == "Add" and _alike(graph, node):
        ties.tie(*node.inputs, node.label)
    elif node.kind == "Multiply" and _gated(graph, node) is not None:
        gate = _gated(graph, node)
        ties.tie(node.label, *(label for label in node.inputs if label != gate))
        ties.fix(str(gate))
    else:
        ties.fix(*node.inputs, node.label)


def _commutes(node: Node, ties: _Ties) -> bool:
    """Return whether a call of one input commutes with positive factors; a ReLU's ceiling is noted."""
    import keras

    layer = node.operation
    if node.kind == "Activation":
        if layer.activation is keras.activations.relu6:
            ties.ceilings.append((node.inputs[0], 6.0))
        known = (keras.activations.relu, keras.activations.relu6, keras.activations.linear)
        return layer.activation in (*known, keras.activations.leaky_relu)
    if node.kind == "ReLU" and not layer.threshold:
        if layer.max_value is not None:
            ties.ceilings.append((node.inputs[0], float(layer.max_value)))
        return True
    if node.kind in ("Reshape", "Flatten"):
        # (N, 1, 1, C) and (N, C): every axis but the last holds one value.
        shapes = layer.input.shape, layer.output.shape
        return shapes[0][-1] == shapes[1][-1] and all(set(shape[1:-1]) <= {1} for shape in shapes)
    return node.kind in _THROUGH


def _alike(graph: Graph, node: Node) -> bool:
    """Return whether a sum has tensors alone as terms, all of one number of channels."""
    terms = [_output(graph, label) for label in node.inputs]
    width = node.operation.output.shape[-1]
    whole = len(node.inputs) == len(set(node.inputs)) and len(node.inputs) > 1
    return node.once and whole and all(len(t) == len(terms[0]) and t[-1] == width for t in terms)


def _output(graph: Graph, label: str) -> tuple[int | None, ...]:
    if label == graph.image:
        return tuple(graph.net.inputs[0].shape)
    return tuple(graph.by_label[label].operation.output.shape)


def _gated(graph: Graph, node: Node) -> str | None:
    """Return the label of a product's gate, which scales what it multiplies and takes no scale itself."""
    if len(node.inputs) != 2 or not node.once:
        return None
    for label, other in (node.inputs, node.inputs[::-1]):
        gate = graph.by_label.get(label)
        name = getattr(getattr(gate.operation, "activation", None), "__name__", "") if gate else ""
        if name in _GATES and _output(graph, other)[-1] == node.operation.output.shape[-1]:
            return label
    return None
