"""Reports as Markdown, for pull requests and wikis."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from boardfit.benchmarks.bench_page import (
    EMULATED,
    EMULATED_HEADER,
    HEADER,
    emulated_cells,
    environment_facts,
    overview_cells,
)
from boardfit.benchmarks.published import Published, beside
from boardfit.benchmarks.records import Report
from boardfit.benchmarks.summary import best, best_rule, bytes_text, ms_text, name_of, summary


def bench_markdown(
    reports: Sequence[Report], published: Sequence[Published] = (), pictures: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the text.

    Args:
        reports: At least one.
        published: Others' numbers; those of the same board, net and configuration are told as such.
        pictures: (title, file name) of pictures that lie beside the text.
    """
    parts = []
    for report in reports:
        parts += _one_report(report, published)
    parts += [f"![{_plain(title)}]({name})" for title, name in pictures]
    return "\n\n".join(parts) + "\n"


def _one_report(report: Report, published: Sequence[Published]) -> list[str]:
    where = report.environment
    parts = [f"## {_plain(report.bundle_name)} on {_plain(where.board_title)}"]
    if where.emulated:
        parts.append(f"**{EMULATED}**")
    parts += [f"> {_plain(note)}" for note in report.notes]
    parts.append(_headline(report))
    header = EMULATED_HEADER if where.emulated else HEADER
    cells = emulated_cells if where.emulated else overview_cells
    parts.append(markdown_table(header, [cells(each) for each in report.measurements]))
    others = [item for each in report.measurements for item in beside(each.case, report, published)]
    parts += [
        f"Published by {_plain(each.source)} on {each.published}, not measured by us: {each.value_ms:g} ms "
        f"for {_plain(each.name)} ({_plain(each.conditions)}; <{each.url}>)."
        for each in dict.fromkeys(others)
    ]
    facts = "\n".join(f"* {name}: {_plain(text)}" for name, text in environment_facts(report))
    parts.append(f"<details><summary>Environment</summary>\n\n{facts}\n\n</details>")
    return [part for part in parts if part]


def _headline(report: Report) -> str:
    chosen = best(report)
    if chosen is None:
        return "" if report.environment.emulated else "**No configuration is valid or accurate enough.**"
    found = summary(chosen)
    return (
        f"**{_plain(name_of(chosen.case))}: p50 {ms_text(found.p50_s)}, p90 {ms_text(found.p90_s)}, "
        f"p99 {ms_text(found.p99_s)} ms**; first inference after {ms_text(found.to_first_s)} ms, memory peak "
        f"{bytes_text(found.peak_bytes)}. It is {best_rule(report)}."
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; its first two columns are aligned to the left."""
    rule = ["---" if i < 2 else "---:" for i in range(len(header))]
    lines = [header, rule, *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return text in which nothing is markup."""
    text = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in text)
