"""The pages of a benchmark on disk: report.html, report.md and its pictures; an index of many reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.errors import ReportError

if TYPE_CHECKING:
    from boardfit.benchmarks.figure import Figure
    from boardfit.benchmarks.index_page import Entry
    from boardfit.benchmarks.published import Published
    from boardfit.benchmarks.records import Report

REPORT_HTML = "report.html"
REPORT_MD = "report.md"
INDEX_HTML = "index.html"


def write_pages(folder: str | os.PathLike[str], reports: Sequence[Report]) -> list[Path]:
    """Write ``report.html``, ``report.md`` and the pictures into a folder, which is made if need be.

    All of it is made before anything is written, and each file is there whole or not at all.

    Args:
        folder: Its parent must exist.
        reports: One, or several to stand side by side.

    Returns:
        The paths, the page first.

    Raises:
        ReportError: They cannot be written.
    """
    from boardfit.benchmarks.bench_markdown import bench_markdown
    from boardfit.benchmarks.bench_page import bench_html
    from boardfit.benchmarks.published import read_published
    from boardfit.benchmarks.store import write_file
    from boardfit.cli.raster import png

    published = read_published()
    figures = _figures(reports, published)
    pictures = [(heading, f"{each.name}.png") for each, heading in figures]
    files = {
        REPORT_HTML: bench_html(reports, published).encode(),
        REPORT_MD: bench_markdown(reports, published, pictures).encode(),
        **{f"{each.name}.png": png(each.wide, heading) for each, heading in figures},
    }
    place = Path(folder)
    for name, data in files.items():
        write_file(place / name, data)
    return [place / name for name in files]


def _figures(reports: Sequence[Report], published: Sequence[Published]) -> list[tuple[Figure, str]]:
    """Return what becomes pictures with headings: the overview; of a single report also its best."""
    from boardfit.benchmarks.bench_details import distribution_of, heat_of
    from boardfit.benchmarks.bench_page import overview_figures
    from boardfit.benchmarks.summary import best, name_of

    boards = dict.fromkeys(each.environment.board_title for each in reports)
    of = f"{reports[0].bundle_name} on {' and '.join(boards)}"
    found = [(each, f"{each.title}: {of}") for each in overview_figures(reports, published)]
    chosen = best(reports[0]) if len(reports) == 1 else None
    if chosen is not None:
        shown = (distribution_of(chosen), heat_of(chosen))
        found += [(each, f"{of}, {name_of(chosen.case)}: {each.title}") for each in shown if each]
    return found


def write_index(folder: str | os.PathLike[str]) -> tuple[Path, list[str]]:
    """Write ``index.html`` over all reports beneath a folder.

    Args:
        folder: It, its folders and theirs are searched for ``report.json``.

    Returns:
        The path, and a sentence for each report that was left out: unreadable, or there twice.

    Raises:
        ReportError: There is no report to show, or the page cannot be written.
    """
    from boardfit.benchmarks.index_page import index_html
    from boardfit.benchmarks.store import write_file

    place = Path(folder)
    entries, left_out = _entries(place)
    if not entries:
        told = f": {'; '.join(left_out)}" if left_out else ""
        raise ReportError(
            f"no report to show in {place}{told}; expected folders that boardfit bench --out has written"
        )
    path = place / INDEX_HTML
    page = index_html(entries, left_out, title=f"Benchmarks in {place.resolve().name}")
    write_file(path, page.encode())
    return path, left_out


def _entries(place: Path) -> tuple[list[Entry], list[str]]:
    from urllib.parse import quote

    from boardfit.benchmarks.index_page import Entry
    from boardfit.benchmarks.store import REPORT_JSON, read_report

    entries: list[Entry] = []
    left_out: list[str] = []
    patterns = (REPORT_JSON, f"*/{REPORT_JSON}", f"*/*/{REPORT_JSON}")
    for path in sorted(found for pattern in patterns for found in place.glob(pattern)):
        inside = path.parent.relative_to(place)
        if any(part.startswith(".") for part in inside.parts):  # such as one that is being written
            continue
        name = str(inside) if inside.parts else place.resolve().name
        try:
            report = read_report(path)
        except ReportError as error:
            left_out.append(str(error))
            continue
        twin = next((each.name for each in entries if each.report == report), None)
        if twin is not None:
            left_out.append(f"{name} is the same report as {twin}")
            continue
        page = path.with_name(REPORT_HTML)
        link = (page if page.is_file() else path).relative_to(place)
        entries.append(Entry(name=name, link=quote(str(link)), report=report))
    return entries, left_out
