"""Totals of a run: frames by size, percentiles by stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from boardfit.runtime.results import Result
from boardfit.timing import percentile

STAGES = ("entropy", "preprocess", "inference", "postprocess", "total")
PERCENTS = (50, 90, 99)


@dataclass(slots=True)
class Tally:
    """Counts results; remembers numbers only, so that a long film costs little.

    Attributes:
        frames: Frames that were answered.
        by_size: How many of them were answered at each input side in pixels.
        second_looks: How many were looked at more than once.
    """

    frames: int = 0
    by_size: Counter[int] = field(default_factory=Counter)
    second_looks: int = 0
    _seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def add(self, result: Result) -> None:
        """Count one result."""
        self.frames += 1
        self.by_size[result.size] += 1
        self.second_looks += len(result.looks) > 1
        for stage, values in self._seconds.items():
            if stage != "entropy" or result.entropy_bits is not None:
                values.append(getattr(result.timings, f"{stage}_s"))

    def percentiles_s(self) -> dict[str, tuple[float, ...]]:
        """Return the PERCENTS in seconds by stage; stages that never ran are left out."""
        return {
            stage: tuple(percentile(values, percent) for percent in PERCENTS)
            for stage, values in self._seconds.items()
            if values
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the totals as JSON values."""
        return {
            "frames": self.frames,
            "by_size": {str(size): count for size, count in sorted(self.by_size.items())},
            "second_looks": self.second_looks,
            "stages_s": {
                stage: {f"p{percent}": value for percent, value in zip(PERCENTS, values, strict=True)}
                for stage, values in self.percentiles_s().items()
            },
        }

    def text(self) -> str:
        """Return the totals as two tables for people."""
        from boardfit.cli.text import counted, table

        sizes = [
            [str(size), str(count), f"{100 * count / self.frames:.0f} %"]
            for size, count in sorted(self.by_size.items())
        ]
        stages = [
            [stage, *(f"{value * 1e3:.2f}" for value in values)]
            for stage, values in self.percentiles_s().items()
        ]
        parts = [
            table(["size", "frames", "share"], sizes),
            table(["stage", *(f"p{percent} ms" for percent in PERCENTS)], stages),
        ]
        if self.second_looks:
            parts.insert(1, f"looked at twice: {counted(self.second_looks, 'frame')}")
        return "\n\n".join(parts)
