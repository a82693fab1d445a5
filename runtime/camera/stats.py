"""Where the time goes in a loop: percentiles of the last few minutes, in memory that does not grow."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from boardfit.runtime.results import Result
from boardfit.timing import percentile

STAGES = ("wait", "entropy", "preprocess", "inference", "postprocess", "age", "interval")
PERCENTS = (50, 90, 99)
_KEPT = 4096


class Ring:
    """The last values of a series."""

    def __init__(self, kept: int = _KEPT) -> None:
        """Make it empty.

        Args:
            kept: How many values at most.
        """
        self._kept = kept
        self._values = array("d")
        self._at = 0

    def add(self, value: float) -> None:
        """Take a value; the oldest one gives way."""
        if len(self._values) < self._kept:
            self._values.append(value)
        else:
            self._values[self._at] = value
            self._at = (self._at + 1) % self._kept

    def percentiles(self) -> tuple[float, ...] | None:
        """Return the PERCENTS of the values; None where there are none."""
        values = list(self._values)
        return tuple(percentile(values, percent) for percent in PERCENTS) if values else None


class Stats:
    """Counts and times of one loop. ``wait`` is from arrival to the start of work, ``age`` until delivery.

    Attributes:
        results: Answers delivered, reused ones too.
        reused: Those for which nothing had moved, so that the last answer stood.
        failed: Frames for which the model raised an error.
        by_size: Answers by input side in pixels, without the reused ones.
    """

    def __init__(self) -> None:
        self.results = 0
        self.reused = 0
        self.failed = 0
        self.by_size: dict[int, int] = {}
        self._rings = {stage: Ring() for stage in STAGES}
        self._last: float | None = None

    def add(self, result: Result, *, reused: bool, wait_s: float, age_s: float, now: float) -> None:
        """Take one delivered answer.

        Args:
            result: The answer.
            reused: Whether it was an earlier frame's.
            wait_s: From the frame's arrival to the start of work.
            age_s: From the frame's arrival to its delivery.
            now: Seconds, ascending.
        """
        self.results += 1
        self._rings["age"].add(age_s)
        self._rings["wait"].add(wait_s)
        if self._last is not None:
            self._rings["interval"].add(now - self._last)
        self._last = now
        if reused:
            self.reused += 1
            return
        self.by_size[result.size] = self.by_size.get(result.size, 0) + 1
        for stage in ("entropy", "preprocess", "inference", "postprocess"):
            if stage != "entropy" or result.entropy_bits is not None:
                self._rings[stage].add(getattr(result.timings, f"{stage}_s"))

    def percentiles_s(self) -> Mapping[str, tuple[float, ...]]:
        """Return the 50th, 90th and 99th percentile in seconds by stage, of the last 4096 answers."""
        found = {stage: ring.percentiles() for stage, ring in self._rings.items()}
        return {stage: values for stage, values in found.items() if values is not None}
