from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from boardfit.benchmarks.report import ARTIFACT_HEADER, Answer, Page, report_html

ANSWER = Answer(
    source="a.jpg",
    top=(("cat", 0.75), ("dog", 0.25)),
    size=160,
    entropy_bits=6.5,
    total_s=0.0123,
    jpeg=b"\xff\xd8",
)
PAGE = Page(
    title="lite0",
    headline="20 frames",
    facts=(("Ran on", "a board"),),
    answers=(ANSWER,),
    frames=20,
    by_size=((112, 5), (224, 15)),
    stages_s=(("inference", (0.01, 0.02, 0.03)),),
    artifacts=(("tflite-fp32", "18.6 MB", "224", "32", "1e-6", "1.0", "0", "9.33", "litert"),),
    measured_on="a server",
    skipped=("b.jpg is damaged",),
)
VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Checks that every element is closed in its turn, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(page: Page) -> str:
    parser = Balance()
    parser.feed(report_html(page))
    parser.close()
    assert parser.open == []
    return "\n".join(parser.text)


def test_everything_stands_on_it():
    text = text_of(PAGE)
    for part in (
        "lite0",
        "a board",
        "5 at 112 (25 %), 15 at 224 (75 %)",
        "20.00",
        "cat 0.75; dog 0.25",
        "12.3",
        "6.50",
        "Answers (1 of 20 frames)",
        "tflite-fp32",
        "Measured on a server",
        "b.jpg is damaged",
        *ARTIFACT_HEADER,
    ):
        assert part in text


def test_it_can_be_read_on_a_phone():
    assert 'name="viewport"' in report_html(PAGE)


@pytest.mark.parametrize(
    "page",
    [
        replace(PAGE, title="<script>x</script>"),
        replace(PAGE, headline="<script>x</script>"),
        replace(PAGE, facts=(("<script>x</script>", "<script>x</script>"),)),
        replace(PAGE, answers=(replace(ANSWER, source='"><script>x</script>'),)),
        replace(PAGE, answers=(replace(ANSWER, top=(("<script>x</script>", 1.0),)),)),
        replace(PAGE, artifacts=(("<script>x</script>",) * 9,)),
        replace(PAGE, measured_on="<script>x</script>"),
        replace(PAGE, skipped=("<script>x</script>",)),
        replace(PAGE, stages_s=(("<script>x</script>", (1.0, 1.0, 1.0)),)),
    ],
    ids=["title", "headline", "facts", "source", "label", "artifacts", "machine", "skipped", "stage"],
)
def test_no_text_becomes_markup(page):
    assert "<script>x</script>" in text_of(page)
    assert "<script" not in report_html(page)


def test_a_run_without_answers_has_a_page_too():
    text = text_of(replace(PAGE, answers=(), frames=0, by_size=(), stages_s=(), skipped=()))
    assert "Answers" not in text and "Skipped" not in text and "tflite-fp32" in text


def test_unknown_entropy_and_no_answer():
    text = text_of(replace(PAGE, answers=(replace(ANSWER, entropy_bits=None, top=()),)))
    assert "no answer" in text and "\n-\n" in text
