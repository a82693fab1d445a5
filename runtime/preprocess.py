"""From a frame to the input tensor: centre crop, resize, then ``(pixel - mean) / std``.

The crop is a centred square of ``side = max(1, floor(crop * min(H, W) + 0.5))`` pixels, whose top left
corner is at ``((W - side) // 2, (H - side) // 2)``. ``boardfit.runtime.resize`` defines the resizes.
A pixel becomes a float by a table of 256 values per channel, computed in double precision and rounded
to float32 once: the same numbers on every platform and in both layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import cv2
import numpy as np

from boardfit.errors import InputError
from boardfit.runtime.resize import resize_square
from boardfit.specs import ImageSpec

Empty = Callable[[tuple[int, ...]], np.ndarray]
_EXPECTED = "expected a numpy array of uint8: HxWx3 (BGR), HxW or HxWx1 (grey) or HxWx4 (BGRA)"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the pixels of a tensor come from.

    Attributes:
        size: Side of the tensor in pixels.
        left: First column of the crop in the frame.
        top: First row of the crop in the frame.
        side: Side of the crop in frame pixels.
    """

    size: int
    left: int
    top: int
    side: int

    @property
    def scale(self) -> float:
        """Frame pixels per tensor pixel."""
        return self.side / self.size

    def to_frame_xy(self, xy: np.ndarray) -> np.ndarray:
        """Map points of the tensor to points of the frame.

        Args:
            xy: (..., 2) in tensor pixels, where 0.0 is the outer edge of the first pixel and 0.5 its
                centre.

        Returns:
            (..., 2) float64 in frame pixels, counted likewise. For example the tensor's corner (0, 0)
            is the frame's (left, top).
        """
        return np.asarray(xy, np.float64) * self.scale + (self.left, self.top)


def as_bgr(frame: np.ndarray) -> np.ndarray:
    """Bring a frame to OpenCV's form.

    Args:
        frame: uint8: HxWx3 BGR, HxW or HxWx1 grey, HxWx4 BGRA (alpha is dropped); any strides.

    Returns:
        HxWx3 uint8 BGR; the frame itself where it is that already.

    Raises:
        InputError: If it is anything else, or has no pixel.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim not in (2, 3):
        _refuse(frame)
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if channels not in (1, 3, 4) or 0 in frame.shape:
        _refuse(frame)
    row, *inner = frame.strides
    if inner != ([channels, 1] if frame.ndim == 3 else [1]) or row < frame.shape[1] * channels:
        frame = np.ascontiguousarray(frame)  # OpenCV wants whole pixels in a row, rows downwards
    if channels == 3:
        return frame
    code = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    bgr: np.ndarray = cv2.cvtColor(frame, code)
    return bgr


def place(height: int, width: int, *, crop: float, size: int) -> Placement:
    """Return where the centre crop lies.

    Args:
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
        crop: Side of the crop as a fraction (0, 1] of the frame's short side.
        size: Side of the tensor in pixels.
    """
    side = max(1, int(crop * min(height, width) + 0.5))
    return Placement(size=size, left=(width - side) // 2, top=(height - side) // 2, side=side)


class Preprocessor:
    """Turns frames into tensors for one image spec and one layout. Remembers only its tables."""

    def __init__(self, image: ImageSpec, layout: str) -> None:
        """Make the tables.

        Args:
            image: Crop, resize, mean, std and channel order.
            layout: ``NHWC`` or ``NCHW``.
        """
        if layout not in ("NHWC", "NCHW"):
            raise InputError(f"the image input has the layout {layout!r}: expected NHWC or NCHW")
        self._image = image
        self._planar = layout == "NCHW"
        self._swap = image.channels == "rgb"
        levels = np.arange(256, dtype=np.float64)[:, None]
        table = ((levels - np.array(image.mean)) / np.array(image.std)).astype(np.float32)
        self._tables = [np.ascontiguousarray(table[:, channel]).reshape(256, 1) for channel in range(3)]
        alike = (table[:, :1] == table).all()
        # OpenCV looks one shared table up in half the time of three.
        self._table = self._tables[0] if alike else table.reshape(256, 1, 3)

    def fit(
        self, frame: np.ndarray, size: int, *, empty: Empty | None = None
    ) -> tuple[np.ndarray, Placement]:
        """Make the input tensor of one frame.

        Args:
            frame: HxWx3 uint8 BGR, or another form that ``as_bgr`` takes.
            size: Side S of the tensor in pixels.
            empty: Makes the float32 array of a shape that the tensor is written to; by default a new one.

        Returns:
            (1, S, S, 3) or (1, 3, S, S) float32, by the layout, and where its pixels come from.

        Raises:
            InputError: If the frame has another form.
        """
        bgr = as_bgr(frame)
        where = place(bgr.shape[0], bgr.shape[1], crop=self._image.crop, size=size)
        square = bgr[where.top : where.top + where.side, where.left : where.left + where.side]
        pixels = resize_square(square, size, resize=self._image.resize)
        shape = (1, 3, size, size) if self._planar else (1, size, size, 3)
        tensor = np.empty(shape, np.float32) if empty is None else empty(shape)
        (self._to_planes if self._planar else self._to_pixels)(pixels, tensor)
        return tensor, where

    def _to_pixels(self, pixels: np.ndarray, tensor: np.ndarray) -> None:
        if self._swap:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        cv2.LUT(pixels, self._table, tensor[0])

    def _to_planes(self, pixels: np.ndarray, tensor: np.ndarray) -> None:
        for channel, table in enumerate(self._tables):
            plane = cv2.extractChannel(pixels, 2 - channel if self._swap else channel)
            cv2.LUT(plane, table, tensor[0, channel])


def _refuse(frame: object) -> NoReturn:
    if isinstance(frame, np.ndarray):
        came = f"an array of {frame.dtype} with the shape {'x'.join(map(str, frame.shape)) or '()'}"
    else:
        came = f"a {type(frame).__name__}"
    hint = ""
    if isinstance(frame, np.ndarray) and frame.size == 0:
        hint = ", with at least one pixel"
    elif isinstance(frame, np.ndarray) and frame.dtype.kind == "f":
        hint = "; convert with (frame * 255).astype('uint8') if its range is 0 to 1"
    raise InputError(f"the frame is {came}: {_EXPECTED}{hint}")
