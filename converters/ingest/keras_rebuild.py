"""Rebuilding a Keras model as one flat graph that is free of size, where it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from boardfit.converters.ingest.interface import FRAME, plain_names
from boardfit.converters.ingest.onnx_padding import (
    PaddingAmbiguous,
    Pads,
    Window,
    decide_padding,
)
from boardfit.converters.ingest.onnx_records import ASSUMED, FIXED, SizeBound
from boardfit.converters.ingest.reference import frame_place, is_image
from boardfit.errors import UnsupportedModel, UnsupportedSize

SAME_NOTE = (
    "ZeroPadding2D in front of {layer} equals 'same' at {size} pixels and was taken for 'same' at every size"
)


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """A model as one flat functional graph.

    Attributes:
        net: keras.Model with layers and weights of its own.
        fixed_size: The one side in pixels that it takes, or None.
        fixed_by: The layer that binds it.
        notes: What was assumed.
    """

    net: Any
    fixed_size: int | None
    fixed_by: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Padded:
    """A strided "valid" convolution behind a ZeroPadding2D, at one input size."""

    pad: Any
    conv: Any
    window: Window


def rebuild(
    model: Any,
    *,
    own: int | None,
    sizes: Sequence[int],
    assume_same_padding: bool,
    same_output: bool = True,
) -> Rebuilt:
    """Return a model as one flat graph with its own copy of the weights, free of size if that is proven.

    Args:
        model: keras.Model, functional or sequential, one image input.
        own: Side in pixels that its input is fixed to, or None.
        sizes: Sides in pixels at which it must give the same output shape to be free.
        assume_same_padding: Turn zero padding that equals "same" at ``own`` into "same".
        same_output: Whether an output whose shape follows the size binds it: that of a classifier does.

    Raises:
        UnsupportedSize: The model says that it takes any size, and cannot take one of ``sizes``.
    """
    if own is None:
        _require_free(model, sizes)
        return Rebuilt(_clone(model, None, frozenset()), None, "", ())
    try:
        # Twice its own size is asked for as well, so that one requested size alone proves nothing.
        assumed = _assumed(model, own) if assume_same_padding else {}
        if not assume_same_padding:
            _require_unambiguous(model, own, sizes)
        net = _clone(model, None, frozenset(assumed))
        _trace_all(net, sorted({own, 2 * own, *sizes}), same_output=same_output)
    except SizeBound as bound:
        return Rebuilt(_clone(model, own, frozenset()), own, bound.node, ())
    notes = tuple(SAME_NOTE.format(layer=name, size=own) for name in assumed.values())
    return Rebuilt(net, None, "", notes)


def in_float32(model: Any, side: int | None) -> Any:
    """Return a copy of a mixed-precision model that computes in float32.

    Args:
        model: keras.Model, functional or sequential, one image input.
        side: Side in pixels that its input is fixed to, or None.
    """
    return _clone(model, side, frozenset())


def walk(model: Any, tensor: Any, call: Callable[..., Any]) -> Any:
    """Run a symbolic tensor through a model, nested models opened, and return its output.

    Args:
        model: keras.Model, functional or sequential.
        tensor: keras.KerasTensor, or a list of them in the order of the model's inputs.
        call: Called with each layer or operation and its arguments; returns its output.
    """
    import keras

    def step(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.Model):
            return walk(operation, args[0], call)
        return call(operation, *args, **kwargs)

    functional = getattr(model, "_functional", model)
    if not hasattr(functional, "_run_through_graph"):
        raise UnsupportedModel(
            f"{model.name} is a {type(model).__name__} without a graph of layers: expected a functional or "
            "sequential model. Build it as one and save it again."
        )
    # clone_model stands on this method too; nothing public of Keras visits the calls of a graph.
    return functional._run_through_graph(tensor, call_fn=step)


def symbols(model: Any, side: int | None, *, batch: int | None) -> list[Any]:
    """Return a symbolic tensor for each input of a model, in its order.

    Args:
        model: keras.Model.
        side: Of images in pixels, or None for any.
        batch: Number of images, or None for any.
    """
    import keras

    place = frame_place(model)
    return [
        keras.KerasTensor(
            (batch, side, side, 3) if index == place or is_image(item.shape) else (batch, *item.shape[1:])
        )
        for index, item in enumerate(model.inputs)
    ]


def _trace(model: Any, size: int) -> tuple[Any, list[_Padded]]:
    """Return the output's shape at one size, and the padded convolutions in the order of the graph."""
    import keras

    padded: list[_Padded] = []
    origin: dict[int, tuple[Any, Any, Any]] = {}

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            output = operation.compute_output_spec(*args, **kwargs)
        except (ValueError, TypeError) as error:
            raise SizeBound(_label(operation)) from error
        if isinstance(operation, keras.layers.ZeroPadding2D):
            # The tensor is kept, so that its id stays its own.
            origin[id(output)] = (operation, args[0], output)
        found = origin.get(id(args[0])) if args else None
        if found is not None and _is_strided_valid(operation):
            padded.append(_Padded(found[0], operation, _window(found[0], operation, found[1].shape)))
        return output

    output = walk(model, symbols(model, size, batch=1), call)
    shape = tuple(item.shape for item in output) if isinstance(output, (list, tuple)) else tuple(output.shape)
    return shape, padded


