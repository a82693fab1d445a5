"""The inputs of an ONNX model besides its image: what they are, and how they enter the Keras net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boardfit.converters.ingest.interface import KINDS, Further, plain_names
from boardfit.converters.ingest.onnx_records import HIDDEN, NHWC_OF_NCHW, Graph, Shape, Value
from boardfit.errors import UnsupportedModel
from boardfit.specs import MAX_AXES, TensorSpec


def looks_like_image(onnx: Any, item: Any) -> bool:
    """Return whether a graph's input is a FLOAT tensor of four axes with 3 channels.

    Args:
        onnx: The module.
        item: onnx.ValueInfoProto.
    """
    tensor = item.type.tensor_type
    extents = [dim.dim_value for dim in tensor.shape.dim]
    return tensor.elem_type == onnx.TensorProto.FLOAT and len(extents) == 4 and 3 in (extents[1], extents[3])


def kind_name(onnx: Any, elem_type: int) -> str:
    """Return the name of an element type, or its number where it is none: a damaged file may say anything."""
    kinds = onnx.TensorProto.DataType
    return str(kinds.Name(elem_type)) if elem_type in kinds.values() else f"element type {elem_type} "


def describe_further(
    onnx: Any, inputs: Sequence[Any], *, name: str, batch: int | None, size: int | None
) -> tuple[Further, ...]:
    """Describe the inputs besides the image.

    Args:
        onnx: The module.
        inputs: onnx.ValueInfoProto of each.
        name: The source's name.
        batch: That the image is fixed to, or None.
        size: Side in pixels that the image is fixed to, or None.

    Raises:
        UnsupportedModel: One has a free axis besides the batch, another element type, or is an image of
            another side.
    """
    plain = plain_names([item.name for item in inputs])
    return tuple(
        _describe(onnx, item, label, name=name, batch=batch, size=size)
        for item, label in zip(inputs, plain, strict=True)
    )


def _describe(onnx: Any, item: Any, label: str, *, name: str, batch: int | None, size: int | None) -> Further:
    tensor = item.type.tensor_type
    shape = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    found = f"input {item.name!r} of {name} is {kind_name(onnx, tensor.elem_type)}{shape}"
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except (KeyError, TypeError, ValueError):
        dtype = ""
    if dtype not in KINDS or not item.type.HasField("tensor_type") or len(shape) > MAX_AXES:
        raise UnsupportedModel(f"{found}: expected FLOAT, INT32, INT64 or BOOL. Export it with one of these.")
    if looks_like_image(onnx, item):
        layout = "NCHW" if shape[1] == 3 else "NHWC"
        first = layout.index("H")
        if shape[first : first + 2] != [size, size]:
            raise UnsupportedModel(
                f"{found}: a second image must have the sides of the first, {size or 'free'}. Let the net "
                "resize it, or export the parts one by one."
            )
        spec = TensorSpec(label, (None, size, size, 3), layout="NHWC")
        return Further(item.name, spec, layout)
    batched = bool(shape) and (shape[0] is None or shape[0] == (batch or 1))
    extents = shape[1:] if batched else shape
    if None in extents:
        raise UnsupportedModel(
            f"{found}: expected a fixed number in every axis but the batch. Export it with fixed axes."
        )
    fixed = tuple(extent for extent in extents if extent is not None)
    spec = TensorSpec(label, (None, *fixed), dtype=dtype)
    return Further(item.name, spec, shape=(1, *fixed) if batched else fixed, batched=batched)


def further_shape(item: Further, batch: int, size: int) -> Shape:
    """Return the source's shape of an input at one size.

    Args:
        item: The input.
        batch: Of the image.
        size: Side in pixels.
    """
    if item.layout:
        return (batch, 3, size, size) if item.layout == "NCHW" else (batch, size, size, 3)
    return (batch, *item.shape[1:]) if item.batched else item.shape


def further_values(graphs: Sequence[Graph], side: int | None) -> dict[str, Value]:
    """Make a Keras input of each input besides the image, and return them by their names in the graph.

    Args:
        graphs: The net at each size.
        side: Of images in pixels, or None for any.
    """
    import keras

    values = {}
    for item in graphs[0].further:
        extents = (side, side, 3) if item.layout else item.spec.shape[1:]
        tensor = keras.Input(extents, name=item.spec.name)
        shapes = tuple(graph.shapes[item.source] for graph in graphs)
        if item.layout:
            axes: tuple[int, ...] = NHWC_OF_NCHW if item.layout == "NCHW" else (0, 1, 2, 3)
        elif item.batched:
            axes = tuple(range(len(shapes[0])))
        else:
            axes = (HIDDEN, *range(len(shapes[0])))
        values[item.source] = Value(shapes, tensor=tensor, axes=axes)
    return values


def further_feeds(
    items: Sequence[Further], arrays: Sequence[np.ndarray], rows: slice, *, batch: int
) -> dict[str, np.ndarray]:
    """Return what the source is given of some rows, filled up to a batch with the last one.

    Args:
        items: The inputs besides the image.
        arrays: N rows of each, float32; of an image NHWC.
        rows: Which of them.
        batch: How many the source wants; one where an input has no batch.
    """
    feeds = {}
    for item, array in zip(items, arrays, strict=True):
        filled = filled_batch(array[rows], batch, layout=item.layout)
        feeds[item.source] = np.asarray(filled if item.batched else filled[0], item.spec.dtype, order="C")
    return feeds


def filled_batch(rows: np.ndarray, batch: int, *, layout: str) -> np.ndarray:
    """Return rows, filled up to a batch with the last one; images in the source's layout.

    Args:
        rows: At least one, and at most as many as the batch; of an image NHWC.
        batch: How many are wanted.
        layout: Of images in the source; empty for what is none.
    """
    filled = np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
    return filled.transpose(0, 3, 1, 2) if layout == "NCHW" else filled
