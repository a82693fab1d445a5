"""The parts that every page of HTML shares: head and style, facts, tables, pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

COLOURS = ("#2a6f97", "#468c5b", "#a65628", "#7b4f9d", "#5f6b76")
"""Grounds of white letters, for the parts of a bar."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bar: #3b82c4; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; }
.strong td { font-weight: 600; background: var(--soft); }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden;
  background: var(--soft); }
img { display: block; width: 100%; height: auto; }
figcaption { padding: .5rem .7rem; font-size: .9rem; overflow-wrap: anywhere; }
figcaption b { display: block; }
.mix { display: flex; height: 2rem; border-radius: .4rem; overflow: hidden; max-width: 40rem; }
.mix span { color: #fff; text-align: center; line-height: 2rem; min-width: 2.2rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""


def document(sections: Iterable[str], *, title: str, headline: str, style: str = "") -> str:
    """Return a whole page as HTML text. It requests nothing from anywhere.

    Args:
        sections: Markup of the sections; empty ones leave no trace.
        title: Of the page; plain text.
        headline: The sentence under it; plain text.
        style: CSS that only this page needs.
    """
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>\n<p>{escape(headline)}</p>",
            *filter(None, sections),
            "</body>\n</html>\n",
        ]
    )


def facts_list(facts: Iterable[tuple[str, str]]) -> str:
    """Return (name, text) pairs as a list; plain texts."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<dl>{rows}</dl>" if rows else ""


def picture(jpeg: bytes, *, source: str, headline: str, lines: Sequence[str] = ()) -> str:
    """Return a picture with its caption.

    Args:
        jpeg: A JPEG file, which the page will hold.
        source: File name, for people; also the text alternative.
        headline: First line of the caption.
        lines: Lines under the file name.
    """
    data = base64.b64encode(jpeg).decode("ascii")
    caption = "<br>".join(escape(line) for line in (source, *lines))
    return (
        f'<figure><img loading="lazy" alt="{escape(source)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{escape(headline)}</b>{caption}</figcaption></figure>"
    )


def size_mix(by_size: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """Return a bar of the sizes that answered, as markup, and the same in words, as plain text.

    Args:
        by_size: (input side in pixels, frames), ascending; at least one frame.
    """
    total = sum(count for _, count in by_size)
    parts = "".join(
        f'<span style="flex:{count};background:{COLOURS[i % len(COLOURS)]}">{size}</span>'
        for i, (size, count) in enumerate(by_size)
    )
    words = ", ".join(f"{count} at {size} ({100 * count / total:.0f} %)" for size, count in by_size)
    return f'<div class="mix">{parts}</div>', words


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Sequence[int] = (0,),
    strong: Sequence[int] = (),
) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        header: Plain text of each column's head.
        rows: Plain text of each cell.
        left: Columns that are aligned to the left.
        strong: Rows that stand out.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=left' if i in left else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "\n".join(
        f"<tr{' class=strong' if i in strong else ''}>{line(row, 'td')}</tr>" for i, row in enumerate(rows)
    )
    return f'<div class="scroll"><table>\n<tr>{line(header, "th")}</tr>\n{body}\n</table></div>'
