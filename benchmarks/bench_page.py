"""Reports of one board or of several as one page of HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from boardfit.benchmarks import figure
from boardfit.benchmarks.bench_details import DETAILS_STYLE, details
from boardfit.benchmarks.bench_figures import Judged, LatencyRow, accuracy_for_time, latencies
from boardfit.benchmarks.figure import SERIES, Figure, svg
from boardfit.benchmarks.page import document, facts_list, table
from boardfit.benchmarks.published import Published, beside, of_board
from boardfit.benchmarks.records import Environment, Measurement, Report
from boardfit.benchmarks.summary import (
    Summary,
    accuracy_texts,
    best,
    best_rule,
    board_names,
    bytes_text,
    fault_kinds,
    fault_lines,
    frames_by_size,
    ms_text,
    name_of,
    summary,
)

EMULATED = (
    "The processor was emulated. What an emulator takes says nothing of a board, so no time is shown here: "
    "only whether it runs, and whether the answers are right."
)
"""What every page of an emulated board's report says."""

UNLIKE_BUNDLES = '<p class="note">These are not the same bundle: see the content id of each below.</p>'

HEADER = (
    *("configuration", "valid", "p50 ms", "p90 ms", "p99 ms"),
    *("top-1 %", "drop", "to first ms", "memory peak", "frames/s"),
)
EMULATED_HEADER = ("configuration", "frames answered", "sizes that answered", "top-1 %", "drop")

_STYLE = (
    DETAILS_STYLE
    + """
.warn, .told { border-left: .3rem solid var(--line); background: var(--soft); padding: .6rem .9rem;
  margin: 1rem 0; border-radius: .3rem; } .warn { border-color: #c1121f; background: #c1121f1c; }
.warn ul, .told ul { margin: .2rem 0; padding-left: 1.2rem; }
.tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  margin: 1rem 0; }
.tiles div { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem;
  padding: .5rem .8rem; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles span { font-size: .85rem; opacity: .8; }
.note { font-size: .9rem; opacity: .8; max-width: 54rem; overflow-wrap: anywhere; }
.board { border-top: 2px solid var(--line); margin-top: 2.5rem; }
.others td.left { min-width: 8rem; } .others td.left:last-child { min-width: 14rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 50%; background: currentColor; }
"""
)


def bench_html(reports: Sequence[Report], published: Sequence[Published] = ()) -> str:
    """Return the page. It requests nothing from anywhere.

    Args:
        reports: At least one; several stand side by side, then one after the other.
        published: Others' numbers, of which those that fit are shown as such.
    """
    if len(reports) == 1:
        sections = _one_report(reports[0], published, overview_figures(reports, published))
        title = f"{reports[0].bundle_name} on {reports[0].environment.board_title}"
        headline = f"Measured {reports[0].environment.started_utc} by boardfit bench."
    else:
        sections = _side_by_side(reports, published)
        boards = {each.environment.board_title for each in reports}
        where = f"{len(boards)} boards" if len(boards) > 1 else next(iter(boards))
        title = f"{' and '.join(dict.fromkeys(each.bundle_name for each in reports))} on {where}"
        headline = "The best valid configuration of each report, then each report by itself."
    return document(sections, title=title, headline=headline, style=figure.style() + _STYLE)


def overview_figures(reports: Sequence[Report], published: Sequence[Published] = ()) -> tuple[Figure, ...]:
    """Return the figures that show configurations side by side: only valid ones of real processors.

    Args:
        reports: One or more; with several, each has a colour and the labels begin with its board.
        published: Others' numbers; those that fit become marks beside ours.
    """
    rows, points = [], []
    for index, (report, name) in enumerate(zip(reports, board_names(reports), strict=True)):
        ink = SERIES[index % len(SERIES)]
        board = name if len(reports) > 1 else ""
        for each in _drawable(report):
            found, case = summary(each), each.case
            others = tuple((item.source, item.value_ms / 1e3) for item in beside(case, report, published))
            times = (found.p50_s, found.p90_s, found.p99_s)
            rows.append(LatencyRow(name_of(case), *times, ink, board, others))
            if each.accuracy is not None and case.scenario == report.measurements[0].case.scenario:
                short = f"{case.engine} {case.precision} {'/'.join(map(str, case.sizes))}"
                judged = each.accuracy
                points.append(Judged(short, found.p50_s, judged.top1, judged.images, ink))
    figures = [latencies(sorted(rows, key=lambda row: row.p50_s))] if rows else []
    return (*figures, *([accuracy_for_time(points)] if points else []))


