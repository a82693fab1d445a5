"""A .tflite file as a quantizer sees it: its layers, and what its tensors are called in the float file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from boardfit.converters.quantize.records import Layer
from boardfit.errors import ExportError

_KINDS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "deconv",
    "FULLY_CONNECTED": "dense",
    "BATCH_MATMUL": "matmul",
}
_CALL = "_1"
"""Keras counts a net's call for export as its second, and ends the name of every layer so."""
_CASTS = ("QUANTIZE", "DEQUANTIZE")
_MAKERS = ("conv", "depthwise", "matmul", "einsum", "dot")
"""How the converter's names of what multiplies begin, in lower case."""


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operator of the main graph.

    Attributes:
        code: Its name in the schema, such as ``CONV_2D``.
        inputs: Places of its tensors; -1 where an optional one is missing.
        outputs: Places of its tensors.
        options: The schema's options of this operator, or None.
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    @property
    def data(self) -> int:
        """The place among ``inputs`` of the activation that a layer reads."""
        return 2 if self.code == "TRANSPOSE_CONV" else 0

    @property
    def weight(self) -> int:
        """The tensor that a layer multiplies by."""
        return self.inputs[1]

    @property
    def bias(self) -> int:
        """The tensor of a layer's bias, or -1."""
        place = 3 if self.code == "TRANSPOSE_CONV" else 2
        return self.inputs[place] if self.code != "BATCH_MATMUL" and len(self.inputs) > place else -1


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A file's main graph and what is asked of it again and again.

    Attributes:
        model: The schema's ModelT; whoever changes it reads the file anew.
        graph: Its first SubGraphT.
        ops: The graph's operators, in their order.
        names: By tensor, its name in the float file: a tensor that was rounded goes by the name of the one
            that was rounded.
    """

    model: Any
    graph: Any
    ops: tuple[Op, ...]
    names: tuple[str, ...]

    def is_constant(self, tensor: int) -> bool:
        """Return whether a tensor's values stand in the file."""
        return self.model.buffers[self.graph.tensors[tensor].buffer].data is not None

    def values(self, tensor: int) -> np.ndarray:
        """Return the values of a constant float32, int8, int32 or int64 tensor."""
        found = self.graph.tensors[tensor]
        dtype = {"FLOAT32": np.float32, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64}[
            self.type_of(tensor)
        ]
        return np.frombuffer(self.model.buffers[found.buffer].data, dtype).reshape(self.shape(tensor))

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape; (1,) for a scalar."""
        shape = self.graph.tensors[tensor].shape
        return tuple(int(side) for side in shape) if shape is not None and len(shape) else (1,)

    def type_of(self, tensor: int) -> str:
        """Return the name of a tensor's type, such as ``FLOAT32``."""
        return _type_names()[self.graph.tensors[tensor].type]

    def scales(self, tensor: int) -> np.ndarray:
        """Return a tensor's float64 steps, one or one per channel; empty where it is not quantized."""
        found = self.graph.tensors[tensor].quantization
        known = found is not None and found.scale is not None
        return np.asarray(found.scale if known else [], np.float64)

    def activations(self) -> dict[str, int]:
        """Return the tensors that hold activations, by name; of several forms of one, the integer one."""
        made = [*self.graph.inputs, *(tensor for op in self.ops for tensor in op.outputs)]
        found: dict[str, int] = {}
        for tensor in made:
            integer = self.type_of(tensor) in ("INT8", "INT16") and len(self.scales(tensor)) > 0
            floating = self.type_of(tensor) == "FLOAT32"
            name = self.names[tensor]
            if (integer or floating) and (name not in found or (integer and self._is_float(found[name]))):
                found[name] = tensor
        return found

    def layers(self) -> Iterator[tuple[Op, Layer]]:
        """Yield the operators that hold weights or multiply activations, with what they are."""
        ops = [op for op in self.ops if op.code in _KINDS]
        short = [_short_name(self.names[op.weight]) for op in ops]
        if all(name.endswith(_CALL) for name in short):
            short = [name.removesuffix(_CALL) for name in short]
        for op, name in zip(ops, short, strict=True):
            # A layer whose weights go by no name of their own goes by that of what it writes.
            own = name if name and short.count(name) == 1 else self.names[op.outputs[0]]
            yield op, self._layer(op, own)

    def _is_float(self, tensor: int) -> bool:
        return self.type_of(tensor) == "FLOAT32"

    def _layer(self, op: Op, name: str) -> Layer:
        read = [op.inputs[op.data]] if op.code != "BATCH_MATMUL" else list(op.inputs)
        constant = self.is_constant(op.weight)
        return Layer(
            name=name,
            kind=_KINDS[op.code],
            macs=self._macs(op),
            weights=int(np.prod(self.shape(op.weight))) if constant else 0,
            inputs=tuple(self.names[tensor] for tensor in read if not self.is_constant(tensor)),
            output=self.names[op.outputs[0]],
            # A float activation beside integer weights: the kernel rounds it while it runs.
            integer=self.type_of(op.weight) in ("INT8", "INT16"),
        )

    def _macs(self, op: Op) -> int:
        weight, output = self.shape(op.weight), self.shape(op.outputs[0])
        if op.code == "BATCH_MATMUL":
            left = self.shape(op.inputs[0])
            return int(np.prod(output)) * left[-2 if op.options is not None and op.options.adjX else -1]
        if op.code == "FULLY_CONNECTED":
            return int(np.prod(weight)) * int(np.prod(output)) // weight[0]
        places = self.shape(op.inputs[op.data]) if op.code == "TRANSPOSE_CONV" else output
        return int(np.prod(weight)) * int(np.prod(places[1:3]))


