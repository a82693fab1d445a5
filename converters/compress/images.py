"""The images of a training: decoded once, kept as bytes, augmented and dealt in batches."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from boardfit.converters.recipe_train import FEWEST_TO_TRAIN
from boardfit.errors import CompressError, InputError
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import as_bgr, place
from boardfit.runtime.resize import resize_square
from boardfit.specs import ImageSpec


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images of one side.

    Attributes:
        pixels: (N, S, S, 3) uint8, channels in the order of the net's ImageSpec, cropped as it says.
        labels: (N,) int32 class indices, or None.
    """

    pixels: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise InputError(f"training images are {self.pixels.dtype} {shape}: expected uint8 (N, S, S, 3)")
        if self.labels is not None and self.labels.shape != shape[:1]:
            raise InputError(f"{len(self.labels)} labels for {len(self.pixels)} training images")

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return int(self.pixels.shape[1])

    def spread(self, count: int) -> ImageSet:
        """Return at most so many of the images, evenly spaced over the set; without labels."""
        count = min(count, self.count)
        return ImageSet(pixels=self.pixels[np.arange(count) * self.count // count])

    def checksum(self) -> list[int]:
        """Return numbers that change with any image, any label or their order."""
        found = 0
        # Image by image: they need not lie in one piece, and no copy of all is made.
        for pixels in self.pixels:
            found = zlib.crc32(pixels.tobytes(), found)
        labels = 0 if self.labels is None else zlib.crc32(self.labels.tobytes())
        return [self.count, self.side, found, labels]


@dataclass(frozen=True, slots=True)
class Augment:
    """How an image is varied each time it is seen.

    Attributes:
        flip: Whether half of them are mirrored left to right.
        shift: Largest shift in each direction, as a fraction of the side; the border is mirrored.
        min_scale: Smallest side of the part that is shown, as a fraction of the side.
    """

    flip: bool = True
    shift: float = 0.125
    min_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.shift < 0.5 or not 0.1 <= self.min_scale <= 1.0:
            raise CompressError(
                f"shift is {self.shift:g} and min_scale {self.min_scale:g}: expected 0 to 0.5, and 0.1 to 1"
            )


def load_image_set(
    paths: Sequence[Path],
    *,
    image: ImageSpec,
    side: int,
    labels: Sequence[int] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ImageSet:
    """Decode images once, cropped and resized as the runtime does it.

    Args:
        paths: Image files. One that cannot be read is skipped, and ``progress`` is told.
        image: The image spec.
        side: Side in pixels at which they are kept.
        labels: Class index of each file, or None.
        progress: Told about each file that was skipped.

    Raises:
        InputError: Fewer than FEWEST_TO_TRAIN can be read.
    """
    rows, kept = [], []
    for number, path in enumerate(paths):
        try:
            frame = as_bgr(read_image(path))
        except InputError as error:
            progress(f"skipped: {error}")
            continue
        where = place(frame.shape[0], frame.shape[1], crop=image.crop, size=side)
        square = frame[where.top : where.top + where.side, where.left : where.left + where.side]
        pixels = resize_square(square, side, resize=image.resize)
        rows.append(np.array(pixels[..., ::-1] if image.channels == "rgb" else pixels))
        kept.append(number)
    if len(rows) < FEWEST_TO_TRAIN:
        raise InputError(
            f"{len(rows)} of {len(paths)} images could be read: training needs at least {FEWEST_TO_TRAIN}; "
            "give a folder of more photographs"
        )
    picked = None if labels is None else np.asarray(labels, np.int32)[kept]
    return ImageSet(pixels=np.stack(rows), labels=picked)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one epoch, in an order and with variations that seed, epoch and step decide alone."""

    def __init__(
        self,
        images: ImageSet,
        *,
        batch: int,
        augment: Augment | None,
        seed: int,
        epoch: int = 0,
        first_step: int = 0,
    ) -> None:
        """Choose the order.

        Args:
            images: What to deal; the last, incomplete batch is left out.
            batch: Images in each.
            augment: How they are varied; None for not at all.
            seed: Of order and variation.
            epoch: Which epoch.
            first_step: Steps to leave out, since they were done before.
        """
        super().__init__()
        self._images = images
        self._batch = batch
        self._augment = augment
        self._seed = (seed, epoch)
        self._first = first_step
        self._order = np.random.default_rng(self._seed).permutation(images.count)

    def __len__(self) -> int:
        """Number of batches."""
        return self._images.count // self._batch - self._first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, S, S, 3) uint8 images and (B,) int32 labels; -1 where there are none."""
        step = index + self._first
        rows = self._order[step * self._batch : (step + 1) * self._batch]
        pixels = self._images.pixels[rows]
        if self._augment is not None:
            pixels = vary(pixels, self._augment, np.random.default_rng((*self._seed, step)))
        labels = self._images.labels
        found = np.full(len(rows), -1, np.int32) if labels is None else labels[rows]
        return pixels, found


def vary(pixels: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Return a batch with every image shifted, zoomed and mirrored at random.

    Args:
        pixels: (N, S, S, 3) uint8.
        augment: How far.
        rng: Where chance comes from.
    """
    count, side = pixels.shape[:2]
    margin = round(augment.shift * side)
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    sides = np.round(side * rng.uniform(augment.min_scale, 1.0, count)).astype(int)
    tops, lefts = (np.floor(rng.uniform(0, 1, (2, count)) * (side + 2 * margin - sides + 1))).astype(int)
    mirrored = np.less(rng.random(count), 0.5 if augment.flip else 0.0)
    varied = np.empty_like(pixels)
    for i in range(count):
        part = padded[i, tops[i] : tops[i] + sides[i], lefts[i] : lefts[i] + sides[i]]
        shown = resize_square(part, side, resize="area")
        varied[i] = shown[:, ::-1] if mirrored[i] else shown
    return varied
