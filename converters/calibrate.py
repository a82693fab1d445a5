"""From the tensors that an artifact computes on photographs to the ranges that int8 is given.

Two passes over the images: the first finds each tensor's extremes, the second counts its values in a
histogram between them; of a large tensor every k-th value of each image. The estimators see the histogram
only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from boardfit.errors import InputError, RecipeError

if TYPE_CHECKING:
    from boardfit.converters.quantize.records import Probe

BINS = 2048
COUNTED = 2**16
"""Values of one tensor on one image: above twice as many, not all are counted."""
PERCENTILE = 99.99
LEVELS = 256
"""Of an 8-bit integer."""

_Seen = tuple[int, Mapping[str, np.ndarray]]
"""The place of an image, and its tensors by name."""
_Part = TypeVar("_Part")

_STEPS = 64
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Range:
    """The values of one activation tensor that int8 must cover; zero is among them.

    Attributes:
        low: At most 0.
        high: At least 0; equal to ``low`` only where the tensor is zero throughout.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= 0.0 <= self.high):
            raise InputError(f"the range {self.low} to {self.high}: expected finite ends around zero")


@dataclass(frozen=True, slots=True, eq=False)
class TensorStats:
    """What calibration saw of one tensor.

    Attributes:
        low: Smallest value over all images.
        high: Largest value.
        counts: (BINS,) int64, the counted values in equal bins from ``low`` to ``high``; of a constant
            tensor all stand in the first bin.
    """

    low: float
    high: float
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """(BINS,) float64, the middle of each bin."""
        width = (self.high - self.low) / BINS
        return self.low + width * (np.arange(BINS) + 0.5)


def observe(
    probe: Probe,
    tensors: np.ndarray,
    *,
    more: Sequence[Probe] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, TensorStats]:
    """Run an artifact over images and count the values of every tensor.

    Args:
        probe: The float artifact.
        tensors: (N, S, S, 3) float32.
        more: Other probes of the same artifact; the images are shared out, a thread for each probe.
        progress: Told once per pass.

    Raises:
        InputError: A tensor is NaN or infinite on some image.
    """
    progress(f"finding the extremes of each tensor on {len(tensors)} images")
    extremes: dict[str, tuple[float, float]] = {}
    for part in _share_out((probe, *more), tensors, _extremes_of):
        for name, (low, high) in part.items():
            known = extremes.get(name, (low, high))
            extremes[name] = min(low, known[0]), max(high, known[1])
    progress(f"counting the values of {len(extremes)} tensors on {len(tensors)} images")
    counts = {name: np.zeros(BINS, np.int64) for name in extremes}
    for found in _share_out((probe, *more), tensors, partial(_counts_of, extremes=extremes)):
        for name, values in found.items():
            counts[name] += values
    return {name: TensorStats(*extremes[name], counts[name]) for name in extremes}


def _share_out(
    probes: Sequence[Probe], tensors: np.ndarray, see: Callable[[int, Iterator[_Seen]], _Part]
) -> list[_Part]:
    """Let each probe run a part of the images, and return what was seen of each part, in their order."""
    stopped = threading.Event()

    def seen(probe: Probe, rows: np.ndarray) -> Iterator[_Seen]:
        for row in rows:
            if stopped.is_set():
                return
            yield int(row), probe.run(tensors[row][None])

    parts = np.array_split(np.arange(len(tensors)), len(probes))
    with ThreadPoolExecutor(len(probes)) as pool:
        try:
            work = [
                pool.submit(see, len(tensors), seen(probe, rows))
                for probe, rows in zip(probes, parts, strict=True)
            ]
            wait(work, return_when=FIRST_EXCEPTION)
            failed = next((each for each in work if each.done() and each.exception()), None)
            return [each.result() for each in ([failed] if failed else work)]
        finally:
            # After Ctrl-C, or where one failed, the others need not go on.
            stopped.set()


