"""The pictures that a benchmark asks: the user's, the bundle's own, or made ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boardfit.bundle import Bundle
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.camera.devices.synthetic import SyntheticDevice
from boardfit.runtime.images import list_images, read_image

MOST_IMAGES = 64
"""A run ends after whole rounds of them, and on a slow board a round of more would take minutes."""

MOST_BYTES = 512 << 20
"""Of decoded pictures: a small board has 1 GiB in all."""

MADE = 8
"""Made pictures: enough that no cache holds the one of the call before."""

MADE_SIZE_WH = (640, 480)
LARGEST_SIDE = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Pictures, and what a reader of the report must know of them.

    Attributes:
        frames: HxWx3 uint8 BGR.
        notes: Sentences.
    """

    frames: tuple[np.ndarray, ...]
    notes: tuple[str, ...]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels of the first."""
        height, width = self.frames[0].shape[:2]
        return width, height


def choose_frames(
    bundle: Bundle,
    *,
    images: Sequence[str | os.PathLike[str]] = (),
    size_wh: tuple[int, int] | None = None,
) -> Frames:
    """Return the pictures to measure with.

    Args:
        bundle: Open; its golden frame serves where nothing else is given.
        images: Files, folders or patterns; at most MOST_IMAGES are taken, evenly spaced.
        size_wh: Make pictures of this width and height instead.

    Raises:
        InputError: There is no image, or none that can be read.
        RecipeError: Both are given, or the size makes no sense.
    """
    if images and size_wh is not None:
        raise RecipeError("images and a frame size: give the images, or the size of made pictures")
    if images:
        return _from_files(images)
    golden = bundle.golden_frame() if size_wh is None else None
    if golden is None:
        return _made(size_wh or MADE_SIZE_WH)
    height, width = golden.shape[:2]
    note = (
        f"measured with the bundle's own test picture of {width}x{height} pixels: a policy that looks at the "
        "picture answers it with one size. Give images for the mix of yours"
    )
    return Frames((golden,), (note,))


def _made(size_wh: tuple[int, int]) -> Frames:
    width, height = size_wh
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise RecipeError(f"frames of {width}x{height} pixels: expected 1 to {LARGEST_SIDE} on each side")
    camera = SyntheticDevice(size_wh=size_wh, fps=0.0)
    note = (
        f"measured with made pictures of {width}x{height} pixels: a policy that looks at the picture may "
        "choose other sizes for yours. Give images for their mix"
    )
    return Frames(tuple(np.asarray(camera.read()) for _ in range(MADE)), (note,))


def _from_files(images: Sequence[str | os.PathLike[str]]) -> Frames:
    paths = list_images(images)
    if len(paths) > MOST_IMAGES:
        paths = [paths[index * len(paths) // MOST_IMAGES] for index in range(MOST_IMAGES)]
    frames: list[np.ndarray] = []
    errors: list[str] = []
    held = 0
    for path in paths:
        try:
            frame = read_image(path)
        except InputError as error:
            errors.append(str(error))
            continue
        held += frame.nbytes
        if frames and held > MOST_BYTES:
            break
        frames.append(frame)
    if not frames:
        raise InputError(f"none of {len(paths)} images can be read; the first: {errors[0]}")
    notes = [f"measured with {len(frames)} images"]
    notes += [f"{len(errors)} images were left out; the first: {errors[0]}"] if errors else []
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) > 1:
        notes.append(f"the images have {len(sizes)} sizes in pixels: the first one's is told")
    return Frames(tuple(frames), tuple(notes))
