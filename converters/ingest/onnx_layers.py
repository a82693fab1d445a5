"""Handlers of the operators that carry weights: Conv, BatchNormalization, Gemm, MatMul."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    SizeBound,
    Step,
    Value,
    align,
    make_value,
)


def conv(step: Step, build: Build) -> Value:
    """Conv: Conv2D, or DepthwiseConv2D where every input channel has filters of its own."""
    data, kernel, bias = step.data(), step.const(1), step.const(2)
    if kernel is None or kernel.ndim != 4 or data.rank != 4:
        raise step.refuse(
            f"its input has {data.rank} axes: expected an image of 4 and a constant kernel of 4"
        )
    strides, dilations = step.attr("strides", [1, 1]), step.attr("dilations", [1, 1])
    if max(strides) > 1 and max(dilations) > 1:
        raise step.refuse(
            f"it has both strides {strides} and dilations {dilations}, which Keras cannot combine"
        )
    windows = windows_of(step, kernel=(kernel.shape[2], kernel.shape[3]))
    padding = decide(step, build, windows)
    tensor = zero_padded(align(data, NHWC_OF_NCHW, build), padding.explicit, build)
    config: dict[str, Any] = {
        "kernel_size": kernel.shape[2:],
        "strides": tuple(strides),
        "padding": padding.mode,
        "dilation_rate": tuple(dilations),
        "use_bias": bias is not None,
    }
    output = _apply_conv(step, build, tensor, kernel, bias, config=config)
    return make_value(step, output, NHWC_OF_NCHW)


def batch_normalization(step: Step, build: Build) -> Value:
    """BatchNormalization, kept as a layer, since the net will be trained."""
    data = step.data()
    if step.attr("training_mode", 0):
        raise step.refuse("it was exported in training mode: export the net in eval mode")
    scale, shift, mean, variance = (step.const(index) for index in range(1, 5))
    axes = NHWC_OF_NCHW if data.rank == 4 else tuple(range(data.rank))
    if data.rank not in (2, 4):
        raise step.refuse(f"its input has {data.rank} axes: expected 2 or 4")
    output = build.layer(
        "BatchNormalization",
        "bn",
        align(data, axes, build),
        weights=[np.asarray(item) for item in (scale, shift, mean, variance)],
        momentum=float(step.attr("momentum", 0.9)),
        epsilon=float(step.attr("epsilon", 1e-5)),
    )
    return make_value(step, output, axes)


def gemm(step: Step, build: Build) -> Value:
    """Gemm with constant weights: Dense."""
    weight = step.const(1)
    if step.attr("transA", 0) or weight is None:
        raise step.refuse("its first input is transposed, or its weight is missing")
    kernel = (weight.T if step.attr("transB", 0) else weight) * np.float32(step.attr("alpha", 1.0))
    constant = step.const(2)
    bias = None
    if constant is not None:
        scaled = constant * np.float32(step.attr("beta", 1.0))
        if scaled.size not in (1, kernel.shape[1]) or (scaled.ndim > 1 and scaled.shape[0] != 1):
            raise step.refuse(f"its bias has the shape {constant.shape}: expected one number per output")
        bias = np.broadcast_to(scaled.reshape(-1), (kernel.shape[1],))
    return _dense(step, build, kernel, bias)


def matmul(step: Step, build: Build) -> Value:
    """MatMul with a constant on its right (and the bias that fusing found): Dense."""
    kernel = step.const(1)
    if kernel is None or kernel.ndim != 2:
        raise step.refuse("only a product with a constant matrix on the right becomes a layer")
    return _dense(step, build, kernel, step.const(2))


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


def _dense(step: Step, build: Build, kernel: np.ndarray, bias: np.ndarray | None) -> Value:
    data = step.data()
    axes = tuple(range(data.rank))
    if data.rank == 4 and data.axes[-1] == 3:
        axes = data.axes
    extents = {shape[-1] for shape in data.shapes}
    if data.rank < 2 or extents != {kernel.shape[0]}:
        raise step.refuse(
            f"its input has {sorted(extents)} columns: expected {kernel.shape[0]}, as its weight has rows"
        )
    tensor = align(data, axes, build)
    if tensor.shape[-1] is None:
        build.bind(step)
    output = build.layer(
        "Dense",
        "dense",
        tensor,
        weights=[kernel] if bias is None else [kernel, bias],
        units=kernel.shape[1],
        use_bias=bias is not None,
        kernel_initializer="zeros",
    )
    return make_value(step, output, axes)
