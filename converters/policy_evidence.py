"""Run every size once per image, and keep what a policy can be fitted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from boardfit.bundle import Bundle
from boardfit.converters.policy_answers import Answers, Times, answers_of
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.images import read_image
from boardfit.runtime.labels import read_labels
from boardfit.runtime.session import Session, load
from boardfit.specs import PolicySpec, TensorSpec, classic_policy
from boardfit.timing import LEAD_IN_S, time_paired

FEWEST_IMAGES = 50
TIME_ROUNDS = 25
TIME_BURST = 5
DEFAULT = Setup()
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
    if not _has_certainty(bundle):
        raise RecipeError(
            "the model's output has the activation 'none': its numbers are no probabilities, so that no "
            "answer is more certain than another; build with --no-fit"
        )
    sessions = {size: _open(bundle, setup, size=size) for size in sizes}
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


def measure_times(
    bundle: Bundle,
    *,
    setup: Setup = DEFAULT,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time one look at each size, a change of size, and one image entropy, on this machine.

    The frame is the golden one, or grey.

    Args:
        bundle: Open bundle.
        setup: Engine, precision, threads and cores; what it leaves open, ``load`` chooses.
        clock: Seconds. With one thread, ``time.process_time`` is disturbed least by what else runs.
    """
    from boardfit.runtime.entropy import entropy_bits

    sizes = bundle.manifest.sizes
    golden = bundle.golden_frame()
    frame = np.full((360, 480, 3), 127, np.uint8) if golden is None else golden
    sessions = {size: _open(bundle, setup, size=size) for size in sizes}
    try:
        calls: dict[str, Callable[[], object]] = {
            str(size): partial(session, frame) for size, session in sessions.items()
        }
        timed = time_paired(
            {**calls, "entropy": partial(entropy_bits, frame)},
            rounds=TIME_ROUNDS // TIME_BURST,
            lead_in_s=LEAD_IN_S,
            burst=TIME_BURST,
            clock=clock,
        )
    finally:
        for session in sessions.values():
            session.close()
    switches: dict[str, float] = {}
    if len(sizes) > 1:
        for kind in ("entropy", "two-look") if _has_certainty(bundle) else ("entropy",):
            with _open(bundle, setup, policy=classic_policy(kind, sizes)) as session:
                switches[kind] = size_change_s(session, frame, (sizes[0], sizes[-1]), clock=clock)
    return Times(
        look_s=tuple(timed[str(size)].p50_s for size in sizes),
        switch_s=switches.get("entropy", 0.0),
        entropy_s=timed["entropy"].p50_s,
        two_look_switch_s=switches.get("two-look"),
    )


def _open(
    bundle: Bundle, setup: Setup, *, size: int | None = None, policy: PolicySpec | None = None
) -> Session:
    return load(
        bundle,
        engine=setup.engine,
        precision=setup.precision,
        threads=setup.threads,
        affinity=setup.affinity,
        size=size,
        policy=policy,
    )


def _has_certainty(bundle: Bundle) -> bool:
    return bundle.manifest.artifacts[0].outputs[0].activation != "none"


def size_change_s(
    session: Session,
    frame: np.ndarray,
    sizes: tuple[int, int],
    *,
    rounds: int = 2 * TIME_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return what a look costs more, in seconds, when the look before had another size.

    The median over pairs of looks at one size, the first of which follows a look at the other.

    Args:
        session: Over both sizes.
        frame: HxWx3 uint8 BGR.
        sizes: Two input sides in pixels.
        rounds: Pairs, half of them at each size.
        clock: Seconds.
    """
    extra = []
    for number in range(rounds):
        size, other = sizes if number % 2 else sizes[::-1]
        session.look(frame, other)
        begin = clock()
        session.look(frame, size)
        changed = clock()
        session.look(frame, size)
        extra.append((changed - begin) - (clock() - changed))
    return max(0.0, median(extra))


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
