"""What the stages of the ONNX importer pass on: folded graphs, values, steps, the net being built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boardfit.converters.ingest.interface import Further
from boardfit.errors import UnsupportedModel

Shape = tuple[int, ...]

NHWC_OF_NCHW = (0, 2, 3, 1)
"""``Value.axes`` of an image: axis i of the Keras tensor holds axis ``NHWC_OF_NCHW[i]`` of the ONNX one."""

WAY_OUT = "bring the model from Keras, or build only ONNX and ncnn from the file, untouched: --pass-through"
"""How every refusal of an operator ends."""

HIDDEN = -1
"""In ``Value.axes``: the batch, whose extent of one ONNX has dropped."""

SYMBOLIC = "symbolic"
FIXED = "fixed"
EXPORTS = "exports"
ASSUMED = "assumed"
BOUND = "bound"


class SizeBound(Exception):
    """A node makes sense at one input size only. Internal: the importer turns it into a fixed size."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.node = node


class SizeVaries(UnsupportedModel):
    """A node's attribute or constant is another one at another size. Internal: it may bind the size."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator that is left after folding.

    Attributes:
        op: ONNX operator, or the name of a fused pattern (``Silu``).
        name: Name for messages.
        inputs: Names of tensors; empty where an optional input is absent.
        outputs: Names of tensors.
        attrs: Plain values: int, float, str, list or numpy array.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """An ONNX graph at one input size: constants evaluated, every shape known.

    Attributes:
        size: Input side in pixels.
        opset: Version of the ONNX operator set.
        image: Name of the input.
        outputs: Names of the tensors that are the outputs.
        labels: The source's names of the outputs.
        nodes: What remains, in an order that can be executed.
        consts: Every constant tensor by name.
        shapes: Shape of every computed tensor by name, in ONNX order.
        further: The inputs besides the image.
    """

    size: int
    opset: int
    image: str
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    nodes: tuple[Node, ...]
    consts: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape]
    further: tuple[Further, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor as a handler sees it: constants (one per size) or a Keras tensor.

    Attributes:
        shapes: ONNX shape at each size.
        consts: The constant at each size; empty for a computed tensor.
        tensor: The Keras tensor, batch first, or None.
        axes: ``axes[i]`` is the ONNX axis that axis i of the Keras tensor holds, so that a Transpose
            costs no layer. The first one is the batch, wherever ONNX keeps it; see ``HIDDEN``.
        nonnegative: No element is below zero.
        flat: Makes the (N, C) form of a pooled (N, 1, 1, C) tensor straight from the pooling.
        whole: The tensor before a reshape that split its axes, so that a part is cut from it.
    """

    shapes: tuple[Shape, ...]
    consts: tuple[np.ndarray, ...] = ()
    tensor: Any = None
    axes: tuple[int, ...] = ()
    nonnegative: bool = False
    flat: Callable[[], Any] | None = None
    whole: Whole | None = None

    @property
    def is_const(self) -> bool:
        """Whether the value is known before any image comes."""
        return bool(self.consts)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shapes[0])


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """A tensor before a reshape: (N, L, 3 * C) of what is now (N, L, 3, heads, C / heads), or transposed.

    Attributes:
        value: The tensor.
        shapes: What the reshape made of it, at each size.
        leads: Of each axis after the reshape that leads a group, the axis before that was split.
        perm: ``perm[i]`` is the reshape's axis that ONNX axis i is now.
    """

    value: Value
    shapes: tuple[Shape, ...]
    leads: Mapping[int, int]
    perm: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node of all sizes together.

    Attributes:
        op: ONNX operator or fused pattern.
        name: Name for messages, from the first size.
        opset: Version of the ONNX operator set.
        attrs: Attributes at each size.
        inputs: Values in the node's order; None where an optional input is absent.
        shapes: ONNX shape of the first output at each size.
        others: The same of each further output.
    """

    op: str
    name: str
    opset: int
    attrs: tuple[Mapping[str, Any], ...]
    inputs: tuple[Value | None, ...]
    shapes: tuple[Shape, ...]
    others: tuple[tuple[Shape, ...], ...] = ()

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute that must be the same at every size."""
        values = [attrs.get(name, default) for attrs in self.attrs]
        if any(not _same(value, values[0]) for value in values[1:]):
            raise SizeVaries(self._message(f"its attribute {name!r} differs from size to size ({values})"))
        return values[0]

    def const(self, index: int) -> np.ndarray | None:
        """Return a constant input that must be the same at every size, or None where it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            return None
        if not value.is_const:
            raise self.refuse(f"its input {index} is computed: expected a constant")
        if any(not _same(const, value.consts[0]) for const in value.consts[1:]):
            raise SizeVaries(self._message(f"its constant input {index} differs from size to size"))
        return value.consts[0]

    def data(self, index: int = 0) -> Value:
        """Return an input that must be computed from the image."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None or value.is_const:
            raise self.refuse(f"its input {index} is a constant: expected a tensor computed from the image")
        return value

    def ints(self, name: str, index: int, default: Sequence[int] | None = None) -> list[int] | None:
        """Return a list of ints that older opsets keep in an attribute and newer ones in an input."""
        const = self.const(index)
        value = const.reshape(-1).tolist() if const is not None else self.attr(name, default)
        return None if value is None else [int(item) for item in value]

    def refuse(self, why: str) -> UnsupportedModel:
        """Return the error that names this node."""
        return UnsupportedModel(self._message(why))

    def _message(self, why: str) -> str:
        return (
            f"ONNX node {self.name!r} ({self.op}, opset {self.opset}) cannot become a Keras layer: {why}. "
            f"Change that part of the net, {WAY_OUT}."
        )


