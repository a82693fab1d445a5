"""The images of a build as tensors: read once, preprocessed by the runtime itself at every size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boardfit.errors import InputError
from boardfit.runtime.images import list_images, read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec

GOLDEN_SEED = 2026
"""Of the synthetic frame that a bundle tests itself with."""
ENOUGH_IMAGES = 32
"""Fewer images are filled up with synthetic ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Input tensors of the same images at several sizes.

    Attributes:
        tensors: By size: (N, S, S, 3) float32, as the net takes them.
        photographs: How many of the N come from files; the rest, at the end, is synthetic.
        skipped: One sentence for each file that could not be read.
        further: By size: N rows of each input besides the image, float32; of an image (N, S, S, 3).
    """

    tensors: Mapping[int, np.ndarray]
    photographs: int
    skipped: tuple[str, ...] = ()
    further: Mapping[int, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of images, synthetic ones included."""
        return len(next(iter(self.tensors.values())))

    @property
    def synthetic(self) -> int:
        """Number of synthetic images."""
        return self.count - self.photographs


def choose_images(folder: str, limit: int) -> list[Path]:
    """Return at most ``limit`` image files of a folder, evenly spaced over the sorted names.

    Raises:
        InputError: No folder, or no image in it.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder: --images takes a folder of photographs")
    paths = list_images([folder])
    if len(paths) <= limit:
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def load_samples(
    paths: Sequence[Path],
    *,
    image: ImageSpec,
    sizes: Sequence[int],
    progress: Callable[[str], None] = lambda _: None,
) -> Samples:
    """Read images, preprocess them at every size, and fill up with synthetic ones.

    One image is held in full at a time: a folder of large photographs costs its tensors only.

    Args:
        paths: Image files. One that cannot be read is skipped and named in ``skipped``.
        image: The image spec.
        sizes: Input sides in pixels.
        progress: Told about each file that was skipped.

    Raises:
        InputError: None of the files can be read.
    """
    preprocessor = Preprocessor(image, "NHWC")
    rows: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    skipped = []
    read = 0
    for path in paths:
        try:
            frame = read_image(path)
        except InputError as error:
            skipped.append(str(error))
            progress(f"skipped: {error}")
            continue
        read += 1
        _append(rows, preprocessor, frame)
    if read == 0:
        raise InputError(f"none of the {len(paths)} images could be read; the first: {skipped[0]}")
    for seed in range(max(0, ENOUGH_IMAGES - read)):
        _append(rows, preprocessor, synthetic_frame(seed))
    tensors = {size: np.concatenate(tensors) for size, tensors in rows.items()}
    return Samples(tensors=tensors, photographs=read, skipped=tuple(skipped))


def synthetic_frame(seed: int, *, height: int = 360, width: int = 480) -> np.ndarray:
    """Return a made-up picture, the same on every platform: smooth colours, edges and grain.

    Args:
        seed: Which picture.
        height: In pixels.
        width: In pixels.

    Returns:
        HxWx3 uint8 BGR.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    frame = np.empty((height, width, 3), np.int64)
    for channel in range(3):
        a, b, c, start = (int(value) for value in rng.integers(1, 9, size=4))
        frame[..., channel] = (a * x // 4 + b * y // 4 + c * ((x * y) >> 9) + 29 * start) % 256
    for _ in range(int(rng.integers(6, 18))):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        tall, wide = int(rng.integers(8, height // 2)), int(rng.integers(8, width // 2))
        colour = rng.integers(0, 256, size=3)
        frame[top : top + tall, left : left + wide] = (
            frame[top : top + tall, left : left + wide] // 3 + 2 * colour // 3
        )
    grain = rng.integers(-8, 9, size=frame.shape)
    return np.asarray(np.clip(frame + grain, 0, 255), np.uint8)


def _append(rows: dict[int, list[np.ndarray]], preprocessor: Preprocessor, frame: np.ndarray) -> None:
    for size, tensors in rows.items():
        tensor, _ = preprocessor.fit(frame, size)
        tensors.append(np.array(tensor))
