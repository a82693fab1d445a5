"""Rounding to 8 bits while a net trains, on the grids that the three formats use.

Rounding has no gradient: the straight-through estimator takes that of the identity (Y. Bengio et al. 2013,
"Estimating or propagating gradients through stochastic neurons", https://arxiv.org/abs/1308.3432). Ranges are
learned as S. Esser et al. 2020 do it ("Learned step size quantization", https://arxiv.org/abs/1902.08153),
by their logarithm (S. Jain et al. 2020, "Trained quantization thresholds", https://arxiv.org/abs/1903.08066).
"""

from __future__ import annotations

from typing import Any

from keras import ops

LEVELS = 127
"""Integers to either side of zero: of a weight, and of what ncnn reads."""
TOP = 255
"""Largest integer of an activation in TFLite and ONNX, counted from the low end."""
_SMALLEST = 1e-20


def round_through(values: Any) -> Any:
    """Return values rounded to integers; the gradient is that of the values themselves."""
    return values + ops.stop_gradient(ops.round(values) - values)


def weight_steps(kernel: Any, *, depthwise: bool) -> Any:
    """Return the step of each output channel's weights, wide enough for all three formats.

    The integers reach 127, and so do sums of neighbouring pairs along the input channels, which ONNX Runtime
    adds in 16 bits (``targets.onnx_qdq``): on that step one set of integers serves every format.

    Args:
        kernel: (height, width, inputs, outputs) or (inputs, outputs) float32; depthwise (height, width,
            channels, multiplier).
        depthwise: Which of these.

    Returns:
        float32 that broadcasts against the kernel; no gradient.
    """
    kernel = ops.stop_gradient(kernel)
    if depthwise:
        peak = ops.max(ops.abs(kernel), axis=(0, 1), keepdims=True)
        return ops.maximum(peak, _SMALLEST) / LEVELS
    rows = ops.reshape(kernel, (-1, kernel.shape[-1]))
    peak = ops.max(ops.abs(rows), axis=0)
    if rows.shape[0] > 1:
        even = rows.shape[0] // 2 * 2
        # A last weight without a neighbour is a pair with nothing: its magnitude is in the peak.
        peak = ops.maximum(peak, ops.max(ops.abs(rows[0:even:2] + rows[1:even:2]), axis=0))
    return ops.maximum(peak, _SMALLEST) / LEVELS


def rounded_kernel(kernel: Any, *, depthwise: bool) -> Any:
    """Return a kernel on its 8-bit grid, of the same shape; the gradient passes straight through.

    Args:
        kernel: See ``weight_steps``.
        depthwise: Likewise.
    """
    step = weight_steps(kernel, depthwise=depthwise)
    return round_through(kernel / step) * step


def rounded_activation(
    values: Any, low: Any, high: Any, growth: Any, as_ncnn: Any, *, handed_on: bool = False
) -> Any:
    """Return values on an 8-bit grid, clipped to its ends.

    Args:
        values: (N, ...) float32.
        low: Scalar tensor, at most 0.
        high: Scalar tensor, at least 0 and above ``low``.
        growth: Scalar tensor, learned: the range is ``low`` to ``high`` times e to its power.
        as_ncnn: (N,) bool. False: 256 levels from low to high, as TFLite and ONNX have it. True: from -127 to
            127 with 0 in the middle, as ncnn has it.
        handed_on: Whether a convolution writes the tensor and convolutions alone read it: there ncnn takes
            255 levels from low to high (``targets.ncnn_grid``).
    """
    count = ops.cast(ops.shape(values)[0], "float32")
    elements = ops.cast(ops.size(values), "float32") / count
    # Esser et al. scale the gradient of a step by the values that share it, to that of a weight.
    share = ops.rsqrt(elements * LEVELS)
    stretch = ops.exp(share * growth + ops.stop_gradient((1.0 - share) * growth))
    width = high - low
    zero = ops.round(-low * TOP / width)
    middle = ops.round(LEVELS + low * 2 * LEVELS / width) if handed_on else 0.0
    theirs = width / (2 * LEVELS) if handed_on else ops.maximum(-low, high) / LEVELS
    rows = ops.reshape(as_ncnn, (-1, *[1] * (len(values.shape) - 1)))
    step = stretch * ops.where(rows, theirs, width / TOP)
    least, most = ops.where(rows, middle - LEVELS, -zero), ops.where(rows, middle + LEVELS, TOP - zero)
    return round_through(ops.minimum(ops.maximum(values / step, least), most)) * step
