"""May a quantized artifact be shipped? Judged on images that its ranges were not taken from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boardfit.converters.quantize.quality import paired_interval, wilson_interval

SMALLER_SIZES = 1.6
"""A smaller size's answers are closer calls: so many times the flips are allowed there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gate allows.

    Attributes:
        max_drop: Points of top-1 that may be lost against the source, where labels are known.
        max_flips: Answers in per cent that may differ from fp32 at the largest size, where none are.
    """

    max_drop: float = 1.0
    max_flips: float = 5.0

    def flips_at(self, *, largest: bool) -> float:
        """Return the allowed flips in per cent, at the largest size or at a smaller one."""
        return self.max_flips if largest else SMALLER_SIZES * self.max_flips


@dataclass(frozen=True, slots=True)
class Answers:
    """Top-1 answers to the validation images; all (N,) int64.

    Attributes:
        fp32: Of the float artifact of the same format and size.
        source: Of the source model.
        labels: The right ones, or None.
    """

    fp32: np.ndarray
    source: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's measure of one artifact. Intervals are of 95 %, as the number of images allows.

    Attributes:
        images: How many validation images.
        flips: Answers that differ from fp32, in per cent.
        flips_low: Lower end of its interval.
        flips_high: Upper end.
        drop: Points of top-1 lost against the source; None without labels.
        drop_low: Lower end of its interval; None without labels.
        drop_high: Upper end.
        divergence: Mean KL of the outputs from fp32's in nats, see ``quality.output_error``; None where only
            answers are known.
        limit: What ``drop``, or without labels ``flips``, may be.
        passed: Whether it is.
    """

    images: int
    flips: float
    flips_low: float
    flips_high: float
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    divergence: float | None
    limit: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values. What is not finite becomes null."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    @property
    def text(self) -> str:
        """The measure in a few words."""
        if self.drop is not None:
            return f"drop {self.drop:+.1f} points ({self.drop_low:+.1f} to {self.drop_high:+.1f})"
        return f"flips {self.flips:.1f} % ({self.flips_low:.1f} to {self.flips_high:.1f})"


def judge(
    found: np.ndarray, answers: Answers, *, divergence: float | None, limits: Limits, largest: bool
) -> Verdict:
    """Measure an artifact's answers and hold them against the limits.

    Args:
        found: (N,) its top-1 answers.
        answers: What they are compared with.
        divergence: Of its outputs from fp32's; None where only answers are known.
        limits: What is allowed.
        largest: Whether this is the bundle's largest size.
    """
    count = len(found)
    flipped = int((found != answers.fp32).sum())
    low, high = wilson_interval(flipped, count)
    flips, drop = 100.0 * flipped / count, None
    ends: tuple[float | None, float | None] = (None, None)
    measure, limit = flips, limits.flips_at(largest=largest)
    if answers.labels is not None:
        before, after = answers.source == answers.labels, found == answers.labels
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        drop = 100.0 * (lost - won) / count
        around = paired_interval(lost, won, count)
        ends = 100.0 * around[0], 100.0 * around[1]
        measure, limit = drop, limits.max_drop
    return Verdict(
        images=count,
        flips=flips,
        flips_low=100.0 * low,
        flips_high=100.0 * high,
        drop=drop,
        drop_low=ends[0],
        drop_high=ends[1],
        divergence=divergence,
        limit=limit,
        passed=bool(measure <= limit + 1e-9 and (divergence is None or np.isfinite(divergence))),
    )
