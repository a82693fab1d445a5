"""Looking into an ONNX artifact: its inner tensors, and which of its layers run in integers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.quantize.records import Layer
from boardfit.converters.targets import Exported
from boardfit.converters.targets.onnx_view import CONVOLUTIONS, View, known_as, read, view_of
from boardfit.errors import EngineError

_INTEGER_KERNELS = ("ConvInteger", "MatMulInteger", "QGemm", "QLinearConv", "QLinearMatMul")
_FUSED_KERNELS = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_SEEN = "~seen"
"""Ending of the names of outputs that only the probe has."""


class OnnxProbe:
    """An ONNX artifact whose inner tensors are its outputs."""

    def __init__(self, exported: Exported, *, threads: int = 1) -> None:
        """Load it.

        Raises:
            EngineError: ONNX Runtime refuses the artifact.
        """
        proto = read(exported)
        self._names = _expose(proto)
        self._session: Any = _session(proto.SerializeToString(), exported.artifact.name, threads=threads)
        self._input = exported.artifact.inputs[0].name

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run once; see ``records.Probe``. Feature maps are NCHW, as the format has them."""
        fed = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
        arrays = self._session.run(list(self._names.values()), {self._input: fed})
        return {self._input: fed, **dict(zip(self._names, arrays, strict=True))}

    def close(self) -> None:
        """Free the session."""
        self._session = None


def layers(exported: Exported) -> tuple[Layer, ...]:
    """Return the layers, with what ONNX Runtime made of them on this machine.

    Raises:
        EngineError: ONNX Runtime refuses the artifact.
    """
    view = view_of(read(exported))
    quantized = any(node.op_type in ("QuantizeLinear", *_INTEGER_KERNELS) for node in view.proto.graph.node)
    integer = integer_nodes(exported) if quantized else frozenset()
    return tuple(_layer(view, node, node.name in integer) for node in view.layers())


def integer_nodes(exported: Exported) -> frozenset[str]:
    """Return the names of the nodes that ONNX Runtime runs in integer kernels, read from what it optimized.

    Raises:
        EngineError: ONNX Runtime refuses the artifact.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="boardfit-") as folder:
        path = Path(folder) / "optimized.onnx"
        data = exported.files[exported.artifact.files[0]]
        _session(data, exported.artifact.name, threads=1, optimized=path)
        graph = onnx.load(path).graph
    found = set()
    for node in graph.node:
        if node.op_type in _INTEGER_KERNELS:
            # Its passes append to names: n0_Conv becomes n0_Conv_token_1.
            found.add(node.name.partition("_token_")[0])
        elif node.op_type in _FUSED_KERNELS:
            found.add(node.name)
    return frozenset(found)


def _session(data: bytes, name: str, *, threads: int, optimized: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise EngineError(f"ONNX Runtime refused {name}: {error}") from error


def _expose(proto: Any) -> dict[str, str]:
    """Make the inner tensors outputs of the graph, and return under which name each is found.

    Of a tensor that is rounded the rounded values are seen, through a DequantizeLinear beside the one that
    is there: another reader of that would keep what is behind from running in integers.
    """
    from onnx import helper

    view = view_of(proto)
    nodes = list(proto.graph.node)
    rounds = [node for node in nodes if node.op_type == "QuantizeLinear"]
    found = {known_as(node.output[0]): known_as(node.output[0]) + _SEEN for node in rounds}
    for node in rounds:
        name = found[known_as(node.output[0])]
        source = [node.output[0], *node.input[1:]]
        proto.graph.node.append(helper.make_node("DequantizeLinear", source, [name]))
    unseen = view.hidden() | {node.input[0] for node in rounds}
    for name in (name for node in nodes for name in node.output):
        if name and name not in unseen and known_as(name) == name:
            found.setdefault(name, name)
    present = {value.name for value in proto.graph.output}
    added = [name for name in found.values() if name not in present]
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in added)
    return found


def _layer(view: View, node: Any, integer: bool) -> Layer:
    depthwise = node.op_type in CONVOLUTIONS and view.weights[node.input[1]].shape[1] == 1
    several = view.weights[node.input[1]].shape[0] > 1
    kind = "depthwise" if depthwise and several else "conv" if node.op_type in CONVOLUTIONS else "dense"
    return Layer(
        name=node.name,
        kind=kind,
        macs=view.macs(node),
        weights=int(view.weights[node.input[1]].size),
        inputs=(known_as(node.input[0]),),
        output=known_as(view.layer_output(node)),
        integer=integer,
    )
