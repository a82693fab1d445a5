"""What compressing a model brought and what it cost, as one page of HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from boardfit.benchmarks import figure
from boardfit.benchmarks.compression_figures import (
    Change,
    Panel,
    Training,
    training_curves,
    what_is_left,
)
from boardfit.benchmarks.figure import Figure
from boardfit.benchmarks.page import document, facts_list, table
from boardfit.benchmarks.ratios import paired_points
from boardfit.benchmarks.score_plot import require_finite

__all__ = [
    "Change",
    "CompressionPage",
    "Integers",
    "Panel",
    "Score",
    "Training",
    "all_figures",
    "compression_html",
]

_STYLE = """
.note { font-size: .9rem; opacity: .8; max-width: 54rem; }
"""


@dataclass(frozen=True, slots=True)
class Score:
    """Answers at one size, on the same images.

    Attributes:
        size: Input side in pixels.
        images: How many.
        before: Of the source, in per cent.
        after: Of the compressed model.
        lost: Images that only the source answers well; None where that was not counted.
        gained: Images that only the compressed model does.
    """

    size: int
    images: int
    before: float
    after: float
    lost: int | None = None
    gained: int | None = None

    def __post_init__(self) -> None:
        require_finite(f"the score at {self.size}", (self.before, self.after))


@dataclass(frozen=True, slots=True)
class Integers:
    """What training in simulated int8 did to one artifact, as texts.

    Attributes:
        artifact: Its name.
        measure: What the gate judges.
        before: That measure without training, with its unit.
        after: With it.
        error_before: Output error without training.
        error_after: With it.
        used: Whether the bundle has the trained net's integers.
    """

    artifact: str
    measure: str
    before: str
    after: str
    error_before: str
    error_after: str
    used: bool


@dataclass(frozen=True, slots=True)
class CompressionPage:
    """All that stands on the page.

    Attributes:
        title: Name of the model.
        headline: What was done and what is left, in a sentence.
        facts: (name, text) pairs.
        changes: Weights, multiplications and files; at least one.
        times: Of each engine and size.
        timed_on: The machine, for people; no board's time stands for another's.
        right: Right answers; empty where no labels were given.
        agreement: Answers that are the source's at its largest size.
        integers: Artifacts whose net was trained in simulated int8; empty where none was.
        trainings: In their order.
    """

    title: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]
    times: tuple[Change, ...]
    timed_on: str
    right: tuple[Score, ...]
    agreement: tuple[Score, ...]
    integers: tuple[Integers, ...]
    trainings: tuple[Training, ...]


def all_figures(page: CompressionPage) -> tuple[Figure, ...]:
    """Return the figures of the page, for files of their own."""
    return (*_what_is_left(page), *_curves(page))


def compression_html(page: CompressionPage) -> str:
    """Return the page as HTML text. It requests nothing from anywhere.

    Args:
        page: All that stands on it; texts are escaped here.
    """
    sections = [
        facts_list(page.facts),
        *map(_shown, _what_is_left(page)),
        _changes(page),
        _scores("Right answers", page.right, "On labelled photographs."),
        _scores(
            "Answers as the source",
            page.agreement,
            "Of images without labels: how often the answer is the source's at its largest size.",
        ),
        _integers(page.integers),
        *map(_shown, _curves(page)),
    ]
    return document(sections, title=page.title, headline=page.headline, style=figure.style() + _STYLE)


def _what_is_left(page: CompressionPage) -> tuple[Figure, ...]:
    """Return the figure of weights, files and times; none where training in int8 left all as it was."""
    changes = (*page.changes, *page.times)
    changed = any(f"{each.ratio:.2f}" != "1.00" for each in changes)
    return (what_is_left(changes),) if changed else ()


def _curves(page: CompressionPage) -> tuple[Figure, ...]:
    return tuple(training_curves(each) for each in page.trainings)


def _shown(drawn: Figure) -> str:
    return f"<h2>{escape(drawn.title)}</h2>\n{figure.svg(drawn)}"


def _changes(page: CompressionPage) -> str:
    header = ("", "before", "after", "after / before")
    rows = [(each.name, each.before, each.after, f"{each.ratio:.2f}") for each in page.changes]
    parts = ["<h2>Before and after</h2>", table(header, rows)]
    if page.times:
        rows = [(each.name, each.before, each.after, f"{each.ratio:.2f}") for each in page.times]
        parts += ["<h2>Time of one inference</h2>", table(header, rows)]
        parts.append(
            f'<p class="note">The engine alone, both run in turn, median, on {escape(page.timed_on)}. '
            "Another machine has other times: boardfit bench measures there.</p>"
        )
    return "\n".join(parts)


def _scores(title: str, scores: Sequence[Score], note: str) -> str:
    if not scores:
        return ""
    header = ("size", "images", "before", "after", "points", "95 %")
    rows = map(_row, scores)
    return f'<h2>{escape(title)}</h2>\n{table(header, rows)}\n<p class="note">{escape(note)}</p>'


def _integers(found: Sequence[Integers]) -> str:
    if not found:
        return ""
    header = ("artifact", "gate", "before", "after", "output error before", "after", "in the bundle")
    rows = [
        (
            *(each.artifact, each.measure, each.before, each.after, each.error_before, each.error_after),
            "the trained net" if each.used else "not the trained net",
        )
        for each in found
    ]
    note = "Integers without and with training in simulated int8 (qat), against the float artifact."
    return f'<h2>Trained in int8</h2>\n{table(header, rows)}\n<p class="note">{note}</p>'


def _row(score: Score) -> tuple[str, ...]:
    interval = "-"
    if score.lost is not None and score.gained is not None:
        found = paired_points(score.lost, score.gained, images=score.images)
        interval = f"{found.low:+.1f} to {found.high:+.1f}"
    return (
        str(score.size),
        str(score.images),
        f"{score.before:.1f} %",
        f"{score.after:.1f} %",
        f"{score.after - score.before:+.1f}",
        interval,
    )
