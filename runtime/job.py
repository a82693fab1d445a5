"""One frame on its way to an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from boardfit.errors import InputError
from boardfit.runtime.inputs import NOTHING, Given, Inputs, check_given, further_feeds
from boardfit.runtime.preprocess import Empty, Placement, Preprocessor, as_bgr
from boardfit.runtime.results import Result, Timings
from boardfit.specs import Artifact, TensorSpec


@dataclass(slots=True)
class Job:
    """A frame, and what became of it so far.

    Attributes:
        bgr: HxWx3 uint8 BGR.
        begin: When it came, by ``perf_counter``.
        given: What was given besides it.
        bits: Its entropy; None where no policy asked.
        size: Input side in pixels of the next look, or of the last.
        looks: Sides that answered, in their order.
        entropy_s: Seconds, as the other stages.
        result: Of the last look; None before the first.
    """

    bgr: np.ndarray
    begin: float
    given: Given = NOTHING
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


def begin_job(frame: np.ndarray, inputs: Inputs | None = None, specs: Sequence[TensorSpec] = ()) -> Job:
    """Return the job of a frame.

    Args:
        frame: The picture.
        inputs: What is given besides it.
        specs: What the net takes besides it.

    Raises:
        InputError: It is no picture, or the rest is not what the net takes.
    """
    begin = perf_counter()
    bgr = as_bgr(frame)
    given = check_given(specs, inputs)
    return Job(bgr=bgr, begin=begin, given=given, preprocess_s=perf_counter() - begin)


def begin_jobs(
    frames: Sequence[np.ndarray], inputs: Sequence[Inputs] | None, specs: Sequence[TensorSpec]
) -> list[Job]:
    """Return the jobs of several frames, each with its own inputs; see ``begin_job``.

    Raises:
        InputError: One of them is no picture, or the rest is not what the net takes; its index is named.
    """
    if inputs is not None and (isinstance(inputs, Mapping) or len(inputs) != len(frames)):
        raise InputError(
            f"a batch of {len(frames)} frames takes a list of as many inputs: one mapping for each frame"
        )
    jobs = []
    for index, frame in enumerate(frames):
        try:
            jobs.append(begin_job(frame, None if inputs is None else inputs[index], specs))
        except InputError as error:
            raise InputError(f"frame {index} of {len(frames)}, counted from 0: {error}") from error
    return jobs


def prepare(
    jobs: Sequence[Job],
    artifact: Artifact,
    preprocessor: Preprocessor,
    *,
    size: int,
    empty: Empty | None = None,
) -> tuple[dict[str, np.ndarray], list[Placement]]:
    """Return the tensors of some jobs as one batch, by input name, and where each frame's pixels went.

    Args:
        jobs: Their times of preprocessing grow by what it takes.
        artifact: What will run.
        preprocessor: In its layout.
        size: Input side in pixels.
        empty: Makes the array that a frame's tensor is written to; see ``Preprocessor.fit``.
    """
    tensors, placements = [], []
    for job in jobs:
        begin = perf_counter()
        tensor, placement = preprocessor.fit(job.bgr, size, empty=empty)
        job.preprocess_s += perf_counter() - begin
        tensors.append(tensor)
        placements.append(placement)
    batch = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
    feeds = {artifact.inputs[0].name: batch}
    if len(artifact.inputs) > 1:
        begin = perf_counter()
        feeds |= further_feeds(artifact, [job.given for job in jobs], size, preprocessor)
        share_s = (perf_counter() - begin) / len(jobs)
        for job in jobs:
            job.preprocess_s += share_s
    return feeds, placements