def _extremes_of(count: int, runs: Iterator[_Seen]) -> dict[str, tuple[float, float]]:
    extremes: dict[str, tuple[float, float]] = {}
    for row, tensors in runs:
        for name, values in tensors.items():
            low, high = float(values.min()), float(values.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise InputError(
                    f"image {row + 1} of {count} makes the tensor {name!r} NaN or infinite: "
                    "check the image spec and the model; no range can be taken from it"
                )
            known = extremes.get(name, (low, high))
            extremes[name] = min(low, known[0]), max(high, known[1])
    return extremes


def _counts_of(
    _: int, runs: Iterator[_Seen], *, extremes: Mapping[str, tuple[float, float]]
) -> dict[str, np.ndarray]:
    counts = {name: np.zeros(BINS, np.int64) for name in extremes}
    for _row, tensors in runs:
        for name, values in tensors.items():
            counts[name] += _histogram(values, *extremes[name])
    return counts


def estimate(stats: TensorStats, method: str) -> Range:
    """Return the range that a method reads from a tensor's histogram, widened to hold zero.

    Args:
        stats: What calibration saw.
        method: One of ``ESTIMATORS``. ``min-max``: all that was seen. ``percentile``: from the 0.01th to
            the 99.99th percentile. ``mse``: the ends that lose the least squared error to rounding and
            clipping together. ``kl``: the ends at which the quantized distribution tells the least
            against the true one (S. Migacz, "8-bit inference with TensorRT", GTC 2017).

    Raises:
        RecipeError: There is no such method.
    """
    if method not in _ESTIMATORS:
        raise RecipeError(f"there is no range estimator {method!r}: expected one of {', '.join(ESTIMATORS)}")
    whole = Range(min(stats.low, 0.0), max(stats.high, 0.0))
    if stats.low == stats.high:
        return whole
    low, high = _ESTIMATORS[method](stats)
    found = Range(min(low, 0.0), max(high, 0.0))
    return whole if found.low == found.high else found


def _histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Count values in BINS equal bins: with OpenCV, in a quarter of numpy's time."""
    import cv2

    flat = _sample(values)
    if low == high:
        return np.bincount([0], weights=[flat.size], minlength=BINS).astype(np.int64)
    # OpenCV leaves the upper end out.
    above = float(np.nextafter(np.float32(high), np.float32(np.inf)))
    row = np.ascontiguousarray(flat, np.float32).reshape(1, -1)
    return np.asarray(cv2.calcHist([row], [0], None, [BINS], [low, above])).reshape(-1).astype(np.int64)


def _sample(values: np.ndarray) -> np.ndarray:
    """Return the values in a row, or of very many every k-th, at a stride that falls on every channel."""
    flat = values.reshape(-1)
    step = flat.size // COUNTED
    if step < 2:
        return flat
    while math.gcd(step, flat.size) != 1:
        step += 1
    return flat[::step]


def _min_max(stats: TensorStats) -> tuple[float, float]:
    return stats.low, stats.high


def _percentile(stats: TensorStats) -> tuple[float, float]:
    """Return the ends that leave out 0.01 % of the values on either side, linear inside a bin."""
    outside = (1.0 - PERCENTILE / 100.0) * stats.counts.sum()
    edges = np.linspace(stats.low, stats.high, BINS + 1)
    below = np.concatenate([[0], np.cumsum(stats.counts)]).astype(np.float64)
    low = np.interp(outside, below, edges)
    # From the other end: interp over the mirrored counts takes the first of equal sums on that side.
    high = np.interp(outside, (below[-1] - below)[::-1], edges[::-1])
    return float(low), float(high)


def _mse(stats: TensorStats) -> tuple[float, float]:
    """Search both ends in turn for the smallest squared error, ever finer around the best."""
    low, high = min(stats.low, 0.0), max(stats.high, 0.0)
    span_low, span_high = low, high
    reach = 1.0
    for _ in range(_ROUNDS):
        highs = _around(high, span_high, reach)
        high = float(highs[np.argmin([_squared_error(stats, low, end) for end in highs])])
        lows = _around(low, span_low, reach)
        low = float(lows[np.argmin([_squared_error(stats, end, high) for end in lows])])
        reach /= 4.0
    return low, high


def _around(end: float, span: float, reach: float) -> np.ndarray:
    """Return candidates for an end: between 0 and the extreme, no further than ``reach`` of it away."""
    if span == 0.0:
        return np.zeros(1)
    share = end / span
    return span * np.linspace(min(share + reach, 1.0), max(share - reach, 1.0 / _STEPS), _STEPS)


def _squared_error(stats: TensorStats, low: float, high: float) -> float:
    """Return the sum over all values of the squared error of rounding to 256 levels and clipping.

    Values inside are taken to be spread evenly over a level (error step^2 / 12), but for what stands in
    zero's bin and in those of the ends: an activation such as ReLU6 heaps values exactly there, and zero
    and the range's ends are levels.
    """
    values, counts = stats.centres, stats.counts
    values[0], values[-1] = stats.low, stats.high
    exact = np.abs(values) <= (stats.high - stats.low) / BINS / 2.0
    exact |= (values == low) | (values == high)
    inside = (values >= low) & (values <= high)
    step = (high - low) / (LEVELS - 1)
    rounding = float(counts[inside & ~exact].sum()) * step**2 / 12.0
    beyond = values - np.clip(values, low, high)
    return rounding + float((counts * beyond**2).sum())


def _kl(stats: TensorStats) -> tuple[float, float]:
    """Search the magnitude beyond which values are clipped, as TensorRT's entropy calibration does.

    A tensor of one sign gets 128 levels, one of both signs 256: with either, a level is as wide.
    """
    largest = max(abs(stats.low), abs(stats.high))
    levels = LEVELS // 2 if stats.low >= 0.0 or stats.high <= 0.0 else LEVELS
    best, smallest = largest, np.inf
    for limit in np.linspace(largest, largest / 16.0, 4 * _STEPS):
        low, high = max(stats.low, -limit), min(stats.high, limit)
        found = _divergence(stats, low, high, levels)
        if found < smallest:
            best, smallest = float(limit), found
    return max(stats.low, -best), min(stats.high, best)


def _divergence(stats: TensorStats, low: float, high: float, levels: int) -> float:
    """Return KL(P || Q): P the histogram with what is clipped added to its ends, Q P's part quantized.

    Zero's bin and the two ends' keep their counts in Q: an activation heaps values there, and integers
    express them exactly. Spread over a level's bins, a ReLU's zeros would outweigh all else, and cutting
    nearly everything off would seem best.
    """
    centres = stats.centres
    exact = np.zeros(BINS, bool)
    exact[[0, min(BINS - 1, max(0, int(-stats.low / (stats.high - stats.low) * BINS))), -1]] = True
    first, last = np.searchsorted(centres, low), np.searchsorted(centres, high, side="right")
    part = stats.counts[first:last].astype(np.float64)
    if len(part) < levels:
        return np.inf
    clipped = part.copy()
    clipped[0] += stats.counts[:first].sum()
    clipped[-1] += stats.counts[last:].sum()
    group = np.arange(len(part)) * levels // len(part)
    exact = exact[first:last]
    filled = (part > 0.0) & ~exact
    total = np.bincount(group, weights=np.where(exact, 0.0, part), minlength=levels)
    members = np.bincount(group, weights=filled, minlength=levels)
    quantized = np.where(exact, part, np.where(filled, (total / np.maximum(members, 1.0))[group], 0.0))
    p, q = clipped / clipped.sum(), quantized / max(quantized.sum(), 1.0)
    # A bin that holds only what was clipped has no counterpart: a small share stands for it.
    q = np.where((p > 0.0) & (q == 0.0), 1e-4 / len(p), q)
    seen = p > 0.0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


_ESTIMATORS: Mapping[str, Callable[[TensorStats], tuple[float, float]]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "kl": _kl,
}
ESTIMATORS = tuple(_ESTIMATORS)
