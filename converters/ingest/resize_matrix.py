"""What a resize of one axis is, in numbers: the rows that nearest picks, the matrix of linear and cubic.

The definitions are those of ONNX's Resize (https://onnx.ai/onnx/operators/onnx__Resize.html).
"""

from __future__ import annotations

import numpy as np


def places(before: int, after: int, *, transform: str, scale: float) -> np.ndarray:
    """Return where each new pixel lies on the old axis, float32.

    Args:
        before: Pixels of the old axis.
        after: Pixels of the new one.
        transform: ONNX's ``coordinate_transformation_mode``.
        scale: How much longer the axis becomes, as the node says it: ``after`` is rounded down from it.

    Raises:
        ValueError: The mode is unknown.
    """
    # In float32 as ONNX Runtime does it: where a place falls on a pixel's border, that decides.
    new, half = np.arange(after, dtype=np.float32), np.float32(0.5)
    factor = np.float32(scale)
    if transform == "align_corners":
        return new * np.float32(before - 1) / np.float32(max(after - 1, 1))
    if transform == "asymmetric":
        return new / factor
    if transform == "pytorch_half_pixel" and after == 1:
        return np.zeros(1, np.float32)
    if transform in ("half_pixel", "pytorch_half_pixel"):
        return (new + half) / factor - half
    if transform == "half_pixel_symmetric":
        return (
            np.float32(before / 2) * (1 - np.float32(after) / (before * factor))
            + (new + half) / factor
            - half
        )
    if transform == "tf_half_pixel_for_nn":  # until opset 12
        return (new + half) / factor
    raise ValueError(f"its coordinate_transformation_mode {transform!r} is not carried over")


def nearest_rows(before: int, after: int, *, transform: str, scale: float, rounding: str) -> np.ndarray:
    """Return the index of the old pixel that each new one copies.

    Args:
        before: Pixels of the old axis.
        after: Pixels of the new one.
        transform: As for ``places``.
        scale: As for ``places``.
        rounding: ONNX's ``nearest_mode``.
    """
    place = places(before, after, transform=transform, scale=scale)
    rounded = {
        "floor": np.floor(place),
        "ceil": np.ceil(place),
        "round_prefer_floor": np.ceil(place - np.float32(0.5)),
        "round_prefer_ceil": np.floor(place + np.float32(0.5)),
    }[rounding]
    return np.asarray(np.clip(rounded, 0, before - 1), np.int64)


def linear_matrix(
    before: int,
    after: int,
    *,
    transform: str,
    scale: float,
    cubic: float | None = None,
    antialias: bool = False,
    exclude_outside: bool = False,
) -> np.ndarray:
    """Return the (after, before) float32 matrix that resizes one axis.

    Args:
        before: Pixels of the old axis.
        after: Pixels of the new one.
        transform: As for ``places``.
        scale: As for ``places``.
        cubic: The coefficient a of the cubic kernel, or None for linear.
        antialias: Whether the kernel widens where the axis shrinks.
        exclude_outside: Whether pixels outside the image count as none, not as the border's.
    """
    stretch = max(1.0 / scale, 1.0) if antialias else 1.0
    reach = (1 if cubic is None else 2) * stretch
    matrix = np.zeros((after, before), np.float64)
    for row, place in enumerate(places(before, after, transform=transform, scale=scale).tolist()):
        taps = np.arange(int(np.floor(place - reach)) + 1, int(np.ceil(place + reach)) + 1)
        weights = _kernel(np.abs(taps - place) / stretch, cubic)
        inside = (taps >= 0) & (taps < before)
        if exclude_outside:
            weights = np.where(inside, weights, 0.0)
        np.add.at(matrix[row], np.clip(taps, 0, before - 1), weights / weights.sum())
    return matrix.astype(np.float32)


def _kernel(distance: np.ndarray, cubic: float | None) -> np.ndarray:
    if cubic is None:
        return np.maximum(1.0 - distance, 0.0)
    near = ((cubic + 2) * distance - (cubic + 3)) * distance**2 + 1
    far = ((cubic * distance - 5 * cubic) * distance + 8 * cubic) * distance - 4 * cubic
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
