"""A run as one page of HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from boardfit.benchmarks.page import document, facts_list, picture, size_mix, table


@dataclass(frozen=True, slots=True)
class Answer:
    """One frame on the page.

    Attributes:
        source: File name, for people.
        top: (label, score), best first.
        size: Input side in pixels that answered.
        entropy_bits: Image entropy; None where it was not computed.
        total_s: Seconds for the frame.
        jpeg: Annotated picture as a JPEG file.
    """

    source: str
    top: tuple[tuple[str, float], ...]
    size: int
    entropy_bits: float | None
    total_s: float
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """All that stands on the page.

    Attributes:
        title: Name of the model.
        headline: One line: how many frames, on what.
        facts: (name, text) pairs.
        answers: Frames with pictures; may be fewer than ``frames``.
        frames: Frames that ran.
        by_size: (input side in pixels, frames), ascending.
        stages_s: (stage, (p50, p90, p99) in seconds).
        artifacts: Cells of each row under ARTIFACT_HEADER.
        measured_on: The machine of the artifacts' times; empty where unknown.
        skipped: One sentence for each input that could not be used.
    """

    title: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    answers: tuple[Answer, ...]
    frames: int
    by_size: tuple[tuple[int, int], ...]
    stages_s: tuple[tuple[str, tuple[float, ...]], ...]
    artifacts: tuple[tuple[str, ...], ...]
    measured_on: str = ""
    skipped: tuple[str, ...] = ()


ARTIFACT_HEADER = (
    "artifact",
    "file",
    "size",
    "images",
    "max difference / range",
    "cosine",
    "flips",
    "ms",
    "engine",
)


def report_html(page: Page) -> str:
    """Return the page as HTML text. It requests nothing from anywhere.

    Args:
        page: All that stands on it; texts are escaped here.
    """
    sections = (
        facts_list(page.facts),
        _size_mix(page),
        _stages(page),
        _answers(page),
        _artifacts(page),
        _skipped(page),
    )
    return document(sections, title=page.title, headline=page.headline)


def _size_mix(page: Page) -> str:
    if not page.by_size:
        return ""
    bar, words = size_mix(page.by_size)
    return f"<h2>Sizes that the policy chose</h2>\n{bar}\n<p>{escape(words)}</p>"


def _stages(page: Page) -> str:
    rows = [[stage, *(f"{value * 1e3:.2f}" for value in values)] for stage, values in page.stages_s]
    return f"<h2>Milliseconds per stage</h2>\n{table(('stage', 'p50', 'p90', 'p99'), rows)}" if rows else ""


def _answers(page: Page) -> str:
    if not page.answers:
        return ""
    title = f"Answers ({len(page.answers)} of {page.frames} frames)"
    cards = "\n".join(_card(answer) for answer in page.answers)
    return f'<h2>{title}</h2>\n<div class="cards">\n{cards}\n</div>\n{_answer_table(page.answers)}'


def _card(answer: Answer) -> str:
    label, score = answer.top[0] if answer.top else ("no answer", 0.0)
    return picture(answer.jpeg, source=answer.source, headline=f"{label} {score:.2f}")


def _answer_table(answers: Sequence[Answer]) -> str:
    rows = [
        [
            answer.source,
            "; ".join(f"{label} {score:.2f}" for label, score in answer.top),
            str(answer.size),
            "-" if answer.entropy_bits is None else f"{answer.entropy_bits:.2f}",
            f"{answer.total_s * 1e3:.1f}",
        ]
        for answer in answers
    ]
    return table(("file", "answers", "size", "bits", "ms"), rows, left=(0, 1))


def _artifacts(page: Page) -> str:
    where = f" Measured on {escape(page.measured_on)}." if page.measured_on else ""
    return (
        "<h2>What the bundle holds</h2>\n"
        f"{table(ARTIFACT_HEADER, page.artifacts, left=(0, 8))}\n"
        "<p>Each file was compared with the source model when the bundle was built. "
        f"ms: median of the engine alone, one frame.{where}</p>"
    )


def _skipped(page: Page) -> str:
    if not page.skipped:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in page.skipped)
    return f"<h2>Skipped</h2>\n<ul>{items}</ul>"
