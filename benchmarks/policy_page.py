"""How a size policy was chosen, as one page of HTML that needs nothing but itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise

from boardfit.benchmarks import plot, score_plot
from boardfit.benchmarks.page import document, facts_list, picture, table
from boardfit.benchmarks.score_plot import FAMILIES, Point, of_family, require_finite

__all__ = ["Example", "Point", "PolicyPage", "policy_html"]

MOST_IMAGE_BITS = 8.0
"""No grey histogram of 256 bins has more; a threshold above it means always the smaller size."""

_STYLE = """
.note { font-size: .9rem; opacity: .8; max-width: 54rem; }
.policies td:first-child { white-space: normal; min-width: 10rem; }
.policies th { white-space: normal; vertical-align: bottom; }
@media (max-width: 44rem) { .policies { font-size: .85rem; }
  .policies td, .policies th { padding: .3rem; } .policies td:first-child { min-width: 7.5rem; } }
details { margin-top: .8rem; } summary { cursor: pointer; }
h3 { font-size: 1rem; margin: 1.2rem 0 .5rem; }
.examples .cards { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem; }
.examples img { aspect-ratio: 4 / 3; object-fit: cover; }
.examples figcaption { font-size: .82rem; padding: .4rem .6rem; }
"""


@dataclass(frozen=True, slots=True)
class Example:
    """One picture and the size that answered it under the chosen policy.

    Attributes:
        source: File name, for people.
        size: Input side in pixels of the last look.
        entropy_bits: Entropy of the image.
        label: Best label of the answer.
        doubt_bits: Doubt of the answer; 0 is certain, 1 a tie of the two best classes.
        jpeg: The picture as a JPEG file.
    """

    source: str
    size: int
    entropy_bits: float
    label: str
    doubt_bits: float
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """All that stands on the page.

    Attributes:
        title: Name of the model.
        headline: What was chosen and what it brings, in one sentence.
        facts: (name, text) pairs.
        score_name: What a score counts, such as ``right answers %``.
        table: The chosen policy and what it is compared with.
        curves: The best of each family at growing drops; points of one family make one curve, and those of
            ``mix``, where given, the line of best mixes.
        entropy_bits: Entropy of every image.
        thresholds_bits: Of the chosen policy; ascending.
        doubt_bits: Doubt of the first look's answer to every image.
        second_look_bits: Doubt of the first answer above which a larger size looks again; None without such.
        examples: Pictures, in the order of their showing at each size.
    """

    title: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    score_name: str
    table: tuple[Point, ...]
    curves: tuple[Point, ...]
    entropy_bits: tuple[float, ...]
    thresholds_bits: tuple[float, ...]
    doubt_bits: tuple[float, ...]
    second_look_bits: float | None
    examples: tuple[Example, ...]

    def __post_init__(self) -> None:
        for name in ("entropy_bits", "thresholds_bits", "doubt_bits"):
            require_finite(name, getattr(self, name))
        if self.second_look_bits is not None:
            require_finite("second_look_bits", (self.second_look_bits,))


def policy_html(page: PolicyPage) -> str:
    """Return the page as HTML text. It requests nothing from anywhere.

    Args:
        page: All that stands on it; texts are escaped here.
    """
    sections = (
        facts_list(page.facts),
        _score_over_time(page),
        _policies(page),
        _entropies(page),
        _doubts(page),
        _examples(page.examples),
    )
    return document(
        sections, title=page.title, headline=page.headline, style=plot.STYLE + score_plot.STYLE + _STYLE
    )


def _score_over_time(page: PolicyPage) -> str:
    if not page.table and not page.curves:
        return ""
    return (
        "<h2>What a policy brings for its time</h2>\n"
        f"{score_plot.score_plot(page.table, page.curves, score_name=page.score_name)}\n"
        '<p class="note">Up and to the left is better. Bands and whiskers: 95 % intervals.</p>'
    )


def _policies(page: PolicyPage) -> str:
    if not page.table:
        return ""
    header = ("policy", "time / largest size's", page.score_name, "95 % interval")
    chosen = [i for i, point in enumerate(page.table) if point.family == "chosen"]
    parts = ['<h2>The same in numbers</h2>\n<div class="policies">']
    parts.append(table(header, map(_row, page.table), strong=chosen))
    if page.curves:
        rows = [_row(p) for family in FAMILIES for p in of_family(page.curves, family)]
        parts.append(f"<details><summary>Points of the curves</summary>\n{table(header, rows)}\n</details>")
    return "\n".join([*parts, "</div>"])


def _row(point: Point) -> tuple[str, str, str, str]:
    interval = f"{point.low:.1f} to {point.high:.1f}"
    return point.name, f"{point.time_ratio:.2f}", f"{point.score:.1f}", interval


def _entropies(page: PolicyPage) -> str:
    if not page.entropy_bits:
        return ""
    bounds = [bits for bits in page.thresholds_bits if bits <= MOST_IMAGE_BITS]
    words = _shares(page.entropy_bits, bounds)
    if len(bounds) < len(page.thresholds_bits):
        words += (
            f" A threshold above {MOST_IMAGE_BITS:g} bits, which no image reaches, is not drawn: "
            "it means always the smaller size."
        )
    elif not bounds:
        words += " The policy has no threshold on them."
    drawn = plot.histogram(
        page.entropy_bits,
        bounds=bounds,
        x_title="image entropy, bits",
        words=f"Histogram of image entropy. {words}",
        most=MOST_IMAGE_BITS,
    )
    return f'<h2>Image entropy and the thresholds</h2>\n{drawn}\n<p class="note">{escape(words)}</p>'


def _shares(values: Sequence[float], bounds: Sequence[float]) -> str:
    """Return in words how many values lie between the bounds; a value on a bound is above it."""
    if not bounds:
        return f"{len(values)} images, from {min(values):.2f} to {max(values):.2f} bits."
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_right(bounds, value)] += 1
    ranges = [f"below {bounds[0]:.2f} bits"]
    ranges += [f"from {low:.2f} to {high:.2f}" for low, high in pairwise(bounds)]
    ranges.append(f"from {bounds[-1]:.2f} up")
    shares = (f"{100 * n / len(values):.1f} % {where}" for n, where in zip(counts, ranges, strict=True))
    return f"Of {len(values)} images {', '.join(shares)}."


def _doubts(page: PolicyPage) -> str:
    bound = page.second_look_bits
    if bound is None or not page.doubt_bits:
        return ""
    again = sum(bits > bound for bits in page.doubt_bits)
    words = (
        f"{100 * again / len(page.doubt_bits):.1f} % of {len(page.doubt_bits)} first answers are in more "
        f"doubt than {bound:.2f} bits: there a larger size looks again. 0 bits is certain, 1 bit a tie of "
        "the two best classes."
    )
    drawn = plot.histogram(
        page.doubt_bits,
        bounds=(bound,),
        x_title="doubt of the first answer, bits",
        words=f"Histogram of the first look's doubt. {words}",
        shade_above=True,
    )
    return f'<h2>Doubt of the first look</h2>\n{drawn}\n<p class="note">{escape(words)}</p>'


def _examples(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    parts = ['<h2>Examples at each size</h2>\n<div class="examples">']
    for size, group in groupby(sorted(examples, key=lambda e: e.size), key=lambda e: e.size):
        cards = [_card(example) for example in group]
        count = "1 picture" if len(cards) == 1 else f"{len(cards)} pictures"
        parts.append(f'<h3>{size} pixels: {count}</h3>\n<div class="cards">')
        parts += [*cards, "</div>"]
    return "\n".join([*parts, "</div>"])


def _card(example: Example) -> str:
    bits = f"image {example.entropy_bits:.2f} bits", f"doubt {example.doubt_bits:.2f} bits"
    return picture(example.jpeg, source=example.source, headline=example.label, lines=bits)
