"""Looking around in a folded graph: who makes and who uses a tensor."""

from __future__ import annotations

from collections import Counter

from boardfit.converters.ingest.onnx_records import Graph, Node


class Look:
    """Who makes and who uses each tensor of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.consts = graph.consts
        self.shapes = graph.shapes
        self.maker = {name: node for node in graph.nodes for name in node.outputs}
        self.uses = Counter(name for node in graph.nodes for name in node.inputs)
        self.uses.update(graph.outputs)

    def axes(self, node: Node) -> list[int] | None:
        """Return the axes that a Reduce names, from 0 and ascending, or None where it names none."""
        rank = len(self.shapes[node.inputs[0]]) if node.inputs[0] in self.shapes else 0
        given = node.attrs.get("axes")
        if len(node.inputs) > 1 and node.inputs[1] in self.consts:
            given = self.consts[node.inputs[1]].reshape(-1).tolist()
        return sorted(int(axis) % rank for axis in given) if given and rank else None

    def made_by(self, name: str, *ops: str) -> Node | None:
        """Return the node that makes a tensor, if it is one of some operators."""
        node = self.maker.get(name)
        return node if node is not None and node.op in ops else None

    def scalar(self, name: str) -> float | None:
        """Return a constant of one element as a number, or None."""
        const = self.consts.get(name)
        return None if const is None or const.size != 1 else float(const.reshape(-1)[0])

    def split(self, node: Node) -> tuple[str, float] | None:
        """Return (tensor, scalar) of a two-input node that has one of each, in either order."""
        for tensor, other in (node.inputs[:2], node.inputs[1::-1]):
            scalar = self.scalar(other)
            if scalar is not None and tensor not in self.consts:
                return tensor, scalar
        return None