def view_of(data: bytes, *, name: str) -> View:
    """Return the view of a .tflite file.

    Args:
        data: The file.
        name: Of the artifact, for errors.

    Raises:
        ExportError: It is no .tflite file, or two activations have one name.
    """
    from ai_edge_litert import schema_py_generated as schema

    if data[4:8] != b"TFL3":
        raise ExportError(f"{name} is no .tflite file: expected the mark TFL3; export the model again")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            # Behind the flatbuffer: runtimes before 2024 do not look there, so pack() does not write it so.
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    graph = model.subgraphs[0]
    ops = tuple(_op(operator, model) for operator in graph.operators)
    names = _float_names(graph, ops)
    casts = {tensor for op in ops if op.code in _CASTS for tensor in op.outputs}
    roots = [names[tensor] for op in ops for tensor in op.outputs if tensor not in casts]
    twice = sorted(root for root, count in Counter(roots).items() if count > 1)
    if twice:
        raise ExportError(
            f"{name} has {len(twice)} names that two tensors share, the first is {twice[0]!r}: ranges go by "
            "name; give the layers of the source different names"
        )
    return View(model=model, graph=graph, ops=ops, names=names)


def pack(model: Any) -> bytes:
    """Return the .tflite file of a ModelT. Its buffers become fit for nothing but packing.

    Equal vectors are written once: each channel's zero point of int8 weights is a 0 of 8 bytes, once more for
    its bias, in a small net a fifth of the file.
    """
    builder = _sharing_builder()
    model.buffers = [_Aligned(buffer) for buffer in model.buffers]
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _sharing_builder() -> Any:
    """Return a flatbuffer's builder that writes equal vectors of numbers once."""
    import flatbuffers

    class Sharing(flatbuffers.Builder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(1 << 20)
            self._places: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 - as flatbuffers calls it
            key = x.dtype.str, x.tobytes()
            if key not in self._places:
                self._places[key] = super().CreateNumpyVector(x)
            return self._places[key]

    return Sharing()


class _Aligned:
    """A buffer that is written at a multiple of 16, as the schema demands and its Python code does not do."""

    def __init__(self, buffer: Any) -> None:
        self._data = None if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()

    def Pack(self, builder: Any) -> int:  # noqa: N802 - as the schema's classes call it
        """Write the buffer and return its place."""
        from ai_edge_litert import schema_py_generated as schema

        place = None
        if self._data is not None:
            builder.StartVector(1, len(self._data), 16)
            builder.head = builder.Head() - len(self._data)
            builder.Bytes[builder.head : builder.head + len(self._data)] = self._data
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return int(schema.BufferEnd(builder))


def tensor_name(tensor: Any) -> str:
    """Return the name of a TensorT."""
    return str((tensor.name or b"").decode())


def _op(operator: Any, model: Any) -> Op:
    code = model.operatorCodes[operator.opcodeIndex]
    # Files from before 2020 keep small codes in the older field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return Op(
        code=_op_names().get(number, "CUSTOM"),
        inputs=tuple(int(tensor) for tensor in _listed(operator.inputs)),
        outputs=tuple(int(tensor) for tensor in _listed(operator.outputs)),
        options=operator.builtinOptions,
    )


def _listed(tensors: Any) -> Any:
    return [] if tensors is None else tensors


def _float_names(graph: Any, ops: tuple[Op, ...]) -> tuple[str, ...]:
    """Return by tensor the name of what it was before rounding.

    An output of the graph keeps its name when it is quantized, and the integers behind it get another.
    """
    source = {op.outputs[0]: op.inputs[0] for op in ops if op.code in _CASTS}
    roots = list(range(len(graph.tensors)))
    for tensor in roots:
        while roots[tensor] in source:
            roots[tensor] = source[roots[tensor]]
    names = [tensor_name(tensor) for tensor in graph.tensors]
    before = list(names)
    for output in graph.outputs:
        names[roots[output]] = before[output]
    return tuple(names[root] for root in roots)


def _short_name(weight: str) -> str:
    """Return a layer's name from that of its weights, in which the converter lists what it has fused.

    ``net/bn_1/mul;net/block_2_conv_1/depthwise`` becomes ``block_2_conv_1``.
    """
    for part in weight.split(";"):
        path = part.split("/")
        if len(path) > 1 and path[-1].lower().startswith(_MAKERS):
            return path[-2]
    return ""


def _op_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: key for key, value in vars(schema.BuiltinOperator).items() if not key.startswith("_")}


def _type_names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {value: key for key, value in vars(schema.TensorType).items() if not key.startswith("_")}
