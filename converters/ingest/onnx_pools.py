"""Handlers of the operators that pool over space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_layers import as_row, decide, windows_of, zero_padded
from boardfit.converters.ingest.onnx_layout import align
from boardfit.converters.ingest.onnx_padding import Padding, Window, same_pads
from boardfit.converters.ingest.onnx_records import (
    BOUND,
    EXPORTS,
    NHWC_OF_NCHW,
    Build,
    Step,
    Value,
    make_value,
)

_LOWEST = -65504.0
"""What stands for minus infinity in front of a MaxPool: the lowest half-precision number."""


def max_pool(step: Step, build: Build) -> Value:
    """MaxPool: MaxPooling2D, padded with what no maximum can see, or GlobalMaxPooling2D like averages."""
    if step.data().rank == 3:
        return as_row(step, build, max_pool)
    if max(step.attr("dilations", [1, 1])) > 1:
        return _dilated(step, build)
    windows = _pool_windows(step)
    if _covers(build, windows):
        return global_pool("GlobalMaxPooling2D", step, build)
    padding = _max_padding(step, build, windows)
    data = step.data()
    tensor = align(data, NHWC_OF_NCHW, build)
    tensor = _padded_for_max(tensor, padding, build, nonnegative=data.nonnegative)
    output = _pool("MaxPooling2D", "maxpool", tensor, windows[0], padding, build)
    return make_value(step, output, NHWC_OF_NCHW, nonnegative=data.nonnegative)


def average_pool(step: Step, build: Build) -> Value:
    """AveragePool: AveragePooling2D, or GlobalAveragePooling2D where it covers the image at every size."""
    data = step.data()
    if data.rank == 3:
        return as_row(step, build, average_pool)
    if max(step.attr("dilations", [1, 1])) > 1:
        return _dilated(step, build)
    windows = _pool_windows(step)
    if _covers(build, windows):
        return global_pool("GlobalAveragePooling2D", step, build)
    if any(_output_extent(w) != shape[2:] for w, shape in zip(windows, step.shapes, strict=True)):
        return _average_by_counts(step, build, windows)
    padding = decide(step, build, windows)
    if any(w.rule or any(w.pads) for w in windows):
        counts_zeros = bool(step.attr("count_include_pad", 0))
        if counts_zeros == (padding.mode == "same"):
            explicit = (
                counts_zeros and not any(w.rule for w in windows) and len({w.pads for w in windows}) == 1
            )
            if not explicit:
                return _average_by_counts(step, build, windows)
            padding = Padding("valid", windows[0].pads)
    tensor = zero_padded(align(data, NHWC_OF_NCHW, build), padding.explicit, build)
    output = _pool("AveragePooling2D", "avgpool", tensor, windows[0], padding, build)
    return make_value(step, output, NHWC_OF_NCHW, nonnegative=data.nonnegative)


def global_average_pool(step: Step, build: Build) -> Value:
    """GlobalAveragePool."""
    if step.data().rank == 3:
        return as_row(step, build, global_average_pool)
    return global_pool("GlobalAveragePooling2D", step, build)


def global_max_pool(step: Step, build: Build) -> Value:
    """GlobalMaxPool."""
    if step.data().rank == 3:
        return as_row(step, build, global_max_pool)
    return global_pool("GlobalMaxPooling2D", step, build)


def global_pool(kind: str, step: Step, build: Build) -> Value:
    """Pool the whole image, and remember how to make the flat form straight away."""
    data = step.data()
    if data.rank != 4:
        raise step.refuse(f"its input has {data.rank} axes: expected 4")
    # A ReduceMean in NHWC keeps its order of axes; the Global operators of ONNX are NCHW.
    axes = data.axes if step.op.startswith("Reduce") else NHWC_OF_NCHW
    image = align(data, axes, build)
    output = build.layer(kind, "pool", image, keepdims=True)
    flat: Callable[[], Any] = lambda: build.layer(kind, "pool", image, keepdims=False)  # noqa: E731
    return Value(shapes=step.shapes, tensor=output, axes=axes, nonnegative=data.nonnegative, flat=flat)


def _dilated(step: Step, build: Build) -> Value:
    """A pooling with holes: the maximum or mean of as many shifted pictures as its kernel has places."""
    from keras import ops

    data = step.data()
    kernel, strides = list(step.attr("kernel_shape")), list(step.attr("strides", [1, 1]))
    dilations, pads = list(step.attr("dilations")), list(step.attr("pads", [0] * 4))
    plain = step.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not step.attr("ceil_mode", 0)
    average = step.op == "AveragePool"
    counts = not any(pads) or bool(step.attr("count_include_pad", 0))
    if data.rank != 4 or not plain or (average and not counts):
        raise step.refuse("it is dilated, and pads by a rule, rounds up, or leaves its padding uncounted")
    tensor = align(data, NHWC_OF_NCHW, build)
    padding = Padding("valid", (pads[0], pads[1], pads[2], pads[3]))
    if average:
        tensor = zero_padded(tensor, padding.explicit, build)
    else:
        tensor = _padded_for_max(tensor, padding, build, nonnegative=data.nonnegative)
    total: Any = None
    for place in np.ndindex(*kernel):
        cuts = [
            slice(at * hole, -(size - 1 - at) * hole or None, stride)
            for at, hole, size, stride in zip(place, dilations, kernel, strides, strict=True)
        ]
        part = tensor[:, cuts[0], cuts[1], :]
        total = part if total is None else (ops.add if average else ops.maximum)(total, part)
    if average:
        total = ops.multiply(total, 1.0 / float(np.prod(kernel)))
    return make_value(step, total, NHWC_OF_NCHW, nonnegative=data.nonnegative)


def _pool_windows(step: Step) -> list[Window]:
    data = step.data()
    if data.rank != 4:
        raise step.refuse(f"its input has {data.rank} axes: expected an image of 4")
    if step.attr("storage_order", 0):
        raise step.refuse("its storage_order is 1: expected 0")
    kernels = [tuple(attrs["kernel_shape"]) for attrs in step.attrs]
    per_size = [windows_of(_at(step, index), kernel=kernel)[0] for index, kernel in enumerate(kernels)]
    covering = all(w.kernel == w.extent for w in per_size)
    if len(set(kernels)) > 1 and not covering:
        raise step.refuse(f"its kernel differs from size to size ({kernels})")
    return per_size


def _covers(build: Build, windows: list[Window]) -> bool:
    """Return whether the kernel is the whole image at every size that will ever come: adaptive pooling."""
    whole = all(w.kernel == w.extent and not any(w.pads) for w in windows)
    return whole and build.reading in (EXPORTS, BOUND)


def _at(step: Step, index: int) -> Step:
    """Return the step at one of its sizes."""
    data = step.data()
    only = Value(shapes=(data.shapes[index],), tensor=data.tensor, axes=data.axes)
    return Step(step.op, step.name, step.opset, (step.attrs[index],), (only,), (step.shapes[index],))


def _max_padding(step: Step, build: Build, windows: list[Window]) -> Padding:
    if all(_output_extent(w) == shape[2:] for w, shape in zip(windows, step.shapes, strict=True)):
        return decide(step, build, windows)
    # ceil_mode: a border of stride - 1 more makes floor out of ceil at every size, and no maximum sees it.
    down, right = (stride - 1 for stride in windows[0].strides)
    grown = [
        Window(w.extent, w.kernel, w.strides, w.dilations, (*w.pads[:2], w.pads[2] + down, w.pads[3] + right))
        for w in windows
    ]
    if any(_output_extent(w) != shape[2:] for w, shape in zip(grown, step.shapes, strict=True)):
        raise step.refuse("its ceil_mode does not follow one rule at all sizes")
    if any(w.pads != grown[0].pads for w in grown):
        raise step.refuse("its padding differs from size to size")
    return Padding("valid", grown[0].pads)


def _output_extent(window: Window) -> tuple[int, ...]:
    pads = same_pads(window) if window.rule else window.pads
    return tuple(
        (window.extent[axis] + pads[axis] + pads[axis + 2] - window.kernel[axis]) // window.strides[axis] + 1
        for axis in (0, 1)
    )


def _average_by_counts(step: Step, build: Build, windows: list[Window]) -> Value:
    """Average over another number of pixels at the borders: of zeros around, times a constant per pixel.

    That constant binds the size.
    """
    from keras import ops

    build.bind(step)
    data, window, shape = step.data(), windows[0], step.shapes[0]
    pads = same_pads(window) if window.rule else window.pads
    counts_zeros = bool(step.attr("count_include_pad", 0))
    grown, counts = list(pads), []
    for axis in (0, 1):
        extent, kernel, stride = window.extent[axis], window.kernel[axis], window.strides[axis]
        new = shape[2 + axis]
        grown[axis + 2] = max((new - 1) * stride + kernel - extent - pads[axis], 0)
        low, high = (
            (0, pads[axis] + extent + pads[axis + 2]) if counts_zeros else (pads[axis], pads[axis] + extent)
        )
        starts = np.arange(new) * stride
        counts.append(np.minimum(starts + kernel, high) - np.maximum(starts, low))
    padding = Padding("valid", (grown[0], grown[1], grown[2], grown[3]))
    tensor = zero_padded(align(data, NHWC_OF_NCHW, build), padding.explicit, build)
    output = _pool("AveragePooling2D", "avgpool", tensor, window, padding, build)
    scale = window.kernel[0] * window.kernel[1] / np.outer(*counts)
    if not np.all(scale == 1.0):
        output = ops.multiply(output, build.constant(scale[:, :, None], output))
    return make_value(step, output, NHWC_OF_NCHW, nonnegative=data.nonnegative)


def _padded_for_max(tensor: Any, padding: Padding, build: Build, *, nonnegative: bool) -> Any:
    if nonnegative or not any(padding.explicit):
        return zero_padded(tensor, padding.explicit, build)
    from keras import ops

    top, left, bottom, right = padding.explicit
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return ops.pad(tensor, widths, mode="constant", constant_values=_LOWEST)


def _pool(kind: str, stem: str, tensor: Any, window: Window, padding: Padding, build: Build) -> Any:
    return build.layer(
        kind, stem, tensor, pool_size=window.kernel, strides=window.strides, padding=padding.mode
    )
