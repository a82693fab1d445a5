"""Handlers of the convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_layout import align, reshaped
from boardfit.converters.ingest.onnx_padding import (
    Padding,
    PaddingAmbiguous,
    PaddingUnclear,
    Pads,
    Window,
    decide_padding,
    same_pads,
)
from boardfit.converters.ingest.onnx_records import (
    NHWC_OF_NCHW,
    Build,
    Shape,
    SizeBound,
    Step,
    Value,
    make_value,
)


def conv(step: Step, build: Build) -> Value:
    """Conv: Conv2D, or DepthwiseConv2D where every input channel has filters of its own."""
    data, kernel, bias = step.data(), step.const(1), step.const(2)
    if kernel is None or kernel.ndim not in (3, 4) or data.rank != kernel.ndim:
        raise step.refuse(
            f"its input has {data.rank} axes: expected an image of 4, or a row of 3, and a constant kernel"
        )
    if kernel.ndim == 3:
        return as_row(step, build, conv)
    strides, dilations = step.attr("strides", [1, 1]), step.attr("dilations", [1, 1])
    windows = windows_of(step, kernel=(kernel.shape[2], kernel.shape[3]))
    padding = decide(step, build, windows)
    tensor = zero_padded(align(data, NHWC_OF_NCHW, build), padding.explicit, build)
    # Keras cannot combine strides and dilations: every pixel is computed, and some are taken.
    both = max(strides) > 1 and max(dilations) > 1
    if both and padding.mode == "same":
        raise step.refuse(
            f"it has strides {strides}, dilations {dilations} and padding that follows the size"
        )
    config: dict[str, Any] = {
        "kernel_size": kernel.shape[2:],
        "strides": (1, 1) if both else tuple(strides),
        "padding": padding.mode,
        "dilation_rate": tuple(dilations),
        "use_bias": bias is not None,
    }
    output = _apply_conv(step, build, tensor, kernel, bias, config=config)
    if both:
        output = output[:, :: strides[0], :: strides[1]]
    return make_value(step, output, NHWC_OF_NCHW)


def conv_transpose(step: Step, build: Build) -> Value:
    """ConvTranspose: Conv2DTranspose and what its padding cuts off; groups one by one."""
    data, kernel, bias = step.data(), step.const(1), step.const(2)
    if kernel is None or kernel.ndim not in (3, 4) or data.rank != kernel.ndim:
        raise step.refuse(
            f"its input has {data.rank} axes: expected an image of 4, or a row of 3, and a constant kernel"
        )
    if kernel.ndim == 3:
        return as_row(step, build, conv_transpose)
    strides, dilations = step.attr("strides", [1, 1]), step.attr("dilations", [1, 1])
    kernel = _spread(kernel, dilations)
    reach = kernel.shape[2:]
    tensor = align(data, NHWC_OF_NCHW, build)
    groups = int(step.attr("group", 1))
    output = _transposed(build, tensor, kernel, bias, groups, tuple(strides))
    full = [
        tuple(shape[2 + axis] * strides[axis] + max(reach[axis] - strides[axis], 0) for axis in (0, 1))
        for shape in data.shapes
    ]
    begins = _begins(step, full)
    ends = {
        tuple(whole[axis] - begins[axis] - shape[2 + axis] for axis in (0, 1))
        for whole, shape in zip(full, step.shapes, strict=True)
    }
    if len(ends) > 1 or min(*begins, *next(iter(ends))) < 0:
        raise step.refuse("its padding follows the size, or its output is larger than what it computes")
    bottom, right = next(iter(ends))
    if any((*begins, bottom, right)):
        cropping = ((begins[0], bottom), (begins[1], right))
        output = build.layer("Cropping2D", "crop", output, cropping=cropping)
    return make_value(step, output, NHWC_OF_NCHW)


def _begins(step: Step, full: list[tuple[int, ...]]) -> tuple[int, int]:
    """Return the rows and columns that are cut off before the output."""
    auto = step.attr("auto_pad", "NOTSET") or "NOTSET"
    # With an output_shape ONNX ignores the pads, and puts the odd pixel first unless it is SAME_UPPER.
    if auto in ("NOTSET", "VALID") and not any(attrs.get("output_shape") for attrs in step.attrs):
        pads = step.attr("pads", [0] * 4) if auto == "NOTSET" else [0] * 4
        return int(pads[0]), int(pads[1])
    extra = {
        tuple(whole[axis] - shape[2 + axis] for axis in (0, 1))
        for whole, shape in zip(full, step.shapes, strict=True)
    }
    if len(extra) > 1:
        raise step.refuse("its padding follows the size")
    down, right = extra.pop()
    odd = 0 if auto == "SAME_UPPER" else 1
    return (down + odd) // 2, (right + odd) // 2


def _spread(kernel: np.ndarray, dilations: Sequence[int]) -> np.ndarray:
    """Return a kernel with its dilation written out as zeros: without oneDNN TensorFlow knows none here."""
    down, right = (((kernel.shape[2 + axis] - 1) * dilations[axis]) + 1 for axis in (0, 1))
    wide = np.zeros((*kernel.shape[:2], down, right), kernel.dtype)
    wide[:, :, :: dilations[0], :: dilations[1]] = kernel
    return wide


def _transposed(
    build: Build,
    tensor: Any,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    groups: int,
    strides: tuple[int, ...],
) -> Any:
    from keras import ops

    parts = [tensor] if groups == 1 else ops.split(tensor, groups, axis=-1)
    filters = kernel.shape[1]
    outputs = []
    for index, (part, weight) in enumerate(zip(parts, np.split(kernel, groups), strict=True)):
        own = [] if bias is None else [bias[index * filters : (index + 1) * filters]]
        output = build.layer(
            "Conv2DTranspose",
            "deconv",
            part,
            # (in, out, h, w) -> (h, w, out, in)
            weights=[weight.transpose(2, 3, 1, 0), *own],
            filters=filters,
            kernel_size=weight.shape[2:],
            strides=strides,
            padding="valid",
            use_bias=bias is not None,
            kernel_initializer="zeros",
        )
        outputs.append(output)
    return outputs[0] if groups == 1 else build.layer("Concatenate", "concat", outputs, axis=-1)


def as_row(step: Step, build: Build, handler: Callable[[Step, Build], Value]) -> Value:
    """Run a one-dimensional convolution or pooling as one on an image of height one.

    Args:
        step: A node on (N, C, L).
        build: The net.
        handler: Of its operator, for (N, C, 1, L).
    """

    def tall(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        return tuple((*shape[:2], 1, shape[2]) for shape in shapes)

    data = step.data()
    image = reshaped(data, replace(step, shapes=tall(data.shapes)), build)
    others = list(step.inputs[1:])
    if others and others[0] is not None:
        kernels = tuple(kernel[:, :, None] for kernel in others[0].consts)
        others[0] = replace(others[0], shapes=tall(others[0].shapes), consts=kernels)
    attrs = tuple(_row_attributes(each) for each in step.attrs)
    lifted = replace(step, inputs=(image, *others), shapes=tall(step.shapes), attrs=attrs)
    return reshaped(handler(lifted, build), step, build)


def _row_attributes(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    lifted = dict(attrs)
    for name in ("strides", "dilations", "kernel_shape", "output_shape"):
        if name in attrs:
            lifted[name] = [1, *attrs[name]]
    if "output_padding" in attrs:
        lifted["output_padding"] = [0, *attrs["output_padding"]]
    if "pads" in attrs:
        lifted["pads"] = [0, attrs["pads"][0], 0, attrs["pads"][1]]
    return lifted


def windows_of(step: Step, *, kernel: tuple[int, int]) -> list[Window]:
    """Return the window of a convolution or pooling at each size, ``auto_pad`` turned into numbers.

    Args:
        step: A node whose first input is an NCHW image.
        kernel: Height and width.
    """
    windows = []
    for attrs, shape in zip(step.attrs, step.data().shapes, strict=True):
        auto = attrs.get("auto_pad", "NOTSET") or "NOTSET"
        pads = attrs.get("pads", [0, 0, 0, 0]) if auto == "NOTSET" else [0, 0, 0, 0]
        window = Window(
            extent=(shape[2], shape[3]),
            kernel=kernel,
            strides=tuple(step.attr("strides", [1, 1])),
            dilations=tuple(step.attr("dilations", [1, 1])),
            pads=tuple(pads),
            rule="SAME_UPPER" if auto == "SAME_UPPER" else "",
        )
        windows.append(_lower(window) if auto == "SAME_LOWER" else window)
    if any(len(window.pads) != 4 or min(window.pads) < 0 for window in windows):
        raise step.refuse(f"its padding {windows[0].pads} is not four numbers from 0")
    return windows


def decide(step: Step, build: Build, windows: list[Window]) -> Padding:
    """Decide the padding of a step, or bind the size, or refuse."""
    try:
        return decide_padding(windows, reading=build.reading, own=build.own)
    except PaddingAmbiguous:
        raise SizeBound(
            f"the padding {list(windows[build.own].pads)} of {step.name} ({step.op}), which is 'same' at "
            "this size and may be a number at others (--assume-same-padding decides for 'same'),"
        ) from None
    except PaddingUnclear as error:
        raise step.refuse(f"{error}: neither 'same' nor one number of pixels fits all") from error


def zero_padded(tensor: Any, pads: Pads, build: Build) -> Any:
    """Apply ZeroPadding2D where there is something to pad: top, left, bottom, right."""
    if not any(pads):
        return tensor
    top, left, bottom, right = pads
    return build.layer("ZeroPadding2D", "pad", tensor, padding=((top, bottom), (left, right)))


def _lower(window: Window) -> Window:
    return Window(
        extent=window.extent,
        kernel=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        pads=same_pads(window, lower=True),
    )


def _apply_conv(
    step: Step,
    build: Build,
    tensor: Any,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    *,
    config: dict[str, Any],
) -> Any:
    groups, channels = int(step.attr("group", 1)), step.data().shapes[0][1]
    biases = [] if bias is None else [bias]
    filters, per_group = kernel.shape[:2]
    if per_group * groups != channels or filters % groups:
        raise step.refuse(f"its kernel {kernel.shape} does not fit {channels} channels in {groups} groups")
    # TensorFlow's depthwise kernel takes equal strides only; Conv2D with groups takes any.
    if groups == channels and groups > 1 and config["strides"][0] == config["strides"][1]:
        multiplier = filters // groups
        # (groups * multiplier, 1, h, w) -> (h, w, groups, multiplier)
        weight = kernel.reshape(groups, multiplier, *kernel.shape[2:]).transpose(2, 3, 0, 1)
        return build.layer(
            "DepthwiseConv2D",
            "depthwise",
            tensor,
            weights=[weight, *biases],
            depth_multiplier=multiplier,
            depthwise_initializer="zeros",
            **config,
        )
    return build.layer(
        "Conv2D",
        "conv",
        tensor,
        weights=[kernel.transpose(2, 3, 1, 0), *biases],
        filters=filters,
        groups=groups,
        kernel_initializer="zeros",
        **config,
    )
