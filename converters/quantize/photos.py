"""The photographs of the int8 stage: ranges are taken from some, and the gate judges on others.

Two files are the same image if their bytes are equal: no image is on both sides, whatever its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from boardfit.converters.policy_evidence import Photo, labelled_photos
from boardfit.converters.recipe import FEWEST_TO_CALIBRATE as FEWEST
from boardfit.converters.recipe import FEWEST_TO_VALIDATE
from boardfit.converters.samples import choose_images
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec

ENOUGH = 100
ALIKE_GREYS = 2.0
"""Images of which no 8 x 8 mosaic differs by more, of 255, are one picture."""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, the SHA-256 of its bytes in hex, and its class index where that is known."""

    path: Path
    sha256: str
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Disjoint images, all readable.

    Attributes:
        calibration: What ranges are taken from.
        validation: What the gate judges on; all with a label or none.
        notes: Sentences for the report.
    """

    calibration: tuple[Picture, ...]
    validation: tuple[Picture, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {picture.sha256: picture for picture in self.calibration}
        both = [(known[p.sha256], p) for p in self.validation if p.sha256 in known]
        if both:
            raise InputError(
                f"{len(both)} images are among those for calibration and among those for validation; the "
                f"first: {both[0][0].path} and {both[0][1].path}. The gate would flatter: leave them out"
            )


def choose_pictures(
    folder: str,
    *,
    val: str = "",
    calibration_folder: str = "",
    calibration: int = 256,
    validation: int = 512,
    progress: Progress = lambda _: None,
) -> Pictures:
    """Choose images to calibrate and others to validate on; the same content gives the same choice.

    Args:
        folder: Of the images.
        val: CSV file with the columns ``file`` and ``label``, files relative to ``folder``: validation
            images are among these. Empty for none.
        calibration_folder: Takes the images for calibration from here instead of from ``folder``, where
            they are those that ``val`` leaves, and without ``val``, or where it leaves too few, up to half.
        calibration: How many to calibrate on at most.
        validation: How many to validate on at most.
        progress: Told about files that were skipped.

    Raises:
        InputError: Too few images, all alike, a file missing, or an image on both sides.
        RecipeError: The table cannot be used.
    """
    labelled = _unique(_labelled(val, folder)) if val else []
    many = 2 * (calibration + validation)
    if calibration_folder:
        fit = _readable(_unique(_pictures(choose_images(calibration_folder, many))), calibration, progress)
        pool = labelled or _unique(_pictures(choose_images(folder, many)))
        judge = _readable(pool, validation, progress)
    else:
        taken = {picture.sha256 for picture in labelled}
        others = [p for p in _unique(_pictures(choose_images(folder, many))) if p.sha256 not in taken]
        fit, judge = _split(labelled, others, calibration, validation, progress)
    _check_counts(fit, judge)
    _check_unlike(fit)
    return Pictures(calibration=tuple(fit), validation=tuple(judge), notes=_notes(fit, judge))


def load_tensors(pictures: Sequence[Picture], *, image: ImageSpec, size: int) -> np.ndarray:
    """Return the images as the runtime would feed them: (N, S, S, 3) float32."""
    preprocessor = Preprocessor(image, "NHWC")
    tensors = np.empty((len(pictures), size, size, 3), np.float32)
    for index, picture in enumerate(pictures):
        tensors[index] = preprocessor.fit(read_image(picture.path), size)[0]
    return tensors


def labels_of(pictures: Sequence[Picture | Photo], classes: int | None) -> np.ndarray | None:
    """Return (N,) int64 labels, or None where there are none.

    Raises:
        RecipeError: A label is no class of the model.
    """
    labels = [picture.label for picture in pictures if picture.label is not None]
    if not labels:
        return None
    if classes is not None and max(labels) >= classes:
        raise RecipeError(
            f"{pictures[int(np.argmax(labels))].path} has the label {max(labels)}, but the model answers "
            f"{classes} classes, counted from 0: correct the table of --val"
        )
    return np.array(labels, np.int64)


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _pictures(paths: Iterable[Path]) -> list[Picture]:
    return [Picture(path=path, sha256=content_sha256(path)) for path in paths]


def _labelled(val: str, folder: str) -> list[Picture]:
    return [
        Picture(path=photo.path, sha256=content_sha256(photo.path), label=photo.label)
        for photo in labelled_photos(val, folder)
    ]


def _unique(pictures: Sequence[Picture]) -> list[Picture]:
    """Return one picture per content, in the order of the hashes: random, and the same everywhere."""
    found: dict[str, Picture] = {}
    for picture in pictures:
        known = found.setdefault(picture.sha256, picture)
        if known.label != picture.label:
            raise RecipeError(
                f"{known.path} and {picture.path} are the same image, but have the labels {known.label} and "
                f"{picture.label}: correct the table of --val"
            )
    return [found[sha256] for sha256 in sorted(found)]


def _split(
    labelled: list[Picture], others: list[Picture], calibration: int, validation: int, progress: Progress
) -> tuple[list[Picture], list[Picture]]:
    """Calibrate on what has no label; where that is too little, on up to half of the rest as well."""
    enough = min(calibration, ENOUGH)
    if labelled and len(others) >= enough:
        return _readable(others, calibration, progress), _readable(labelled, validation, progress)
    pool = _readable(labelled or others, calibration + validation, progress)
    fit = _readable(others, calibration, progress) if labelled else []
    moved = min(calibration - len(fit), max(FEWEST - len(fit), len(pool) // 2))
    unlabelled = [replace(picture, label=None) for picture in pool[:moved]]
    return [*fit, *unlabelled], pool[moved : moved + validation]


def _readable(pictures: Sequence[Picture], limit: int, progress: Progress) -> list[Picture]:
    """Return the first ``limit`` images that can be decoded."""
    found: list[Picture] = []
    for picture in pictures:
        if len(found) == limit:
            break
        try:
            read_image(picture.path)
        except InputError as error:
            progress(f"skipped: {error}")
            continue
        found.append(picture)
    return found


def _check_counts(fit: Sequence[Picture], judge: Sequence[Picture]) -> None:
    if len(fit) < FEWEST or len(judge) < FEWEST_TO_VALIDATE:
        raise InputError(
            f"{len(fit)} different images to calibrate and {len(judge)} to validate: int8 needs at least "
            f"{FEWEST} and {FEWEST_TO_VALIDATE} others; give more with --images ({ENOUGH} to calibrate are "
            "advised), or build without int8"
        )


def _check_unlike(fit: Sequence[Picture]) -> None:
    """Raise InputError if all images look the same: ranges taken from one picture hold for no other."""
    small = load_tensors(fit, image=ImageSpec(std=(1.0, 1.0, 1.0)), size=8)
    if float(np.ptp(small, axis=0).max()) <= ALIKE_GREYS:
        raise InputError(
            f"all {len(fit)} images to calibrate on look alike ({fit[0].path} and the others): ranges need "
            "photographs as the camera will see them"
        )


def _notes(fit: Sequence[Picture], judge: Sequence[Picture]) -> tuple[str, ...]:
    labelled = "with labels" if judge[0].label is not None else "without labels"
    notes = [f"int8: {len(fit)} images to calibrate, {len(judge)} others to validate, {labelled}"]
    if len(fit) < ENOUGH:
        notes.append(f"only {len(fit)} images to calibrate int8 on: under {ENOUGH} chance decides the ranges")
    return tuple(notes)
