"""Handlers of the operators that change the grid of an image: Resize, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from typing import Any

import numpy as np

from boardfit.converters.ingest.onnx_layout import align
from boardfit.converters.ingest.onnx_records import NHWC_OF_NCHW, Build, Shape, Step, Value, make_value
from boardfit.converters.ingest.resize_matrix import linear_matrix, nearest_rows

MAX_MATRIX = 1 << 24
"""Elements of a constant that a resize or a move between depth and space may make: 64 MiB."""


def resize(step: Step, build: Build) -> Value:
    """Resize over height and width.

    By a whole factor it is UpSampling2D or CornerResize; by any other, rows and columns that are picked
    (nearest) or a product with a constant matrix (linear, cubic), which bind the size.
    """
    data = step.data()
    old, new = data.shapes, step.shapes
    space = _space(step, old, new)
    if space is None:
        return Value(new, (), data.tensor, data.axes, data.nonnegative)
    image, axes = _as_image(step, build, space)
    if len(build.sizes) == 1 and len(step.inputs) > 3 and None in image.shape[1:]:
        build.bind(step)  # to a size that is written out, which another input size may not follow
    mode, corners = step.attr("mode", "nearest"), _transform(step) == "align_corners"
    factors = _whole_factors(step, space)
    if factors and mode == "nearest" and _is_repeat(step, factors):
        output = build.layer("UpSampling2D", "up", image, size=factors, interpolation="nearest")
    elif factors and mode == "linear" and _transform(step) in ("half_pixel", "pytorch_half_pixel"):
        output = build.layer("UpSampling2D", "up", image, size=factors, interpolation="bilinear")
    elif mode == "linear" and corners and factors:
        output = build.own_layer("CornerResize", "resize", image, scale=factors)
    elif mode == "linear" and corners:
        build.bind(step)
        output = build.own_layer("CornerResize", "resize", image, extents=[new[0][axis] for axis in space])
    else:
        build.bind(step)
        output = _by_matrices(step, build, image, space)
    return make_value(step, output, axes, nonnegative=data.nonnegative and mode != "cubic")


def depth_to_space(step: Step, build: Build) -> Value:
    """DepthToSpace: a transposed convolution that only moves numbers, which every format has."""
    block, channels = int(step.attr("blocksize")), step.data().shapes[0][1]
    filters = channels // block**2
    _require_small(step, channels * channels)
    kernel = np.zeros((block, block, filters, channels), np.float32)
    for c in range(filters):
        for y in range(block):
            for x in range(block):
                crd = step.attr("mode", "DCR") == "CRD"
                source = c * block**2 + y * block + x if crd else (y * block + x) * filters + c
                kernel[y, x, c, source] = 1.0
    return _moved(step, build, "Conv2DTranspose", "depth_to_space", kernel=kernel, filters=filters)


def space_to_depth(step: Step, build: Build) -> Value:
    """SpaceToDepth: a strided convolution that only moves numbers, which every format has."""
    block, channels = int(step.attr("blocksize")), step.data().shapes[0][1]
    _require_small(step, (block * block * channels) ** 2)
    kernel = np.zeros((block, block, channels, channels * block**2), np.float32)
    for c in range(channels):
        for y in range(block):
            for x in range(block):
                kernel[y, x, c, (y * block + x) * channels + c] = 1.0
    return _moved(step, build, "Conv2D", "space_to_depth", kernel=kernel, filters=channels * block**2)


def _moved(step: Step, build: Build, kind: str, stem: str, *, kernel: np.ndarray, filters: int) -> Value:
    """Move numbers between depth and space by a convolution of ones and zeros, whose stride is its kernel."""
    output = build.layer(
        kind,
        stem,
        align(step.data(), NHWC_OF_NCHW, build),
        weights=[kernel],
        filters=filters,
        kernel_size=kernel.shape[:2],
        strides=kernel.shape[:2],
        use_bias=False,
        trainable=False,
    )
    return make_value(step, output, NHWC_OF_NCHW, nonnegative=step.data().nonnegative)


def _require_small(step: Step, elements: int) -> None:
    if elements > MAX_MATRIX:
        raise step.refuse(f"it would need a constant of {elements} elements: at most {MAX_MATRIX} are made")


def _space(step: Step, old: tuple[Shape, ...], new: tuple[Shape, ...]) -> tuple[int, int] | None:
    """Return the two neighbouring ONNX axes that are resized; None where nothing changes."""
    changed = sorted({a for o, n in zip(old, new, strict=True) for a in range(len(o)) if o[a] != n[a]})
    if not changed:
        return None
    pair = (2, 3) if set(changed) <= {2, 3} else (1, 2)
    if len(old[0]) != 4 or not set(changed) <= set(pair):
        raise step.refuse(f"it resizes the axes {changed}: expected height and width of an image")
    return pair


def _as_image(step: Step, build: Build, space: tuple[int, int]) -> tuple[Any, tuple[int, ...]]:
    axes = NHWC_OF_NCHW if space == (2, 3) else (0, 1, 2, 3)
    return align(step.data(), axes, build), axes


def _transform(step: Step) -> str:
    return str(step.attr("coordinate_transformation_mode", "half_pixel"))


def _scale(step: Step, index: int, axis: int) -> float:
    """Return by how much an ONNX axis grows at one of the sizes: as given, or as the shapes say."""
    before, after = step.data().shapes[index][axis], step.shapes[index][axis]
    scales = step.inputs[2] if len(step.inputs) > 2 else None
    given = scales.consts[index].reshape(-1) if scales is not None and scales.is_const else np.zeros(0)
    axes = [item % step.data().rank for item in step.attr("axes", None) or range(step.data().rank)]
    return float(given[axes.index(axis)]) if given.size and axis in axes else after / before


def _whole_factors(step: Step, space: tuple[int, int]) -> tuple[int, int] | None:
    factors = {tuple(_scale(step, index, axis) for axis in space) for index in range(len(step.shapes))}
    if len(factors) != 1:
        return None
    height, width = factors.pop()
    return (int(height), int(width)) if height == int(height) and width == int(width) else None


def _is_repeat(step: Step, factors: tuple[int, int]) -> bool:
    """Return whether nearest means that every pixel is repeated."""
    return all(
        np.array_equal(_nearest(step, 4, 4 * factor, factor), np.repeat(np.arange(4), factor))
        for factor in factors
    )


def _nearest(step: Step, before: int, after: int, scale: float) -> np.ndarray:
    rounding = str(step.attr("nearest_mode", "round_prefer_floor"))
    return nearest_rows(before, after, transform=_transform(step), scale=scale, rounding=rounding)


def _by_matrices(step: Step, build: Build, image: Any, space: tuple[int, int]) -> Any:
    from keras import ops

    mode = step.attr("mode", "nearest")
    output = image
    for place, axis in enumerate(space, start=1):
        before, after, scale = step.data().shapes[0][axis], step.shapes[0][axis], _scale(step, 0, axis)
        if before == after:
            continue
        _require_small(step, before * after)
        if mode == "nearest":
            output = ops.take(output, _nearest(step, before, after, scale).tolist(), axis=place)
            continue
        matrix = linear_matrix(
            before,
            after,
            transform=_transform(step),
            scale=scale,
            cubic=float(step.attr("cubic_coeff_a", -0.75)) if mode == "cubic" else None,
            antialias=bool(step.attr("antialias", 0)),
            exclude_outside=bool(step.attr("exclude_outside", 0)),
        )
        output = _multiply(build, output, matrix, place)
    return output


def _multiply(build: Build, image: Any, matrix: np.ndarray, place: int) -> Any:
    """Multiply rows (place 1) or columns (place 2) of an NHWC image: a Dense layer on that axis, last."""
    order = (2, 3, 1) if place == 1 else (1, 3, 2)
    back = (3, 1, 2) if place == 1 else (1, 3, 2)
    turned = build.layer("Permute", "permute", image, dims=order)
    output = build.layer(
        "Dense", "resize", turned, weights=[matrix.T], units=matrix.shape[0], use_bias=False, trainable=False
    )
    return build.layer("Permute", "permute", output, dims=back)
