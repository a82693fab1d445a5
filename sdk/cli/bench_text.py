"""A benchmark's report as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from boardfit.cli.text import counted, table

if TYPE_CHECKING:
    from boardfit.benchmarks.records import Measurement, Report


def report_text(report: Report) -> str:
    """Return a report for people: a table of the cases, what is wrong with them, and notes."""
    from boardfit.benchmarks.summary import fault_lines

    if report.environment.emulated:
        return _emulated_text(report)
    where, first = report.environment, report.measurements[0]
    runs = counted(max(len(each.runs) for each in report.measurements), "run")
    lines = [
        f"{report.bundle_name} on {where.board_title} ({where.cpu}), {first.case.scenario}, {runs} each",
        "",
        _cases(report.measurements),
        "",
        _stages(report.measurements),
    ]
    faults = [
        f"NOT VALID {each.case.name}: {line}" for each in report.measurements for line in fault_lines(each)
    ]
    lines += ["", *faults] if faults else []
    lines += ["", *(f"note: {note}" for note in report.notes)] if report.notes else []
    return "\n".join(lines)


def _emulated_text(report: Report) -> str:
    """Return what an emulated processor's report is good for: no times."""
    from boardfit.benchmarks.bench_page import EMULATED, EMULATED_HEADER, emulated_cells

    rows = [emulated_cells(each) for each in report.measurements]
    lines = [
        f"{report.bundle_name} on {report.environment.board_title}, emulated",
        "",
        EMULATED,
        "",
        table(EMULATED_HEADER, rows, left=(0, 2)),
    ]
    lines += ["", *(f"note: {note}" for note in report.notes)] if report.notes else []
    return "\n".join(lines)


def _cases(measurements: Sequence[Measurement]) -> str:
    scenario = measurements[0].case.scenario
    extra = {"camera": ["age p99 ms", "dropped"], "offline": [], "single-stream": []}[scenario]
    judged = any(each.accuracy is not None for each in measurements)
    header = ["case", "p50 ms", "p90 ms", "p90 at most", "p99 ms", "frames/s", *extra, "load ms", "first ms"]
    header += ["top-1 %", "lost"] if judged else []
    return table(header, [_row(each, judged=judged) for each in measurements])


def _row(each: Measurement, *, judged: bool) -> list[str]:
    from boardfit.benchmarks.early_stopping import percentile_bound
    from boardfit.benchmarks.summary import accuracy_texts, summary

    found = summary(each)
    bound = percentile_bound([value for run in each.runs for value in run.latencies_s], 90.0)
    row = [each.case.name, _ms(found.p50_s), _ms(found.p90_s), "-" if bound is None else _ms(bound)]
    row += [_ms(found.p99_s), f"{found.frames_per_s:.1f}"]
    if found.age_p99_s is not None and found.dropped_share is not None:
        row += [_ms(found.age_p99_s), f"{100.0 * found.dropped_share:.1f} %"]
    row += [_ms(found.load_s), _ms(found.first_s)]
    return row + (list(accuracy_texts(each)) if judged else [])


def _stages(measurements: Sequence[Measurement]) -> str:
    """Return where the time of a median frame goes, and what it costs in memory and heat."""
    from boardfit.benchmarks.records import STAGES
    from boardfit.benchmarks.summary import bytes_text, summary

    rows = []
    for each in measurements:
        found = summary(each)
        parts = [median(value for run in each.runs for value in run.stages_s[stage]) for stage in STAGES]
        heat = "-" if found.hottest_c is None else f"{found.hottest_c:.0f}"
        rows.append([each.case.name, *map(_ms, parts), bytes_text(found.peak_bytes), heat])
    return table(["p50 ms by stage", *STAGES, "peak memory", "degrees C"], rows)


def _ms(seconds: float) -> str:
    from boardfit.benchmarks.summary import ms_text

    return ms_text(seconds)