def _trace_all(model: Any, sizes: Sequence[int], *, same_output: bool) -> None:
    shapes = {size: _trace(model, size)[0] for size in sizes}
    if same_output and len(set(shapes.values())) > 1:
        raise SizeBound(f"the output, whose shape is {shapes},")


def _require_free(model: Any, sizes: Sequence[int]) -> None:
    for size in sizes:
        try:
            _trace(model, size)
        except SizeBound as bound:
            raise UnsupportedSize(
                f"{model.name} cannot take {size} pixels: {bound.node} refuses them. Choose other --sizes."
            ) from bound


def _require_unambiguous(model: Any, own: int, sizes: Sequence[int]) -> None:
    every = sorted({own, *sizes})
    traces = [_trace(model, size)[1] for size in every]
    for padded in zip(*traces, strict=True):
        try:
            decide_padding([item.window for item in padded], reading=FIXED, own=every.index(own))
        except PaddingAmbiguous:
            first = padded[0]
            raise SizeBound(
                f"the padding of {_label(first.pad)} before {_label(first.conv)}, which is 'same' "
                "at this size and may be a number at others (--assume-same-padding decides for 'same'),"
            ) from None


def _assumed(model: Any, own: int) -> dict[int, str]:
    """Return the convolutions to turn into "same": id of the layer -> its name."""
    import keras

    found = {}
    for item in _trace(model, own)[1]:
        if decide_padding([item.window], reading=ASSUMED).mode != "same":
            continue
        if isinstance(item.conv, keras.layers.MaxPooling2D):
            # Zeros and "same" differ for a maximum: only the author can say what was meant.
            raise SizeBound(_label(item.pad))
        found[id(item.conv)] = item.conv.name
    return found


def _clone(model: Any, side: int | None, to_same: frozenset[int]) -> Any:
    """Return the flat graph over a new input; convolutions in ``to_same`` lose their ZeroPadding2D."""
    import keras

    clones: dict[int, Any] = {}
    names: set[str] = set()
    before_pad: dict[int, tuple[Any, Any]] = {}
    originals: list[tuple[Any, Any]] = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        same = id(operation) in to_same
        if id(operation) not in clones:
            clones[id(operation)] = _clone_operation(operation, names, same=same)
            originals.append((operation, clones[id(operation)]))
        if same and id(args[0]) in before_pad:
            args = (before_pad[id(args[0])][0], *args[1:])
        output = _call_clone(clones[id(operation)], operation, args, kwargs, free=side is None)
        if isinstance(operation, keras.layers.ZeroPadding2D):
            before_pad[id(output)] = (args[0], output)
        return output

    inputs, place = _inputs(model, side), frame_place(model)
    names.update(item.name for item in inputs)
    ordered = [inputs[place], *inputs[:place], *inputs[place + 1 :]]
    net = keras.Model(ordered if len(ordered) > 1 else ordered[0], walk(model, inputs, call), name=model.name)
    for original, clone in originals:
        _copy_weights(original, clone)
    return net


def _inputs(model: Any, side: int | None) -> list[Any]:
    """Return new inputs in the order of a model's, images of one side."""
    import keras

    place = frame_place(model)
    own = [item.name for item in model.inputs]
    labels = plain_names([*own[:place], *own[place + 1 :]])
    labels.insert(place, FRAME)
    return [
        keras.Input(tensor.shape[1:], name=label)
        for tensor, label in zip(symbols(model, side, batch=None), labels, strict=True)
    ]


def _clone_operation(operation: Any, names: set[str], *, same: bool) -> Any:
    import keras

    if not isinstance(operation, keras.Layer):
        return operation
    config = operation.get_config()
    name, number = config["name"], 1
    while name in names:
        number += 1
        name = f"{config['name']}_{number}"
    names.add(name)
    # Mixed precision is a way to train; the net that is compressed and exported is float32.
    config.update(name=name, dtype="float32", **({"padding": "same"} if same else {}))
    return type(operation).from_config(config)


def _call_clone(
    clone: Any, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, free: bool
) -> Any:
    try:
        output = clone(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise SizeBound(_label(operation)) from error
    # A flattened image of any size has any number of columns: this layer, not the Dense behind it, binds.
    if free and getattr(output, "shape", (1,))[-1] is None:
        raise SizeBound(_label(operation))
    return output


def _copy_weights(original: Any, clone: Any) -> None:
    if clone is original or not original.weights:
        return
    try:
        clone.set_weights(original.get_weights())
    except ValueError as error:
        raise SizeBound(_label(original)) from error
    if hasattr(clone, "finalize_state"):
        clone.finalize_state()


def _is_strided_valid(operation: Any) -> bool:
    import keras

    kinds = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.SeparableConv2D,
        keras.layers.MaxPooling2D,
    )
    return isinstance(operation, kinds) and operation.padding == "valid" and max(operation.strides) > 1


def _window(pad: Any, operation: Any, shape: Sequence[int]) -> Window:
    (top, bottom), (left, right) = pad.padding
    pads: Pads = (top, left, bottom, right)
    return Window(
        extent=(shape[1], shape[2]),
        kernel=tuple(getattr(operation, "kernel_size", None) or operation.pool_size),
        strides=tuple(operation.strides),
        dilations=tuple(getattr(operation, "dilation_rate", (1, 1))),
        pads=pads,
    )


def _label(operation: Any) -> str:
    return f"{operation.name} ({type(operation).__name__})"
