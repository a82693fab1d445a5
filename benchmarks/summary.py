"""What a reader wants to know of a measurement first, and which one is the best of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TypeVar

from boardfit.benchmarks.records import Case, Measurement, Report, Run
from boardfit.timing import percentile

_Number = TypeVar("_Number", int, float)

MOST_DROP_POINTS = 1.0
"""A configuration that loses more than this against fp32 is not called the best, however fast it is."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A measurement in a few numbers.

    Attributes:
        p50_s: Median of all frames of all runs; offline of all batches.
        p90_s: 90th percentile, likewise.
        p99_s: 99th percentile, likewise.
        load_s: Median over the runs, of loading.
        first_s: Median over the runs, of the first frame alone.
        to_first_s: Median over the runs, from the call of ``load`` to the first result.
        peak_bytes: The most resident memory of any run; None where the board does not tell.
        average_bytes: Resident memory, averaged over the probes of all runs; None likewise.
        frames_per_s: Frames of all runs over the time that they took.
        age_p99_s: Camera: 99th percentile of the results' age; else None.
        dropped_share: Camera: share, 0 to 1, of frames that were dropped; else None.
        hottest_c: Highest temperature that was seen; None where the board does not tell.
    """

    p50_s: float
    p90_s: float
    p99_s: float
    load_s: float
    first_s: float
    to_first_s: float
    peak_bytes: int | None
    average_bytes: float | None
    frames_per_s: float
    age_p99_s: float | None
    dropped_share: float | None
    hottest_c: float | None


def summary(measurement: Measurement) -> Summary:
    """Return the numbers that stand at the top.

    Args:
        measurement: Valid or not: whoever shows these numbers shows its faults beside them.
    """
    runs = measurement.runs
    pooled = sorted(value for run in runs for value in run.latencies_s)
    ages = [value for run in runs for value in run.ages_s]
    frames, dropped = sum(run.frames for run in runs), sum(run.dropped for run in runs)
    seconds = sum(run.duration_s for run in runs)
    camera = measurement.case.scenario == "camera"
    shots = [shot for run in runs for shot in (run.before, *run.trace, run.after)]
    resident = [shot.memory.rss_bytes for shot in shots if shot.memory.rss_bytes is not None]
    return Summary(
        p50_s=percentile(pooled, 50.0),
        p90_s=percentile(pooled, 90.0),
        p99_s=percentile(pooled, 99.0),
        load_s=median(run.load_s for run in runs),
        first_s=median(run.first_s for run in runs),
        to_first_s=median(run.load_s + run.first_s for run in runs),
        peak_bytes=_most(run.after.memory.peak_bytes for run in runs),
        average_bytes=fmean(resident) if resident else None,
        frames_per_s=frames / seconds if seconds > 0.0 else 0.0,
        age_p99_s=percentile(ages, 99.0) if ages else None,
        dropped_share=dropped / (frames + dropped) if camera and frames + dropped else None,
        hottest_c=_most(shot.hottest_c for shot in shots),
    )


def best(report: Report) -> Measurement | None:
    """Return the configuration that the headline shows; None where none may be called so.

    It is the fastest at p50 (offline: with the most frames per second) of the valid ones of the report's
    first scenario, among those that lose at most MOST_DROP_POINTS against fp32. Where accuracy was measured
    for some, those without are not asked. Times of an emulated processor have no best.
    """
    if report.environment.emulated:
        return None
    scenario = report.measurements[0].case.scenario
    valid = [each for each in report.measurements if each.valid and each.case.scenario == scenario]
    judged = [each for each in valid if each.accuracy is not None]
    if judged:
        valid = [each for each in judged if _drop(each) <= MOST_DROP_POINTS + 1e-9]
    if scenario == "offline":
        return max(valid, key=lambda each: summary(each).frames_per_s, default=None)
    return min(valid, key=lambda each: summary(each).p50_s, default=None)


def best_rule(report: Report) -> str:
    """Return by which rule ``best`` chose, in a sentence for people."""
    if any(each.valid and each.accuracy is not None for each in report.measurements):
        return f"the fastest valid one that loses at most {MOST_DROP_POINTS:g} point of top-1 against fp32"
    return "the fastest valid one; accuracy was not measured (bench --val)"


def frames_by_size(runs: Iterable[Run]) -> tuple[tuple[int, int], ...]:
    """Return (input side in pixels, frames that it answered), ascending."""
    counts: dict[int, int] = {}
    for run in runs:
        for size in run.answered_sizes:
            counts[size] = counts.get(size, 0) + 1
    return tuple(sorted(counts.items()))


def fault_lines(measurement: Measurement) -> tuple[str, ...]:
    """Return a sentence for each kind of fault: the first of its kind, and in how many runs more."""
    return tuple(
        found[0]
        + (f" (and in {len(found) - 1} more of {len(measurement.runs)} runs)" if len(found) > 1 else "")
        for found in _by_kind(measurement).values()
    )


def fault_kinds(measurement: Measurement) -> str:
    """Return the kinds of faults in a few words, such as ``busy in 5 of 5 runs; repeats``; empty if valid."""
    return "; ".join(
        f"{kind} in {len(found)} of {len(measurement.runs)} runs" if len(found) > 1 else kind
        for kind, found in _by_kind(measurement).items()
    )


def _by_kind(measurement: Measurement) -> dict[str, list[str]]:
    """Return faults by their first word, as in ``busy: ...``; of the runs, then of the measurement."""
    kinds: dict[str, list[str]] = {}
    for fault in (*(fault for run in measurement.runs for fault in run.faults), *measurement.faults):
        kinds.setdefault(fault.partition(":")[0], []).append(fault)
    return kinds


def board_names(reports: Sequence[Report]) -> list[str]:
    """Return what to call the board of each report: its title, and the time where several have the same."""
    titles = [each.environment.board_title for each in reports]
    return [
        title if titles.count(title) == 1 else f"{title}, {each.environment.started_utc}"
        for title, each in zip(titles, reports, strict=True)
    ]


def name_of(case: Case) -> str:
    """Return a case's name, with its cores and its scenario where these are not the usual ones."""
    words = [case.name]
    if case.affinity:
        words.append(f"cores {','.join(map(str, case.affinity))}")
    if case.scenario == "offline":
        words.append(f"batches of {case.batch}")
    if case.scenario == "camera":
        words.append("camera" if case.fps is None else f"camera at {case.fps:g}/s")
    return ", ".join(words)


def ms_text(seconds: float) -> str:
    """Return milliseconds with three figures or so, such as ``8.12`` or ``131``."""
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 99.95 else f"{ms:.1f}" if ms >= 9.995 else f"{ms:.2f}"


def bytes_text(size_bytes: float | None) -> str:
    """Return MiB for people; a dash where the board does not tell."""
    return "-" if size_bytes is None else f"{size_bytes / 2**20:.0f} MiB"


def accuracy_texts(measurement: Measurement) -> tuple[str, str]:
    """Return top-1 in per cent and the points lost against fp32; dashes where they were not measured."""
    found = measurement.accuracy
    if found is None:
        return "-", "-"
    drop = found.drop_points
    return f"{100.0 * found.top1:.1f}", "-" if drop is None else f"{drop + 0.0:.1f}"


def _drop(measurement: Measurement) -> float:
    drop = measurement.accuracy.drop_points if measurement.accuracy else None
    return 0.0 if drop is None else drop


def _most(values: Iterable[_Number | None]) -> _Number | None:
    return max((value for value in values if value is not None), default=None)
