"""One frame on its way to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from boardfit.errors import InputError
from boardfit.runtime.preprocess import as_bgr
from boardfit.runtime.results import Result, Timings


@dataclass(slots=True)
class Job:
    """A frame, and what became of it so far.

    Attributes:
        bgr: HxWx3 uint8 BGR.
        begin: When it came, by ``perf_counter``.
        bits: Its entropy; None where no policy asked.
        size: Input side in pixels of the next look, or of the last.
        looks: Sides that answered, in their order.
        entropy_s: Seconds, as the other stages.
        result: Of the last look; None before the first.
    """

    bgr: np.ndarray
    begin: float
    bits: float | None = None
    size: int = 0
    looks: tuple[int, ...] = ()
    entropy_s: float = 0.0
    preprocess_s: float = 0.0
    inference_s: float = 0.0
    postprocess_s: float = 0.0
    result: Result | None = None

    def timings(self, end: float | None) -> Timings:
        """Return the stages so far; in all they took until ``end``, or where that is None their sum."""
        stages = (self.entropy_s, self.preprocess_s, self.inference_s, self.postprocess_s)
        return Timings(*stages, sum(stages) if end is None else end - self.begin)

    def finished(self) -> Result:
        """Return the result of the last look, of which there must be one."""
        assert self.result is not None
        return self.result


def begin_job(frame: np.ndarray) -> Job:
    """Return the job of a frame.

    Raises:
        InputError: It is no picture.
    """
    begin = perf_counter()
    bgr = as_bgr(frame)
    return Job(bgr=bgr, begin=begin, preprocess_s=perf_counter() - begin)


def begin_jobs(frames: Sequence[np.ndarray]) -> list[Job]:
    """Return the jobs of several frames.

    Raises:
        InputError: One of them is no picture; its index is named.
    """
    jobs = []
    for index, frame in enumerate(frames):
        try:
            jobs.append(begin_job(frame))
        except InputError as error:
            raise InputError(f"frame {index} of {len(frames)}, counted from 0: {error}") from error
    return jobs
