"""What makes a measurement worthless: one function a rule, each a sentence with the numbers, or None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import erfc, sqrt
from statistics import median

from boardfit.benchmarks.records import Run
from boardfit.timing import percentile

P50_SPREAD = 0.02
P90_SPREAD = 0.05
SLOWER = 0.05
CLOCK_FALL = 0.05
BUSY_SHARE = 0.05

CHANCE = 1e-3
"""How often a row without a trend may be taken for one, where its ends differ enough besides."""

BLOCKS = 50
"""Medians of so many pieces of a run are looked at for a trend: single frames jump."""


def run_faults(run: Run) -> tuple[str, ...]:
    """Return what is wrong with one run; empty where nothing is.

    A cause is told without its symptoms: a board that throttles, or shares its cores, also drifts.
    """
    causes = tuple(fault for rule in (clock_went_back, throttled, machine_busy) if (fault := rule(run)))
    if causes:
        return causes
    fault = drifted(run)
    return () if fault is None else (fault,)


def measurement_faults(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what is wrong with the runs of one case together; empty where nothing is.

    Runs that have a fault of their own already are not compared.

    Args:
        runs: Judged by ``run_faults``.
    """
    healthy = [run for run in runs if not run.faults]
    fault = repeats_disagree(healthy) if len(healthy) > 1 else None
    return () if fault is None else (fault,)


def throttled(run: Run) -> str | None:
    """The board held its clock down, says so itself, or its clock fell.

    A clock that is low before the first frame is idle; so the trace is compared with itself. Where a camera
    sets the pace, the governor moves the clock in every pause: there its fall says nothing.
    """
    probes = (run.before, *run.trace, run.after)
    held = sum(probe.throttled is True for probe in probes)
    if held:
        return f"throttled: the board held its clock down in {held} of {len(probes)} probes{_heat(run)}"
    before, after = run.before.throttle_bits, run.after.throttle_bits
    if before is not None and after is not None and after & ~before:
        return f"throttled: the board's throttle bits went from {before:#x} to {after:#x}{_heat(run)}"
    fault = _fallen([_fastest(probe.max_clocks_hz) for probe in probes[1:]], "highest allowed clock")
    if fault is None and not run.ages_s:
        fault = _fallen([_fastest(probe.clocks_hz) for probe in probes[1:]], "clock")
    return None if fault is None else f"throttled: {fault}{_heat(run)}"


def machine_busy(run: Run) -> str | None:
    """Other processes took more than a twentieth of all cores' time."""
    probes = (run.before, *run.trace, run.after)
    spans = [
        (later.time_s - earlier.time_s, later.busy_share)
        for earlier, later in pairwise(probes)
        if later.busy_share is not None and later.time_s > earlier.time_s
    ]
    whole_s = sum(span_s for span_s, _ in spans)
    if whole_s <= 0.0:
        return None
    share = sum(span_s * busy for span_s, busy in spans) / whole_s
    if share <= BUSY_SHARE:
        return None
    return (
        f"busy: other processes took {100 * share:.0f} % of all cores' time, more than "
        f"{100 * BUSY_SHARE:.0f} %: stop them, and measure again"
    )


def drifted(run: Run) -> str | None:
    """The end was slower than the beginning.

    The medians of the first and the last fifth are compared. A burst of noise at one end is no drift: there
    must be a trend besides, by Mann and Kendall's test over the medians of pieces of the run (Mann, H. B.:
    Nonparametric tests against trend, Econometrica 13, 1945). Frames are taken relative to others of the
    same input size, so that a policy's change of sizes is none either.
    """
    values = _relative(run)
    fifth = len(values) // 5
    if fifth < 2:
        return None
    slower = median(values[-fifth:]) / median(values[:fifth]) - 1.0
    if slower <= SLOWER or rising_by_chance(_blocks(values)) >= CHANCE:
        return None
    return (
        f"drift: the last fifth of the run was {100 * slower:.1f} % slower than the first, more than "
        f"{100 * SLOWER:.0f} %{_heat(run)}"
    )


