"""Run every size once per image, and keep what a policy can be fitted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boardfit.bundle import Bundle
from boardfit.converters.policy_answers import Answers, answers_of
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.images import read_image
from boardfit.runtime.labels import read_labels
from boardfit.runtime.session import Session
from boardfit.runtime.times import DEFAULT, has_certainty, open_setup
from boardfit.specs import TensorSpec

FEWEST_IMAGES = 50
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Photo:
    """One image to fit on, with its class index where that is known."""

    path: Path
    label: int | None = None


def labelled_photos(table: str, folder: str) -> list[Photo]:
    """Return the images that a CSV file with the columns ``file`` and ``label`` names: ``read_labels``."""
    return [Photo(path=path, label=label) for path, label in read_labels(table, folder)]


def gather(
    bundle: Bundle,
    photos: Sequence[Photo],
    *,
    setup: Setup = DEFAULT,
    progress: Progress = lambda _: None,
) -> Answers:
    """Run every size of a bundle on every image.

    Args:
        bundle: Open bundle of a classifier.
        photos: Images, all with a label or none.
        setup: Engine, precision, threads and cores; what it leaves open, ``load`` chooses.
        progress: Told now and then how far it is, and which files were skipped.

    Raises:
        InputError: Fewer than FEWEST_IMAGES images can be read, or all answers are one class.
        RecipeError: A label is not a class of the model.
    """
    sizes = bundle.manifest.sizes
    if not has_certainty(bundle):
        raise RecipeError(
            "the model's output has the activation 'none': its numbers are no probabilities, so that no "
            "answer is more certain than another; build with --no-fit"
        )
    sessions = {size: open_setup(bundle, setup, size=size) for size in sizes}
    try:
        rows = list(_rows(sessions, photos, progress))
    finally:
        for session in sessions.values():
            session.close()
    if len(rows) < FEWEST_IMAGES:
        raise InputError(
            f"{len(rows)} images could be read: a policy needs at least {FEWEST_IMAGES} to be fitted; "
            "give more images, or keep the classic thresholds with --no-fit"
        )
    answers = _stack(rows, sizes)
    _check(answers, bundle.manifest.artifacts[0].outputs[0])
    return answers


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    bits: float
    scores: np.ndarray
    label: int | None


def _rows(sessions: Mapping[int, Session], photos: Sequence[Photo], progress: Progress) -> Iterable[_Row]:
    from boardfit.runtime.entropy import entropy_bits

    told = time.monotonic()
    for number, photo in enumerate(photos, start=1):
        try:
            frame = read_image(photo.path)
        except InputError as error:
            progress(f"skipped: {error}")
            continue
        results = [session(frame) for session in sessions.values()]
        yield _Row(
            bits=entropy_bits(frame),
            scores=np.stack([result.scores for result in results]),
            label=photo.label,
        )
        if time.monotonic() - told > 10.0:
            told = time.monotonic()
            progress(f"{number} of {len(photos)} images")


def _stack(rows: Sequence[_Row], sizes: tuple[int, ...]) -> Answers:
    labels = [row.label for row in rows if row.label is not None]
    return answers_of(
        sizes,
        bits=np.array([row.bits for row in rows]),
        scores=np.stack([row.scores for row in rows], axis=1),
        truth=np.array(labels) if labels else None,
    )


def _check(answers: Answers, output: TensorSpec) -> None:
    classes = output.shape[-1]
    if answers.truth is not None and classes is not None and answers.truth.max() >= classes:
        raise RecipeError(
            f"a label is {answers.truth.max()}, but the model answers {classes} classes, counted from 0"
        )
    if len(np.unique(answers.target)) < 2:
        raise InputError(
            "all images are of one class: whatever the policy does would be right; give images of several "
            "classes, or --no-fit"
        )
