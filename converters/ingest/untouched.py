"""Pass-through: a source that is packed as it is, with what the runtime must know of it.

ONNX gives ONNX and, through pnnx, ncnn; TFLite gives TFLite at its own size. No Keras net is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.ingest.guard import require_affordable
from boardfit.converters.ingest.last_activation import activation_behind
from boardfit.converters.ingest.onnx import onnx_reference
from boardfit.converters.ingest.onnx_file import OnnxSource, read_onnx
from boardfit.converters.model import Reference, SourceRequest, TrainedModel, Untouched
from boardfit.errors import InputError, ToolMissing, UnsupportedModel
from boardfit.specs import Artifact, ImageSpec, TensorSpec

FORMATS = {".onnx": ("onnx", "ncnn"), ".tflite": ("tflite",)}
"""Formats that a source can be packed in, by its suffix."""

NOTE = "the source was passed through: it is packed as it is, and nothing was simplified"


def formats_of(source: str) -> tuple[str, ...]:
    """Return the formats that a source can be passed through to.

    Raises:
        InputError: It is no file, or of another format.
    """
    path = Path(source)
    formats = FORMATS.get(path.suffix.lower())
    if formats is None or not path.is_file():
        raise InputError(f"{source} cannot be passed through: expected an .onnx or a .tflite file.")
    return formats


def untouched_side(source: str) -> int | None:
    """Return the input side in pixels that a source is fixed to, or None.

    Args:
        source: Path of an ``.onnx`` or ``.tflite`` file.

    Raises:
        InputError, UnsupportedModel, ToolMissing: As for ``read_untouched``.
    """
    kind = formats_of(source)[0]
    require_affordable(SourceRequest(source=source, sizes=(), image=ImageSpec()), kind)
    if kind == "onnx":
        return read_onnx(Path(source)).size
    return _image_of(_interpreter(Path(source), Path(source).read_bytes()), source).shape[1]


def read_untouched(request: SourceRequest) -> TrainedModel:
    """Read a source that is to be passed through.

    Args:
        request: ``source`` is an ``.onnx`` or ``.tflite`` file.

    Returns:
        A model without a net; its reference is the file itself on its own engine.

    Raises:
        InputError: The source is no such file.
        UnsupportedModel: It is damaged, or its interface is not one image.
        ToolMissing: What reads it is not installed.
    """
    path = Path(request.source)
    kind = formats_of(request.source)[0]
    require_affordable(request, kind)
    untouched, reference, size = _onnx(path, request) if kind == "onnx" else _tflite(path)
    if request.task == "classify":
        _require_scores(path.stem, untouched.outputs)
    return TrainedModel(
        name=path.stem,
        net=None,
        outputs=untouched.outputs,
        image=request.image,
        reference=reference,
        labels=request.labels,
        fixed_size=size,
        fixed_by="the file's input" if size else "",
        task=request.task,
        notes=(NOTE,),
        untouched=untouched,
    )


def _onnx(path: Path, request: SourceRequest) -> tuple[Untouched, Reference, int | None]:
    source = read_onnx(path)
    if source.batch not in (None, 1):
        raise UnsupportedModel(
            f"{path} takes {source.batch} images at once: expected one. Export it with a batch of one."
        )
    reference = onnx_reference(source, source.model, batch_axes=[0] * len(source.outputs))
    sides = [source.size] if source.size else list(request.sizes)
    side, first = source.size, source.layout.index("H")
    shape: list[int | None] = [source.batch, 3, 3, 3]
    shape[first : first + 2] = [side, side]
    untouched = Untouched(
        format="onnx",
        data=source.model.SerializeToString(),
        image=TensorSpec(source.image, tuple(shape), layout=source.layout),
        outputs=_outputs(reference, sides, source.outputs, _activations(source)),
    )
    return untouched, reference, source.size


def _activations(source: OnnxSource) -> list[str]:
    nodes = [node for node in source.model.graph.node if node.input]
    makers = {node.output[0]: (node.op_type, node.input[0]) for node in nodes}
    return [activation_behind(name, makers) for name in source.outputs]


def _interpreter(path: Path, data: bytes) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ToolMissing("ai-edge-litert is not installed: pip install 'boardfit[convert]'") from error
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UnsupportedModel(f"{path} is no TFLite model, or is damaged ({error}).") from error
    return interpreter


def _image_of(interpreter: Any, source: str) -> TensorSpec:
    """Return the one input of a TFLite file, or refuse any other interface."""
    inputs = interpreter.get_input_details()
    shape = tuple(int(extent) for extent in inputs[0]["shape"]) if inputs else ()
    square = len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] and shape[3] == 3
    if len(inputs) != 1 or not square or inputs[0]["dtype"] != np.float32:
        found = [f"{np.dtype(item['dtype']).name}{item['shape'].tolist()}" for item in inputs]
        raise UnsupportedModel(
            f"{source} takes {', '.join(found) or 'nothing'}: expected one float32 image, (1, side, side, 3)."
        )
    return TensorSpec(inputs[0]["name"], shape, layout="NHWC")


def _tflite(path: Path) -> tuple[Untouched, Reference, int | None]:
    data = path.read_bytes()
    interpreter = _interpreter(path, data)
    image, outputs = _image_of(interpreter, str(path)), interpreter.get_output_details()
    side = image.shape[1]
    assert side is not None
    makers = {
        int(index): (str(op["op_name"]), int(op["inputs"][0]))
        for op in interpreter._get_ops_details()
        for index in op["outputs"]
        if len(op["inputs"]) and op["op_name"] != "DELEGATE"  # which stands beside the operators that it took
    }
    names = tuple(item["name"] for item in outputs)
    reference = _tflite_reference(data, image, names)
    activations = [activation_behind(int(item["index"]), makers) for item in outputs]
    untouched = Untouched(
        format="tflite", data=data, image=image, outputs=_outputs(reference, [side], names, activations)
    )
    return untouched, reference, side


def _tflite_reference(data: bytes, image: TensorSpec, names: Sequence[str]) -> Reference:
    from boardfit.runtime.engines.litert import LiteRTEngine

    side = image.shape[1]
    assert side is not None
    specs = tuple(TensorSpec(name, (None,)) for name in names)
    artifact = Artifact("tflite", "fp32", (side,), ("net.tflite",), (image,), specs)
    engine = LiteRTEngine(artifact, {"net.tflite": data}, 1)

    def reference(images: np.ndarray) -> Sequence[np.ndarray]:
        rows = [engine.run({image.name: np.ascontiguousarray(one[None])}) for one in images]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    return reference


def _outputs(
    reference: Reference, sides: Sequence[int], names: Sequence[str], activations: Sequence[str]
) -> tuple[TensorSpec, ...]:
    """Find the shapes of the outputs by running the source, once a size."""
    answers: list[Sequence[Any]] = [reference(np.zeros((1, side, side, 3), np.float32)) for side in sides]
    specs = []
    for place, (name, activation) in enumerate(zip(names, activations, strict=True)):
        shapes = [answer[place].shape for answer in answers]
        rest = [extents[0] if len(set(extents)) == 1 else None for extents in zip(*shapes, strict=True)][1:]
        specs.append(TensorSpec(name, (None, *rest), activation=activation))
    return tuple(specs)


def _require_scores(name: str, outputs: Sequence[TensorSpec]) -> None:
    if len(outputs) == 1 and len(outputs[0].shape) == 2 and outputs[0].shape[1] is not None:
        return
    found = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in outputs)
    raise UnsupportedModel(
        f"{name} answers {found}: a classifier has one output, [N, classes]. Name what it is for: "
        "--task detect, segment, embed or raw."
    )
