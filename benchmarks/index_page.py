"""A folder of reports as one table that a click sorts; without script it stands in the order of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from boardfit.benchmarks.page import document
from boardfit.benchmarks.records import Report
from boardfit.benchmarks.summary import (
    accuracy_texts,
    best,
    bytes_text,
    fault_kinds,
    ms_text,
    name_of,
    summary,
)

HEADER = (
    *("report", "board", "p50 ms", "p90 ms", "p99 ms", "best configuration", "top-1 %", "drop"),
    *("to first ms", "memory peak", "bundle", "measured"),
)
_LEFT = (0, 1, 5, 10, 11)

_STYLE = """
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-align: inherit; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
th, td { padding: .3rem .5rem; } th { white-space: normal; }
td.left { white-space: normal; min-width: 5rem; } td:nth-child(6) { min-width: 9rem; }
.bad { color: #c1121f; } td:last-child { white-space: nowrap; }
@media (prefers-color-scheme: dark) { .bad { color: #ff6b6b; } }
"""

_SCRIPT = """
for (const head of document.querySelectorAll("th")) {
  const button = document.createElement("button");
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.onclick = () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.children[head.cellIndex].dataset.key;
    const order = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) =>
      key(a) === "" ? 1 : key(b) === "" ? -1 : (up ? 1 : -1) * order(key(a), key(b)));
    body.append(...rows);
  };
}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One report of a folder.

    Attributes:
        name: Its folder, relative to the index.
        link: Address of its page, or of its JSON, relative to the index.
        report: The report.
    """

    name: str
    link: str
    report: Report


@dataclass(frozen=True, slots=True)
class _Cell:
    words: str
    key: str
    bad: bool = False


def index_html(entries: Sequence[Entry], unread: Sequence[str] = (), *, title: str) -> str:
    """Return the page. It requests nothing from anywhere.

    Args:
        entries: At least one.
        unread: One sentence for each report that could not be read, or stands here already.
        title: Of the page.
    """
    heads = "".join(
        f"<th{' class=left' if i in _LEFT else ''}>{escape(words)}</th>" for i, words in enumerate(HEADER)
    )
    body = "\n".join(map(_row, entries))
    count = "1 report" if len(entries) == 1 else f"{len(entries)} reports"
    rows = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    sections = [
        f'<div class="scroll"><table>\n{rows}</table></div>',
        "<p>Of each report the best valid configuration. A click on a heading sorts.</p>",
        _unread(unread),
        f"<script>{_SCRIPT}</script>",
    ]
    return document(sections, title=title, headline=count, style=_STYLE)


def _row(entry: Entry) -> str:
    link = f'<a href="{escape(entry.link)}">{escape(entry.name)}</a>'
    cells = [f'<td class="left" data-key="{escape(entry.name)}">{link}</td>']
    for index, cell in enumerate(_cells(entry.report), start=1):
        classes = " ".join(["left"] * (index in _LEFT) + ["bad"] * cell.bad)
        marked = f' class="{classes}"' if classes else ""
        cells.append(f'<td{marked} data-key="{escape(cell.key)}">{escape(cell.words)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _cells(report: Report) -> list[_Cell]:
    where, chosen = report.environment, best(report)
    board = _Cell(where.board_title, where.board_title)
    end = [_Cell(report.bundle_name, report.bundle_name), _Cell(where.started_utc[:10], where.started_utc)]
    empty = _Cell("-", "")
    if chosen is None:
        return [board, *[empty] * 3, _Cell(_why_none(report), "", bad=True), *[empty] * 4, *end]
    found = summary(chosen)
    p50, p90, p99, first = (
        _Cell(ms_text(value), repr(value))
        for value in (found.p50_s, found.p90_s, found.p99_s, found.to_first_s)
    )
    name = _Cell(name_of(chosen.case), name_of(chosen.case))
    accuracy = [_Cell(text, "" if text == "-" else text) for text in accuracy_texts(chosen)]
    peak = _Cell(bytes_text(found.peak_bytes), str(found.peak_bytes or ""))
    return [board, p50, p90, p99, name, *accuracy, first, peak, *end]


def _why_none(report: Report) -> str:
    """Return why a report shows no number."""
    if report.environment.emulated:
        return "emulated processor: no times"
    kinds = dict.fromkeys(filter(None, map(fault_kinds, report.measurements)))
    return f"none is valid: {'; '.join(kinds)}" if kinds else "none is accurate enough"


def _unread(unread: Sequence[str]) -> str:
    if not unread:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in unread)
    return f"<h2>Left out</h2>\n<ul>{items}</ul>"