@dataclass(slots=True)
class Build:
    """The Keras net while it grows: names, the reading of padding, notes.

    Attributes:
        sizes: Input side of each graph.
        reading: How explicit padding is read; see ``onnx_padding``.
        own: Index of the size that the source was made for, where ``reading`` is ``fixed``.
        notes: What was assumed.
        seen: Every computed tensor so far.
    """

    sizes: tuple[int, ...]
    reading: str
    own: int = 0
    notes: list[str] = field(default_factory=list)
    seen: list[Value] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def name(self, stem: str) -> str:
        """Return the next layer name of a kind: ``conv_1``, ``conv_2``; the same for the same graph."""
        self._counts[stem] = self._counts.get(stem, 0) + 1
        return f"{stem}_{self._counts[stem]}"

    def layer(
        self, kind: str, stem: str, tensor: Any, *, weights: Sequence[np.ndarray] = (), **config: Any
    ) -> Any:
        """Apply a new ``keras.layers`` layer to a tensor, or a list of tensors, and return its output.

        Args:
            kind: Class name in ``keras.layers``.
            stem: First part of the layer's name.
            tensor: Keras tensor or list of them.
            weights: What ``set_weights`` takes; empty to leave the layer as it is.
            **config: The layer's arguments.
        """
        import keras

        return self._apply(getattr(keras.layers, kind), stem, tensor, weights, config)

    def own_layer(
        self, kind: str, stem: str, tensor: Any, *, weights: Sequence[np.ndarray] = (), **config: Any
    ) -> Any:
        """Apply a new layer of ``own_layers``, as ``layer`` does one of Keras."""
        from boardfit.converters.ingest import own_layers

        return self._apply(getattr(own_layers, kind), stem, tensor, weights, config)

    def constant(self, array: np.ndarray, like: Any, *, tiled: bool = False) -> Any:
        """Return a weight as a Keras tensor: a batch axis, then the axes of ``array``.

        Args:
            array: Without a batch axis.
            like: Any tensor of the net.
            tiled: Whether the batch axis has as many rows as that of ``like``; else one.
        """
        return self.own_layer(
            "Constant", "constant", like, weights=[array[None]], extents=array.shape, tiled=tiled
        )

    def _apply(
        self, kind: Any, stem: str, tensor: Any, weights: Sequence[np.ndarray], config: Mapping[str, Any]
    ) -> Any:
        layer = kind(name=self.name(stem), **config)
        output = layer(tensor)
        if weights:
            layer.set_weights([np.asarray(weight, np.float32) for weight in weights])
        return output

    def bind(self, step: Step) -> None:
        """Say that a node is right at one input size only."""
        if self.reading == BOUND:
            return
        if len(self.sizes) > 1 and self.reading == EXPORTS:
            raise step.refuse("it does not follow the input size, so that the sizes cannot become one graph")
        raise SizeBound(f"{step.name} ({step.op})")


def make_value(step: Step, tensor: Any, axes: Sequence[int], *, nonnegative: bool = False) -> Value:
    """Wrap a handler's Keras tensor as the first output of its step."""
    return Value(shapes=step.shapes, tensor=tensor, axes=tuple(axes), nonnegative=nonnegative)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)
