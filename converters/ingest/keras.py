"""Keras models: ``.keras`` and ``.h5`` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.ingest.check import check_import
from boardfit.converters.ingest.interface import inputs_note
from boardfit.converters.ingest.keras_file import load_keras_file
from boardfit.converters.ingest.keras_rebuild import Rebuilt, in_float32, rebuild
from boardfit.converters.ingest.reference import frame_place, is_image, kept_reference, keras_reference
from boardfit.converters.model import Reference, SourceRequest, TrainedModel
from boardfit.errors import UnsupportedModel
from boardfit.specs import TensorSpec

SUFFIXES: tuple[str, ...] = (".keras", ".h5", ".hdf5")

FLOAT32_NOTE = "the source computes in mixed precision; boardfit's net and its reference compute in float32"


def ingest(request: SourceRequest) -> TrainedModel:
    """Read a Keras classifier. Nothing of its author's is run: Lambda layers are refused.

    Args:
        request: ``source`` is the path of the file.

    Returns:
        The model as one flat graph; its reference is the model as it was loaded, at sizes that only the
        rebuilt graph can take the rebuilt graph.

    Raises:
        UnsupportedModel: Damaged, unsafe, without an image, or not what ``task`` says.
        UnsupportedSize: It says that it takes any size, and refuses one that was asked for.
        ToolMissing: keras is not installed.
    """
    path = Path(request.source)
    name = path.stem
    model = load_keras_file(path)
    own = _own_size(model, name)
    notes: tuple[str, ...] = ()
    if any(layer.compute_dtype != "float32" for layer in model._flatten_layers(include_self=False)):
        model, notes = in_float32(model, own), (FLOAT32_NOTE,)
    rebuilt = rebuild(
        model,
        own=own,
        sizes=request.sizes,
        assume_same_padding=request.assume_same_padding,
        same_output=request.task == "classify",
    )
    sizes = list(request.sizes) if own is None else [own]
    further = _further(rebuilt.net)
    check_import(
        rebuilt.net,
        keras_reference(model, once=True),
        sizes=sizes,
        image=request.image,
        name=name,
        further=further,
    )
    return TrainedModel(
        name=name,
        net=rebuilt.net,
        outputs=_outputs(rebuilt.net, name, request),
        task=request.task,
        image=request.image,
        reference=_reference(model, rebuilt, own),
        labels=request.labels,
        fixed_size=rebuilt.fixed_size,
        fixed_by=rebuilt.fixed_by,
        notes=notes + rebuilt.notes + inputs_note(model.inputs[frame_place(model)].name, further),
        further=further,
    )


def own_side(source: str) -> int | None:
    """Return the side that the file fixes its input to, or None.

    Args:
        source: Path of the file.
    """
    path = Path(source)
    return _own_size(load_keras_file(path), path.stem)


def _own_size(model: Any, name: str) -> int | None:
    """Return the side that the image input is fixed to, or None; refuse an interface without an image."""
    inputs = list(getattr(model, "inputs", None) or [])
    if not inputs:
        raise UnsupportedModel(f"{name} has no input: build it as a functional model and save it again.")
    frame = inputs[frame_place(model)]
    shape = tuple(frame.shape)
    if not is_image(shape):
        raise UnsupportedModel(
            f"the input {frame.name!r} of {name} has the shape {shape}: expected one colour image, "
            "(None, height, width, 3)."
        )
    for item in inputs:
        _require_known(item, shape, name)
    sides = {side for side in shape[1:3] if side is not None}
    if len(sides) > 1:
        raise UnsupportedModel(
            f"the input of {name} is {shape[1]} x {shape[2]}: expected a square image, "
            "or free height and width."
        )
    return next(iter(sides), None)


def _require_known(item: Any, frame: tuple[int | None, ...], name: str) -> None:
    """Refuse an input besides the frame that is neither an image of its sides nor of a fixed shape."""
    found = f"the input {item.name!r} of {name} has the shape {tuple(item.shape)}"
    if is_image(item.shape):
        if tuple(item.shape) != frame:
            raise UnsupportedModel(
                f"{found}: a second image must have the sides of the first, {frame}. Let the net resize it."
            )
    elif None in item.shape[1:]:
        raise UnsupportedModel(
            f"{found}: expected a fixed number in every axis but the batch. Save it with fixed axes."
        )


def _further(net: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(item.name, tuple(item.shape), layout="NHWC" if is_image(item.shape) else "")
        for item in net.inputs[1:]
    )


def _reference(model: Any, rebuilt: Rebuilt, own: int | None) -> Reference:
    original = keras_reference(model)
    if own is None or rebuilt.fixed_size is not None:
        return original
    others = kept_reference(rebuilt.net)

    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        return (original if images.shape[1] == own else others)(images, further)

    return reference


def _outputs(net: Any, name: str, request: SourceRequest) -> tuple[TensorSpec, ...]:
    shapes = [tuple(output.shape) for output in net.outputs]
    if request.task == "classify" and (len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] is None):
        named = ", ".join(f"{label} {shape}" for label, shape in zip(net.output_names, shapes, strict=True))
        count = f"{len(shapes)} outputs" if len(shapes) > 1 else "an output"
        raise UnsupportedModel(
            f"{name} has {count} ({named}): a classifier has one, (None, classes). Name what it is for: "
            "--task detect, segment, embed or raw; or add pooling and a Dense layer."
        )
    names = unique_names(net.output_names)
    return tuple(
        TensorSpec(label, (None, *shape[1:]), activation=final_activation(net, place))
        for place, (label, shape) in enumerate(zip(names, shapes, strict=True))
    )


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names with a number added where one comes twice."""
    found: list[str] = []
    for name in names:
        number = sum(name == other for other in names[: len(found)])
        found.append(f"{name}_{number}" if number else name)
    return found


def final_activation(net: Any, place: int = 0) -> str:
    """Return what the last layer makes of the numbers of an output.

    Args:
        net: keras.Model.
        place: Which output.

    Returns:
        ``softmax``, ``sigmoid``, ``logits`` where there is no activation, ``none`` where there is
        another one.
    """
    import keras

    operation = net.outputs[place]._keras_history.operation
    while isinstance(operation, (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Dropout)):
        operation = operation.input._keras_history.operation
    if type(operation).__name__ in ("Softmax", "Sigmoid"):
        return type(operation).__name__.lower()
    function = getattr(operation, "activation", None)
    label = getattr(function, "__name__", "linear")
    return {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "logits"}.get(label, "none")