def overview_cells(each: Measurement) -> tuple[str, ...]:
    """Return a measurement's cells under HEADER: no number without its faults beside it."""
    found = summary(each)
    verdict = "yes" if each.valid else f"no: {fault_kinds(each)}"
    return (
        name_of(each.case),
        verdict,
        *map(ms_text, (found.p50_s, found.p90_s, found.p99_s)),
        *accuracy_texts(each),
        ms_text(found.to_first_s),
        bytes_text(found.peak_bytes),
        f"{found.frames_per_s:.1f}",
    )


def emulated_cells(each: Measurement) -> tuple[str, ...]:
    """Return a measurement's cells under EMULATED_HEADER."""
    sizes = ", ".join(f"{count} at {size}" for size, count in frames_by_size(each.runs))
    return (name_of(each.case), str(sum(run.frames for run in each.runs)), sizes, *accuracy_texts(each))


def environment_facts(report: Report) -> tuple[tuple[str, str], ...]:
    """Return (name, text) of all that a reader needs to measure it again."""
    where = report.environment
    shots = [shot for each in report.measurements for run in each.runs for shot in (run.before, run.after)]
    seen = {shot.throttle_bits for shot in shots if shot.throttle_bits is not None}
    bits = [] if where.emulated else sorted(seen)
    return (
        ("Board", f"{where.board_title} ({where.board}){', emulated' if where.emulated else ''}"),
        ("Processor", f"{where.cpu}, {where.cores} cores{_memory(where)}"),
        ("System", f"{where.os_name}, kernel {where.kernel}, {where.libc}, Python {where.python}"),
        ("Packages", ", ".join(f"{name} {version}" for name, version in sorted(where.packages.items()))),
        ("Governor", where.governor or "not told by this system"),
        *([("Power mode", where.power_mode)] if where.power_mode else []),
        *([("Throttle bits seen", ", ".join(f"0x{value:x}" for value in bits))] if bits else []),
        ("Bundle", f"{report.bundle_name}, content id {report.bundle_id}"),
        ("Command", " ".join(where.command)),
        ("Started", where.started_utc),
    )


def _memory(where: Environment) -> str:
    return "" if where.memory_bytes is None else f", {where.memory_bytes / 2**30:.1f} GiB"


def _drawable(report: Report) -> list[Measurement]:
    if report.environment.emulated:
        return []
    return [each for each in report.measurements if each.valid]


def _one_report(report: Report, published: Sequence[Published], figures: Sequence[Figure]) -> list[str]:
    chosen = best(report)
    return [
        _warnings(report),
        _headline(report, chosen),
        "<h2>All configurations</h2>",
        _overview(report, chosen),
        *(f"<h2>{escape(each.title)}</h2>\n{svg(each)}" for each in figures),
        _drawing_note(report, figures),
        *_each(report, chosen),
        "<h2>Environment</h2>",
        facts_list(environment_facts(report)),
        _published_table(report, published),
    ]


def _each(report: Report, chosen: Measurement | None) -> list[str]:
    if report.environment.emulated:
        return []
    parts = (details(each, opened=each is chosen) for each in report.measurements)
    return ["<h2>Each configuration</h2>", *parts]


def _side_by_side(reports: Sequence[Report], published: Sequence[Published]) -> list[str]:
    figures = overview_figures(reports, published)
    names = board_names(reports)
    rows = [_board_row(name, each) for name, each in zip(names, reports, strict=True)]
    unlike = len({each.bundle_id for each in reports}) > 1
    header = ("board", "best configuration", *HEADER[2:])
    parts = [
        f'<div class="overview">{table(header, rows, left=(0, 1))}</div>',
        UNLIKE_BUNDLES if unlike else "",
        *(f"<h2>{escape(each.title)}</h2>\n{_key(reports)}\n{svg(each)}" for each in figures),
    ]
    for name, report in zip(names, reports, strict=True):
        inside = "\n".join(filter(None, _one_report(report, published, ()))).replace("<h2>", "<h3>")
        parts.append(
            f'<section class="board"><h2>{escape(name)}</h2>\n{inside.replace("</h2>", "</h3>")}</section>'
        )
    return parts


def _board_row(board: str, report: Report) -> tuple[str, ...]:
    chosen = best(report)
    if chosen is not None:
        name, _, *numbers = overview_cells(chosen)
        return (board, name, *numbers)
    why = "emulated: no times" if report.environment.emulated else "none valid, see below"
    return (board, why, *("-" for _ in HEADER[2:]))


