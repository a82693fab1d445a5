"""Folding: at one input size, evaluate everything that does not depend on the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_file import OnnxSource, initializers, require_onnx
from boardfit.converters.ingest.onnx_inputs import further_shape
from boardfit.converters.ingest.onnx_records import Graph, Node, Shape
from boardfit.errors import UnsupportedModel

# fmt: off
ARITHMETIC = frozenset((
    "Abs", "Add", "And", "ArgMax", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape",
    "Conv", "Cos", "CumSum", "Div", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow",
    "Range", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "Reshape", "Round", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax",
    "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
))
# fmt: on
"""Operators that may be evaluated. Each is harmless on arrays whose size is known to be small enough."""

MAX_ELEMENTS = 1 << 26
"""No constant of a real net that is computed, not stored, comes near this (256 MiB of float32)."""

_SHAPE_DATA = 4096
"""Constants up to this many elements are shown to shape inference, which wants shapes, not weights."""

_LIKE_INPUT = ("GroupNormalization",)
"""Operators that keep their input's shape, which ONNX's own inference does not say."""


class SizeImpossible(UnsupportedModel):
    """A node cannot take the shape that it gets at this input size."""

    def __init__(self, message: str, node: str) -> None:
        super().__init__(message)
        self.node = node


class _Folder:
    """The state of one walk through the nodes: constants and the types of computed tensors by name."""

    def __init__(self, source: OnnxSource, size: int) -> None:
        self.onnx = require_onnx()
        self.source = source
        self.size = size
        self.consts: dict[str, np.ndarray] = dict(initializers(source))
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, Any] = {}
        self.nodes: list[Node] = []
        batch = source.batch or 1
        shape = (batch, 3, size, size) if source.layout == "NCHW" else (batch, size, size, 3)
        self._know(source.image, self.onnx.TensorProto.FLOAT, shape)
        for item in source.further:
            kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(item.spec.dtype))
            self._know(item.source, kind, further_shape(item, batch, size))

    def visit(self, proto: Any) -> None:
        if proto.domain not in ("", "ai.onnx") or any(attr.HasField("g") for attr in proto.attribute):
            raise self._refuse(proto, "only standard operators without subgraphs can become Keras layers")
        inputs = [name for name in proto.input if name]
        missing = [name for name in inputs if name not in self.consts and name not in self.types]
        if missing:
            raise self._refuse(proto, f"its input {missing[0]!r} is made by no node: the file is damaged")
        if proto.op_type == "Constant":
            self.consts[proto.output[0]] = self._constant(proto)
        elif proto.op_type in ("Shape", "Size") and inputs[0] in self.shapes:
            self.consts[proto.output[0]] = self._shape_of(proto)
        elif all(name in self.consts for name in inputs):
            self._evaluate(proto)
        else:
            self._keep(proto)

    def _constant(self, proto: Any) -> np.ndarray:
        value = self.onnx.helper.get_attribute_value(proto.attribute[0])
        kind = proto.attribute[0].name
        if kind == "value":
            return np.asarray(self.onnx.numpy_helper.to_array(value))
        if kind in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
        if kind in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        raise self._refuse(proto, f"its attribute {kind} is no number")

    def _shape_of(self, proto: Any) -> np.ndarray:
        shape = self.shapes[proto.input[0]]
        if proto.op_type == "Size":
            return np.asarray(math.prod(shape), np.int64)
        attrs = _attributes(self.onnx, proto)
        return np.asarray(shape[attrs.get("start", 0) : attrs.get("end", len(shape))], np.int64)

    def _evaluate(self, proto: Any) -> None:
        if proto.op_type not in ARITHMETIC:
            raise self._refuse(
                proto, "all its inputs are constants, and it is not among the operators that fold"
            )
        for shape, _ in self._infer(proto).values():
            if shape is None or math.prod(shape) > MAX_ELEMENTS:
                raise self._refuse(proto, f"its constant result of shape {shape} is unknown or too large")
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        feeds = {name: self.consts[name] for name in proto.input if name}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ]
        outputs = [helper.make_value_info(name, self.onnx.TypeProto()) for name in proto.output]
        graph = helper.make_graph([proto], "fold", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.source.opset)])
        try:
            results = self.onnx.reference.ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # the evaluator raises whatever numpy raised
            raise self._refuse(proto, f"its constants cannot be computed ({error})") from error
        for name, result in zip(proto.output, results, strict=True):
            is_tensor = isinstance(result, self.onnx.TensorProto)
            self.consts[name] = np.asarray(numpy_helper.to_array(result) if is_tensor else result)

    def _keep(self, proto: Any) -> None:
        for name, (shape, elem_type) in self._infer(proto).items():
            if shape is not None and any(extent <= 0 for extent in shape):
                raise self._impossible(proto, f"its output would have the shape {list(shape)}")
            if shape is None:
                raise self._refuse(proto, "the shape of its output cannot be told before an image comes")
            self._know(name, elem_type, shape)
        self.nodes.append(
            Node(
                op=proto.op_type,
                name=proto.name or proto.output[0],
                inputs=tuple(proto.input),
                outputs=tuple(name for name in proto.output if name),
                attrs=_attributes(self.onnx, proto),
            )
        )

    def _infer(self, proto: Any) -> Mapping[str, tuple[Shape | None, int]]:
        """Shape and element type of every output, by ONNX's own inference."""
        onnx = self.onnx
        names = {name for name in proto.input if name}
        types = {name: self.types[name] for name in names if name in self.types}
        data = {}
        for name in names & self.consts.keys():
            array = self.consts[name]
            elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            types[name] = onnx.helper.make_tensor_type_proto(elem_type, array.shape)
            if array.size <= _SHAPE_DATA:
                data[name] = onnx.numpy_helper.from_array(
                    np.ascontiguousarray(array).reshape(array.shape), name
                )
        try:
            schema = onnx.defs.get_schema(proto.op_type, self.source.opset, "")
            opset = [onnx.helper.make_opsetid("", self.source.opset)]
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, proto, types, data, opset_imports=opset
            )
        except onnx.defs.SchemaError as error:
            raise self._refuse(proto, "it is no operator of this opset") from error
        except Exception as error:
            raise self._impossible(proto, f"ONNX refuses its shapes ({str(error).strip()})") from error
        known = {name: _shape_and_type(inferred.get(name)) for name in proto.output if name}
        if proto.op_type in _LIKE_INPUT and proto.input[0] in self.shapes:
            like = self.shapes[proto.input[0]], self.types[proto.input[0]].tensor_type.elem_type
            known[proto.output[0]] = like
        return known

    def _know(self, name: str, elem_type: int, shape: Shape) -> None:
        self.shapes[name] = shape
        self.types[name] = self.onnx.helper.make_tensor_type_proto(elem_type, shape)

    def _refuse(self, proto: Any, why: str) -> UnsupportedModel:
        return UnsupportedModel(self._message(proto, why))

    def _impossible(self, proto: Any, why: str) -> SizeImpossible:
        label = f"{proto.name or proto.output[0]} ({proto.op_type})"
        return SizeImpossible(self._message(proto, f"at {self.size} pixels {why}"), label)

    def _message(self, proto: Any, why: str) -> str:
        return (
            f"ONNX node {proto.name or proto.output[0]!r} ({proto.domain or 'ai.onnx'} {proto.op_type}, "
            f"opset {self.source.opset}) of {self.source.name} cannot be read: {why}. Change that part of "
            "the net, or export the model again with standard operators."
        )