def clock_went_back(run: Run) -> str | None:
    """The clock that times went backwards."""
    parts = (run.load_s, run.first_s, *run.warmup_s, *run.latencies_s)
    probes = (run.before, *run.trace, run.after)
    steps = [*parts, *(later.time_s - earlier.time_s for earlier, later in pairwise(probes))]
    # It may have gone back between two calls. Samples are kept in whole nanoseconds.
    steps.append(run.duration_s - sum(run.latencies_s) + 1e-9 * (len(run.latencies_s) + 1))
    worst = min(steps)
    if worst >= 0.0:
        return None
    return f"clock: it went backwards, by {-worst:.6f} s or more: no time of this run can be trusted"


def repeats_disagree(runs: Sequence[Run]) -> str | None:
    """Repeats differ from the median repeat by more than 2 % at p50 or 5 % at p90."""
    for percent, bound in ((50.0, P50_SPREAD), (90.0, P90_SPREAD)):
        values = [percentile(run.latencies_s, percent) for run in runs]
        middle = median(values)
        if middle <= 0.0:
            continue
        worst = max(values, key=lambda value: abs(value - middle))
        apart = worst / middle - 1.0
        if abs(apart) > bound:
            return (
                f"repeats: a run's p{percent:.0f} of {1e3 * worst:.3f} ms is {100 * apart:+.1f} % off the "
                f"median of {len(values)} runs, {1e3 * middle:.3f} ms: expected {100 * bound:.0f} % at most"
            )
    return None


def rising_by_chance(values: Sequence[float]) -> float:
    """Return how probable a row without a trend is to rise at least so much; Mann and Kendall, one-sided.

    S is the number of pairs that rise less those that fall; without a trend it is nearly normal with the
    variance n (n - 1) (2 n + 5) / 18, and one is taken off for continuity. Ties make it err to the safe side.

    Args:
        values: In the order of time.
    """
    n = len(values)
    score = sum(
        (later > earlier) - (later < earlier)
        for index, earlier in enumerate(values)
        for later in values[index + 1 :]
    )
    if score <= 0:
        return 1.0
    z = (score - 1) / sqrt(n * (n - 1) * (2 * n + 5) / 18.0)
    return erfc(z / sqrt(2.0)) / 2.0


def _relative(run: Run) -> list[float]:
    """Return each frame's latency over the median of those that the same size answered."""
    # Offline a row is a batch, whose frames may have several sizes.
    sizes = run.answered_sizes if len(run.answered_sizes) == len(run.latencies_s) else ()
    keys = sizes or (0,) * len(run.latencies_s)
    groups: dict[int, list[float]] = {}
    for key, value in zip(keys, run.latencies_s, strict=True):
        groups.setdefault(key, []).append(value)
    middles = {key: median(values) for key, values in groups.items()}
    return [
        value / middles[key] for key, value in zip(keys, run.latencies_s, strict=True) if middles[key] > 0.0
    ]


def _blocks(values: Sequence[float]) -> list[float]:
    count = min(BLOCKS, len(values))
    edges = [len(values) * index // count for index in range(count + 1)]
    return [median(values[start:end]) for start, end in pairwise(edges)]


def _fallen(clocks_hz: Sequence[float | None], what: str) -> str | None:
    """Return a sentence if the last third of the clocks is lower than the first."""
    known = [clock for clock in clocks_hz if clock is not None]
    third = len(known) // 3
    if third < 1:
        return None
    first, last = median(known[:third]), median(known[-third:])
    if last >= (1.0 - CLOCK_FALL) * first:
        return None
    return f"the {what} fell from {first / 1e6:.0f} to {last / 1e6:.0f} MHz"


def _fastest(clocks_hz: Mapping[str, float]) -> float | None:
    """Return the clock of the fastest core: the others may be idle."""
    return max(clocks_hz.values(), default=None)


def _heat(run: Run) -> str:
    hottest = max(
        (heat for probe in (run.before, *run.trace, run.after) if (heat := probe.hottest_c) is not None),
        default=None,
    )
    return "" if hottest is None else f", at up to {hottest:.0f} degrees C"