def _key(reports: Sequence[Report]) -> str:
    items = (
        f'<span class="key {SERIES[i % len(SERIES)]}"></span> {escape(name)}'
        for i, (name, each) in enumerate(zip(board_names(reports), reports, strict=True))
        if _drawable(each)
    )
    return f'<p class="note">{" &nbsp; ".join(items)}</p>'


def _warnings(report: Report) -> str:
    if report.environment.emulated:  # what is wrong with its times is nobody's concern, and tells some
        return _box([EMULATED], "warn") + _box(report.notes, "told")
    lines = [
        f"{name_of(each.case)} is not valid: {fault}"
        for each in report.measurements
        for fault in fault_lines(each)
    ]
    return _box(lines, "warn") + _box(report.notes, "told")


def _box(lines: Sequence[str], css: str) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="{css}" role="note"><ul>{items}</ul></div>' if lines else ""


def _headline(report: Report, chosen: Measurement | None) -> str:
    if chosen is None:
        if report.environment.emulated:
            return ""
        return "<p><b>No configuration is valid or accurate enough to be called the best.</b></p>"
    tiles = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in _tiles(chosen)
    )
    rule = best_rule(report)
    return (
        f'<h2>Best: {escape(name_of(chosen.case))}</h2>\n<div class="tiles">{tiles}</div>\n'
        f'<p class="note">{escape(rule[0].upper() + rule[1:])}.</p>'
    )


def _tiles(chosen: Measurement) -> list[tuple[str, str]]:
    found: Summary = summary(chosen)
    tiles = [
        (name, f"{ms_text(value)} ms")
        for name, value in (
            *(("p50", found.p50_s), ("p90", found.p90_s), ("p99", found.p99_s)),
            ("time to first inference", found.to_first_s),
        )
    ]
    average = "" if found.average_bytes is None else f"; average {bytes_text(found.average_bytes)}"
    tiles.append((f"memory, peak{average}", bytes_text(found.peak_bytes)))
    if chosen.case.scenario == "offline":
        tiles.insert(0, ("throughput", f"{found.frames_per_s:.1f} frames/s"))
    if found.dropped_share is not None and found.age_p99_s is not None:
        tiles.append(("age of results, p99", f"{ms_text(found.age_p99_s)} ms"))
        tiles.append(("frames dropped", f"{100.0 * found.dropped_share:.1f} %"))
    if chosen.accuracy is not None:
        top1, drop = accuracy_texts(chosen)
        lost = "fp32 not measured" if drop == "-" else f"{drop} points below fp32"
        tiles.append((f"top-1 on {chosen.accuracy.images} images, {lost}", f"{top1} %"))
    return tiles


def _overview(report: Report, chosen: Measurement | None) -> str:
    if report.environment.emulated:
        rows = [emulated_cells(each) for each in report.measurements]
        return f'<div class="overview">{table(EMULATED_HEADER, rows, left=(0, 2))}</div>'
    rows = [overview_cells(each) for each in report.measurements]
    strong = [i for i, each in enumerate(report.measurements) if each is chosen]
    return f'<div class="overview">{table(HEADER, rows, left=(0, 1), strong=strong)}</div>'


def _drawing_note(report: Report, figures: Sequence[Figure]) -> str:
    left_out = 0 if report.environment.emulated else sum(not each.valid for each in report.measurements)
    words = f"Not drawn, since not valid: {left_out}. " if left_out and figures else ""
    if any(each.name == "accuracy" for each in figures):
        words += "Up and to the left is better; whiskers: 95 % (Wilson); dashed: beaten by no other."
    return f'<p class="note">{escape(words)}</p>' if words else ""


def _published_table(report: Report, published: Sequence[Published]) -> str:
    found = of_board(report.environment.board, published)
    if not found or report.environment.emulated:
        return ""
    rows = [
        (each.name, f"{each.value_ms:g}", each.source, str(each.published), each.conditions) for each in found
    ]
    links = dict.fromkeys(each.url for each in found)
    sources = ", ".join(f'<a href="{escape(url)}">{escape(url)}</a>' for url in links)
    header = ("what", "ms", "source", "date", "conditions")
    return (
        "<h2>Published by others for this board</h2>\n"
        f'<div class="overview others">{table(header, rows, left=(0, 2, 3, 4))}</div>\n'
        '<p class="note">Not measured by boardfit, and not under the same conditions: for orientation. '
        f"{sources}</p>"
    )