def fold_graph(source: OnnxSource, size: int) -> Graph:
    """Return the graph at one input size, constants evaluated and shapes known.

    Args:
        source: The model.
        size: Input side in pixels.

    Raises:
        SizeImpossible: A node cannot take what it gets at this size.
        UnsupportedModel: A node is damaged, not standard, or of unknown shape.
    """
    folder = _Folder(source, size)
    for proto in source.model.graph.node:
        folder.visit(proto)
    for output in source.outputs:
        if output not in folder.shapes:
            raise UnsupportedModel(
                f"the output {output!r} of {source.name} does not depend on the image. Export it again."
            )
    return Graph(
        size=size,
        opset=source.opset,
        image=source.image,
        further=source.further,
        outputs=source.outputs,
        labels=source.outputs,
        nodes=tuple(folder.nodes),
        consts=folder.consts,
        shapes=folder.shapes,
    )


def _attributes(onnx: Any, proto: Any) -> dict[str, Any]:
    values = {attr.name: onnx.helper.get_attribute_value(attr) for attr in proto.attribute}
    return {
        name: value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else np.asarray(onnx.numpy_helper.to_array(value))
        if isinstance(value, onnx.TensorProto)
        else list(value)
        if isinstance(value, (list, tuple)) or type(value).__name__.startswith("Repeated")
        else value
        for name, value in values.items()
    }


def _shape_and_type(proto: Any) -> tuple[Shape | None, int]:
    if proto is None or not proto.tensor_type.HasField("shape"):
        return None, 0
    dims = proto.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None, 0
    return tuple(dim.dim_value for dim in dims), proto.tensor_type.elem_type
