"""What is asked of a benchmark: how frames come, for how long, and how often it is repeated."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice, repeat

import numpy as np

from boardfit.benchmarks.records import Case
from boardfit.errors import InputError, RecipeError

FEWEST_FRAMES = 64
"""From so many frames on, LoadGen's early stopping gives a 90th percentile (``early_stopping``)."""

MOST_FRAMES = 250_000
"""Ten minutes of 3 ms with room; a net that takes microseconds would fill the memory with samples."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often each case is measured.

    A run ends when both ``duration_s`` and ``min_frames`` are reached, as in MLPerf LoadGen's
    ``min_duration`` and ``min_query_count``. A submission to MLPerf runs 600 s; a small board that is asked
    for five runs of each of several cases is better served by 10.

    Attributes:
        runs: Repetitions, each in a session of its own.
        duration_s: Least seconds of a run that count.
        min_frames: Least frames of a run that count.
        warmup_s: Seconds after the first frame that count nowhere.
    """

    runs: int = 5
    duration_s: float = 10.0
    min_frames: int = FEWEST_FRAMES
    warmup_s: float = 1.0

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise RecipeError(
                f"{self.runs} runs: expected at least 1, and 5 where reports are to be compared"
            )
        if not 0.0 < self.duration_s <= 86_400.0:
            raise RecipeError(f"runs of {self.duration_s} s: expected more than 0, and at most a day")
        if not 1 <= self.min_frames <= MOST_FRAMES:
            raise RecipeError(f"at least {self.min_frames} frames: expected 1 to {MOST_FRAMES}")
        if not 0.0 <= self.warmup_s <= 3_600.0:
            raise RecipeError(f"a warm-up of {self.warmup_s} s: expected 0 to 3600")


QUICK_S = 1.0
"""Least seconds of a run for a first look: long enough for medians, too short for heat."""


def plan_of(*, runs: int, duration_s: float) -> Plan:
    """Return a plan whose warm-up suits its runs: a second, less where they are short."""
    return Plan(runs=runs, duration_s=duration_s, warmup_s=max(0.0, min(Plan().warmup_s, 0.3 * duration_s)))


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a session is called with.

    Attributes:
        frames: HxWx3 uint8 BGR; one, or a batch in the offline scenario.
        due_s: Camera: when the frame came, by the clock of the run; else None.
        missed: Camera: frames that came and went since the one before.
    """

    frames: tuple[np.ndarray, ...]
    due_s: float | None = None
    missed: int = 0


def asked_frames(
    case: Case,
    frames: Sequence[np.ndarray],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Asked]:
    """Yield what a session is asked next, without end.

    Args:
        case: Its scenario, frames per second and batch decide.
        frames: HxWx3 uint8 BGR.
        clock: Seconds, ascending.
        sleep: Waits for seconds of that clock.

    Raises:
        InputError: There is no frame.
        RecipeError: A camera without a rate.
    """
    if not frames:
        raise InputError("no frame to measure with: give images, or leave the bundle's own frame")
    if case.scenario == "camera":
        return _camera(case.fps, frames, clock, sleep)
    if case.scenario == "offline":
        return _batches(case.batch, frames)
    return (Asked((frame,)) for frame in _shuffled(frames))


def _shuffled(frames: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield every frame once, in random order, and again in another order.

    So does LoadGen where ``sample_concatenate_permutation`` is set. The seed is fixed: repeats are asked
    the same, and differ by the machine alone.
    """
    if len(frames) == 1:
        yield from repeat(frames[0])
    for seed in count():
        order = list(range(len(frames)))
        random.Random(seed).shuffle(order)
        yield from (frames[index] for index in order)


def _batches(size: int, frames: Sequence[np.ndarray]) -> Iterator[Asked]:
    endless = cycle(frames)
    while True:
        yield Asked(tuple(islice(endless, size)))


def _camera(
    fps: float | None,
    frames: Sequence[np.ndarray],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Asked]:
    """Yield the newest frame that has come; where none has since the last one, wait for it.

    The frames keep their order: of a film, the next picture resembles the last.
    """
    if fps is None or not 0.0 < fps <= 1000.0:
        raise RecipeError(f"a camera of {fps} frames per second: expected more than 0, and at most 1000")
    start_s, last = clock(), -1
    while True:
        newest = int((clock() - start_s) * fps)
        if newest <= last:
            newest = last + 1
            sleep(max(0.0, start_s + newest / fps - clock()))
        yield Asked((frames[newest % len(frames)],), start_s + newest / fps, newest - last - 1)
        last = newest
