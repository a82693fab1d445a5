"""Reading an ONNX file: is it a model, is it safe to read, what does it take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from boardfit.converters.ingest.interface import Further
from boardfit.converters.ingest.onnx_inputs import describe_further, kind_name, looks_like_image
from boardfit.errors import ToolMissing, UnsupportedModel

OPSETS = range(11, 23)


@dataclass(frozen=True, slots=True, eq=False)
class OnnxSource:
    """An ONNX model with what is known of its interface.

    Attributes:
        name: Short name for messages.
        model: onnx.ModelProto with all weights inside.
        image: Name of the image input.
        layout: ``NCHW`` or ``NHWC``.
        size: The side in pixels that the input is fixed to, or None.
        batch: The batch that the input is fixed to, or None.
        outputs: Names of the outputs.
        opset: Version of the ONNX operator set.
        further: Its inputs besides the image.
    """

    name: str
    model: Any
    image: str
    layout: str
    size: int | None
    batch: int | None
    outputs: tuple[str, ...]
    opset: int
    further: tuple[Further, ...] = ()


def read_onnx(path: Path) -> OnnxSource:
    """Read a file with the external data beside it.

    Args:
        path: The ``.onnx`` file.

    Raises:
        UnsupportedModel: Not an ONNX model, truncated, or its external data points elsewhere.
        ToolMissing: The onnx package is not installed.
    """
    onnx = require_onnx()
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own error class differs between its implementations
        raise UnsupportedModel(
            f"{path} is not an ONNX model, or is damaged ({error}). Export it again, or copy it again."
        ) from error
    _load_external(onnx, model, path)
    _check_model(onnx, model, path)
    return describe_onnx(model, name=path.stem)


def describe_onnx(model: Any, *, name: str) -> OnnxSource:
    """Find the image input, the output and the opset of a model.

    Args:
        model: onnx.ModelProto with all weights inside.
        name: Short name for messages.

    Raises:
        UnsupportedModel: No float32 image goes in, an input of free shape does, or the opset is not known.
    """
    onnx = require_onnx()
    if not model.graph.node or not model.opset_import:
        raise UnsupportedModel(f"{name} is not an ONNX model: it has no nodes. Export it again.")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    versions = {item.domain: item.version for item in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset not in OPSETS:
        raise UnsupportedModel(
            f"{name} uses ONNX opset {opset}: expected {OPSETS.start} to {OPSETS.stop - 1}. "
            "Export it again with opset_version=17."
        )
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in stored]
    outputs = [item.name for item in model.graph.output]
    if not inputs:
        raise UnsupportedModel(f"{name} has no input. Export it again.")
    if not outputs:
        raise UnsupportedModel(f"{name} has no output. Export it again.")
    image = next((item for item in inputs if looks_like_image(onnx, item)), inputs[0])
    layout, size, batch = _image_shape(onnx, image, name)
    others = [item for item in inputs if item is not image]
    further = describe_further(onnx, others, name=name, batch=batch, size=size)
    _require_used(model, others, name)
    return OnnxSource(name, model, image.name, layout, size, batch, tuple(outputs), opset, further)


def with_size(source: OnnxSource, size: int | None) -> Any:
    """Return the ONNX model rewritten to another input side, or to any (None).

    Only declarations change: what a node bakes in stays as it is.
    """
    model = type(source.model)()
    model.CopyFrom(source.model)
    del model.graph.value_info[:]
    layouts = {source.image: source.layout, **{item.source: item.layout for item in source.further}}
    for image in (item for item in model.graph.input if layouts.get(item.name)):
        first = layouts[image.name].index("H")
        for axis, symbol in ((first, "height"), (first + 1, "width")):
            dim = image.type.tensor_type.shape.dim[axis]
            if size is None:
                dim.dim_param = symbol
            else:
                dim.dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


def require_onnx() -> Any:
    """Import onnx with the parts that the importer uses, or raise ToolMissing."""
    try:
        import onnx
        import onnx.inliner
        import onnx.reference
        import onnx.shape_inference
    except ImportError as error:
        raise ToolMissing("onnx is not installed. Install it: pip install 'boardfit[convert]'") from error
    return onnx


def initializers(source: OnnxSource) -> Mapping[str, np.ndarray]:
    """Return the stored tensors of a model by name."""
    onnx = require_onnx()
    try:
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in source.model.graph.initializer}
    except Exception as error:
        raise UnsupportedModel(
            f"a weight of {source.name} is damaged ({error}). Export the model again."
        ) from error


def _image_shape(onnx: Any, item: Any, name: str) -> tuple[str, int | None, int | None]:
    tensor = item.type.tensor_type
    shape = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    found = f"input {item.name!r} of {name} is {kind_name(onnx, tensor.elem_type)}{shape}"
    if not looks_like_image(onnx, item):
        raise UnsupportedModel(
            f"{found}: expected one FLOAT image with 3 channels, [N, 3, H, W] or [N, H, W, 3]. "
            "Export the net without its preprocessing, in float32."
        )
    layout = "NCHW" if shape[1] == 3 else "NHWC"
    first = layout.index("H")
    sides = {side for side in shape[first : first + 2] if side is not None}
    if len(sides) > 1:
        raise UnsupportedModel(f"{found}: expected a square image, or free height and width.")
    return layout, next(iter(sides), None), shape[0]


def _require_used(model: Any, inputs: Sequence[Any], name: str) -> None:
    used = {name for node in model.graph.node for name in node.input}
    idle = [item.name for item in inputs if item.name not in used]
    if idle:
        raise UnsupportedModel(
            f"nothing in {name} reads its input {idle[0]!r}: expected inputs that change an answer. Export "
            "it without that input."
        )


def _check_model(onnx: Any, model: Any, path: Path) -> None:
    """Let ONNX's own checker look at each part; unknown operators are named later, with the way out.

    The whole model is not given to it: it refuses an output without a shape, which other tools write.
    """
    context = onnx.checker.C.CheckerContext()
    try:
        # Both are int32 there, and int64 in the file.
        context.ir_version = model.ir_version
        context.opset_imports = {item.domain: item.version for item in model.opset_import}
        for node in model.graph.node:
            if not node.output:
                raise ValueError(f"node {node.name!r} has no output")
            if onnx.defs.has(node.op_type, node.domain):
                onnx.checker.check_node(node, context)
        for tensor in model.graph.initializer:
            onnx.checker.check_tensor(tensor, context)
    except Exception as error:  # ValidationError, or what protobuf raises on text that is no UTF-8
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedModel(
            f"{path} is damaged, or no valid ONNX ({reason}). Export it again, or copy it again."
        ) from error


def _is_linked(folder: Path, pure: PurePosixPath) -> bool:
    """Return whether a file or a folder on the way to it is a symbolic link, or the file has another name."""
    file = folder / pure
    return any((folder / part).is_symlink() for part in (pure, *pure.parents)) or (
        file.is_file() and file.stat().st_nlink > 1
    )


def _load_external(onnx: Any, model: Any, path: Path) -> None:
    folder = path.parent
    seen = False
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        seen = True
        location = next((item.value for item in tensor.external_data if item.key == "location"), "")
        pure = PurePosixPath(location)
        unsafe = (
            not location or pure.is_absolute() or ".." in pure.parts or "\\" in location or ":" in location
        )
        if unsafe or _is_linked(folder, pure):
            raise UnsupportedModel(
                f"{path} keeps the weight {tensor.name!r} in {location!r}: expected a plain file beside the "
                "model, no link and no path out of its folder. Save the model again in one file."
            )
    if not seen:
        return
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:
        raise UnsupportedModel(
            f"the external data of {path} cannot be read ({error}). Copy its files beside the model."
        ) from error
