"""Pass-through: a source that is packed as it is, with what the runtime must know of it.

ONNX gives ONNX and, through pnnx, ncnn; TFLite gives TFLite at its own size. No Keras net is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.ingest.check import random_further
from boardfit.converters.ingest.guard import require_affordable
from boardfit.converters.ingest.interface import KINDS, inputs_note
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
    return _inputs_of(_interpreter(Path(source), Path(source).read_bytes()), source)[0].shape[1]


def read_untouched(request: SourceRequest) -> TrainedModel:
    """Read a source that is to be passed through.

    Args:
        request: ``source`` is an ``.onnx`` or ``.tflite`` file.

    Returns:
        A model without a net; its reference is the file itself on its own engine.

    Raises:
        InputError: The source is no such file.
        UnsupportedModel: It is damaged, or takes no image, or something else that cannot be given.
        ToolMissing: What reads it is not installed.
    """
    path = Path(request.source)
    kind = formats_of(request.source)[0]
    require_affordable(request, kind)
    untouched, reference, size = _onnx(path, request) if kind == "onnx" else _tflite(path)
    if request.task == "classify":
        _require_scores(path.stem, untouched.outputs)
    further = tuple(
        TensorSpec(spec.name, (None, size, size, 3), layout="NHWC") if spec.layout else spec
        for spec in untouched.further
    )
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
        notes=(NOTE, *inputs_note(untouched.image.name, further)),
        untouched=untouched,
        further=further,
    )


def _onnx(path: Path, request: SourceRequest) -> tuple[Untouched, Reference, int | None]:
    source = read_onnx(path)
    if source.batch not in (None, 1):
        raise UnsupportedModel(
            f"{path} takes {source.batch} images at once: expected one. Export it with a batch of one."
        )
    reference = onnx_reference(source, source.model, batch_axes=[0] * len(source.outputs))
    single = next((item.source for item in source.further if not item.batched), "")
    if single:
        raise UnsupportedModel(
            f"the input {single!r} of {path} has no axis for the batch, and so cannot be passed through: "
            "export it with [N, ...]."
        )
    sides = [source.size] if source.size else list(request.sizes)
    specs = [item.spec for item in source.further]
    untouched = Untouched(
        format="onnx",
        data=_image_first(source).SerializeToString(),
        image=_image_spec(source.image, source.layout, source),
        outputs=_outputs(reference, sides, source.outputs, _activations(source), further=specs),
        further=tuple(
            _image_spec(item.source, item.layout, source)
            if item.layout
            else TensorSpec(item.source, (source.batch, *item.spec.shape[1:]), dtype=item.spec.dtype)
            for item in source.further
        ),
    )
    return untouched, reference, source.size


def _image_spec(name: str, layout: str, source: OnnxSource) -> TensorSpec:
    side, first = source.size, layout.index("H")
    shape: list[int | None] = [source.batch, 3, 3, 3]
    shape[first : first + 2] = [side, side]
    return TensorSpec(name, tuple(shape), layout=layout)


def _image_first(source: OnnxSource) -> Any:
    """Return the model with its image as the first input: pnnx knows inputs by their place only."""
    if not source.further:
        return source.model
    model = type(source.model)()
    model.CopyFrom(source.model)
    order = [source.image, *(item.source for item in source.further)]
    inputs = {item.name: item for item in source.model.graph.input}
    del model.graph.input[:]
    model.graph.input.extend(inputs[name] for name in order)
    return model


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


def _inputs_of(interpreter: Any, source: str) -> list[TensorSpec]:
    """Return the inputs of a TFLite file, its image first, or refuse what cannot be given."""
    specs = []
    for item in interpreter.get_input_details():
        shape = tuple(int(extent) for extent in item["shape"])
        square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3
        image = square and item["dtype"] == np.float32
        specs.append(TensorSpec(item["name"], shape, np.dtype(item["dtype"]).name, "NHWC" if image else ""))
    images = [spec for spec in specs if spec.layout]
    others = [spec for spec in specs if not images or spec is not images[0]]
    unlike = [spec for spec in others if not spec.layout and spec.dtype not in KINDS]
    single = [spec for spec in specs if spec.shape[:1] != (1,)]
    if not images or unlike or single or any(spec.shape != images[0].shape for spec in images):
        found = ", ".join(f"{spec.dtype}{list(spec.shape)}" for spec in specs)
        raise UnsupportedModel(
            f"{source} takes {found or 'nothing'}: expected a float32 image, (1, side, side, 3), and besides "
            f"it images of that side or tensors (1, ...) of {', '.join(KINDS)}."
        )
    return [images[0], *others]


def _tflite(path: Path) -> tuple[Untouched, Reference, int | None]:
    data = path.read_bytes()
    interpreter = _interpreter(path, data)
    image, *further = _inputs_of(interpreter, str(path))
    outputs = interpreter.get_output_details()
    side = image.shape[1]
    assert side is not None
    makers = {
        int(index): (str(op["op_name"]), int(op["inputs"][0]))
        for op in interpreter._get_ops_details()
        for index in op["outputs"]
        if len(op["inputs"]) and op["op_name"] != "DELEGATE"  # which stands beside the operators that it took
    }
    names = tuple(item["name"] for item in outputs)
    reference = _tflite_reference(data, [image, *further], names)
    activations = [activation_behind(int(item["index"]), makers) for item in outputs]
    untouched = Untouched(
        format="tflite",
        data=data,
        image=image,
        outputs=_outputs(reference, [side], names, activations, further=further),
        further=tuple(further),
    )
    return untouched, reference, side


def _tflite_reference(data: bytes, inputs: Sequence[TensorSpec], names: Sequence[str]) -> Reference:
    from boardfit.converters.verify import run_artifact
    from boardfit.runtime.engines.litert import LiteRTEngine

    side = inputs[0].shape[1]
    assert side is not None
    specs = tuple(TensorSpec(name, (None,)) for name in names)
    artifact = Artifact("tflite", "fp32", (side,), ("net.tflite",), tuple(inputs), specs)
    engine = LiteRTEngine(artifact, {"net.tflite": data}, 1)

    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        return run_artifact(engine, artifact, tensor=images, further=further)

    return reference


def _outputs(
    reference: Reference,
    sides: Sequence[int],
    names: Sequence[str],
    activations: Sequence[str],
    *,
    further: Sequence[TensorSpec],
) -> tuple[TensorSpec, ...]:
    """Find the shapes of the outputs by running the source, once a size."""
    answers: list[Sequence[Any]] = [
        reference(np.zeros((1, side, side, 3), np.float32), random_further(further, side, ImageSpec()))
        for side in sides
    ]
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
