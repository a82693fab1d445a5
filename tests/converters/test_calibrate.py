"""Range estimators against brute force over the values themselves."""

from __future__ import annotations

import time

import numpy as np
import pytest

from boardfit.converters.calibrate import (
    BINS,
    COUNTED,
    ESTIMATORS,
    LEVELS,
    Range,
    TensorStats,
    estimate,
    observe,
)
from boardfit.errors import EngineError, InputError, RecipeError

RNG = np.random.default_rng(5)
SHAPES = {
    "normal": RNG.normal(0.0, 1.0, 40_000),
    "relu": np.maximum(RNG.normal(0.0, 1.0, 40_000), 0.0),
    "long tail": np.maximum(RNG.standard_t(3, 40_000), 0.0),
    "two long tails": RNG.laplace(0.0, 1.0, 40_000),
    "swish": (lambda x: x / (1.0 + np.exp(-x)))(RNG.normal(0.0, 2.0, 40_000)),
    "negative": -RNG.gamma(2.0, 1.0, 40_000),
    "relu6": np.clip(RNG.normal(2.0, 3.0, 40_000), 0.0, 6.0),
}


class ArrayProbe:
    """Plays back values: the image's first pixel says which row."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"t": self._rows[int(image[0, 0, 0, 0])].astype(np.float32)}

    def close(self) -> None:
        pass


def stats_of(values: np.ndarray, images: int = 8, workers: int = 1) -> TensorStats:
    rows = np.asarray(values).reshape(images, -1)
    tensors = np.zeros((images, 2, 2, 3), np.float32)
    tensors[:, 0, 0, 0] = np.arange(images)
    more = [ArrayProbe(rows) for _ in range(workers - 1)]
    return observe(ArrayProbe(rows), tensors, more=more)["t"]


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_several_probes_see_what_one_sees(workers):
    alone, shared = (stats_of(SHAPES["two long tails"], workers=each) for each in (1, workers))
    assert (alone.low, alone.high) == (shared.low, shared.high)
    np.testing.assert_array_equal(alone.counts, shared.counts)


@pytest.mark.parametrize("failing", [0, 1], ids=["first", "second"])
def test_where_one_probe_fails_the_others_stop(failing):
    """One of two fails at its first image; the other would go on for a hundred seconds."""
    runs = []

    class Slow(ArrayProbe):
        def run(self, image):
            runs.append(1)
            time.sleep(0.01)
            return super().run(image)

    class Failing(ArrayProbe):
        def run(self, image):
            raise EngineError("gone")

    tensors = np.zeros((20_000, 1, 1, 3), np.float32)
    rows = np.ones((1, 4))
    with pytest.raises(EngineError, match="gone"):
        probes = [Slow(rows), Slow(rows)]
        probes[failing] = Failing(rows)
        observe(probes[0], tensors, more=probes[1:])
    assert len(runs) < 1000


def true_error(values: np.ndarray, found: Range) -> float:
    """Quantize the values to 256 levels of which one is exactly zero, and measure."""
    step = (found.high - found.low) / (LEVELS - 1)
    zero = np.round(-found.low / step)
    quantized = (np.clip(np.round(values / step) + zero, 0, LEVELS - 1) - zero) * step
    return float(((values - quantized) ** 2).mean())


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_the_histogram_is_numpys(values):
    stats = stats_of(values)
    assert stats.low == np.float32(values.min()) and stats.high == np.float32(values.max())
    expected = np.histogram(values.astype(np.float32).astype(np.float64), BINS, (stats.low, stats.high))[0]
    assert stats.counts.sum() == values.size
    # A value within rounding of an edge may fall on either side of it.
    assert np.abs(np.cumsum(stats.counts) - np.cumsum(expected)).max() <= 2


def test_of_a_large_tensor_a_part_is_counted_and_its_extremes_are_found():
    """Channels last, each with its own level: the part has all of them in equal shares."""
    values = np.tile(np.arange(64.0), 5000)
    values[1] = 99.0
    stats = stats_of(values, images=1)
    assert (stats.low, stats.high) == (0.0, 99.0)
    assert COUNTED // 2 <= stats.counts.sum() <= 2 * COUNTED
    seen = stats.counts[stats.counts > 0]
    assert len(seen) in (64, 65)
    assert np.ptp(np.sort(seen)[-64:]) <= 2


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_min_max_holds_all_and_zero(values):
    found = estimate(stats_of(values), "min-max")
    assert found.low == min(np.float32(values.min()), 0.0) and found.high == max(np.float32(values.max()), 0)


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_percentile_leaves_out_one_in_ten_thousand_on_each_side(values):
    found = estimate(stats_of(values), "percentile")
    width = np.ptp(values) / BINS
    low, high = np.percentile(values, (0.01, 99.99))
    # Values are sparse out there: a bin's width, or the gap between two neighbours, is the resolution.
    ordered = np.sort(values)
    slack = width + max(np.diff(ordered[:10]).max(), np.diff(ordered[-10:]).max())
    assert found.low == pytest.approx(min(low, 0.0), abs=slack)
    assert found.high == pytest.approx(max(high, 0.0), abs=slack)


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_mse_is_near_the_best_range_that_brute_force_finds(values):
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    shares = np.linspace(0.1, 1.0, 46)
    ranges = [Range(low * a, high * b) for a in (shares if low < 0 else [1]) for b in shares]
    best = min(true_error(values, each) for each in ranges if each.low < each.high)
    assert true_error(values, estimate(stats_of(values), "mse")) <= 1.04 * best


def brute_divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    """TensorRT's slide, literally, for a tensor that is not negative: the first ``kept`` bins survive.

    The bins of zero and of the largest value are levels of their own.
    """
    exact = {0, BINS - 1}
    p = counts[:kept].astype(float)
    p[-1] += counts[kept:].sum()
    q = np.zeros(kept)
    groups = [[] for _ in range(levels)]
    for i in range(kept):
        if i in exact:
            q[i] = counts[i]
        else:
            groups[i * levels // kept].append(i)
    for group in groups:
        filled = [i for i in group if counts[i] > 0]
        for i in filled:
            q[i] = counts[group].sum() / len(filled)
    p, q = p / p.sum(), q / q.sum()
    q[(p > 0) & (q == 0)] = 1e-4 / kept
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize("name", ["relu", "long tail", "relu6"])
def test_kl_is_near_the_best_limit_of_a_literal_search(name):
    stats = stats_of(SHAPES[name])
    literal = {kept: brute_divergence(stats.counts, kept, 128) for kept in range(128, BINS + 1, 16)}
    found = estimate(stats, "kl")
    kept = round(found.high / stats.high * BINS)
    assert brute_divergence(stats.counts, kept, 128) <= 1.05 * min(literal.values()) + 1e-6


def test_kl_cuts_a_lonely_outlier_and_min_max_does_not():
    values = np.append(np.abs(RNG.normal(0.0, 1.0, 39_999)), 100.0)
    stats = stats_of(values)
    assert estimate(stats, "min-max").high == 100.0
    assert estimate(stats, "kl").high < 20.0


def test_kl_keeps_what_relu6_heaps_at_its_ends():
    """Nine in ten values are 0, and one in twenty is 6: to cut at a fraction of 6 would be ruin."""
    rows = np.concatenate([np.zeros(36_000), np.full(2_000, 6.0), RNG.uniform(0.0, 6.0, 2_000)])
    assert estimate(stats_of(RNG.permutation(rows)), "kl").high > 5.5


def test_kl_cuts_both_tails_at_the_same_magnitude():
    found = estimate(stats_of(np.append(RNG.normal(0.0, 1.0, 39_998), [100.0, -100.0])), "kl")
    assert found.high < 20.0
    assert found.low == pytest.approx(-found.high)


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_a_constant_tensor_has_a_range(method, value):
    assert estimate(stats_of(np.full(80, value)), method) == Range(min(value, 0.0), max(value, 0.0))


@pytest.mark.parametrize("method", ESTIMATORS)
def test_mostly_zero_leaves_a_width(method):
    values = np.zeros(40_000)
    values[7] = 3.0
    found = estimate(stats_of(values), method)
    assert found.low < found.high


def test_an_unknown_estimator_is_named():
    with pytest.raises(RecipeError, match=r"'median'.*min-max, percentile, mse, kl"):
        estimate(stats_of(SHAPES["relu"]), "median")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_with_its_image(bad):
    values = SHAPES["relu"].reshape(8, -1).copy()
    values[2, 5] = bad
    with pytest.raises(InputError, match=r"image 3 of 8.*'t'"):
        stats_of(values)


@pytest.mark.parametrize("ends", [(1.0, 2.0), (-2.0, -1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_a_range_holds_zero_and_is_finite(ends):
    with pytest.raises(InputError, match="around zero"):
        Range(*ends)
