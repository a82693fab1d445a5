from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from boardfit.benchmarks.compression_figures import training_curves, what_is_left
from boardfit.benchmarks.compression_page import (
    Change,
    CompressionPage,
    Integers,
    Panel,
    Score,
    Training,
    all_figures,
    compression_html,
)
from boardfit.benchmarks.figure import Area, Dot, Line, Words
from boardfit.benchmarks.ratios import paired_points
from boardfit.errors import InputError

TRAINING = Training(
    name="training-1-elastic",
    title="Training of elastic: 4 epochs",
    epochs=(1, 2, 3, 4),
    phases=("largest", "largest", "together", "together"),
    panels=(
        Panel("loss", (2.0, 1.0, 0.5, 0.25), "blue"),
        Panel("right answers, %", (None, None, 80.0, 90.0), "green", from_zero=False, top=100.0),
    ),
)
PAGE = CompressionPage(
    title="Compression of <lite0>",
    headline="prune: 0.60 of the multiplications are left",
    facts=(("Bundle", "a & b"),),
    changes=(Change("parameters", "1,000", "700", 0.7), Change("onnx fp32", "4.0 kB", "8.0 kB", 2.0)),
    times=(Change("litert at 224", "14.40 ms", "10.08 ms", 0.7),),
    timed_on="a bench <1>",
    right=(Score(224, 500, 90.0, 89.4, lost=12, gained=9),),
    agreement=(Score(224, 128, 100.0, 96.1),),
    integers=(
        Integers("onnx-int8-224", "flips", "6.2 %", "3.1 %", "0.2", "0.05", True),
        Integers("ncnn-int8-224", "flips", "4.0 %", "-", "0.1", "0.3", False),
    ),
    trainings=(TRAINING,),
)


class Checked(HTMLParser):
    """Keeps texts, and that every element is closed in its turn."""

    void = ("meta", "br", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert not {name for name, _ in attrs} & {"src", "href"}
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def text_of(page: CompressionPage) -> str:
    parser = Checked()
    parser.feed(compression_html(page))
    parser.close()
    assert parser.open == []
    return "\n".join(text for text in parser.texts if text.strip())


def test_everything_stands_on_the_page_as_text():
    text = text_of(PAGE)
    for expected in ("Compression of <lite0>", "a & b", "on a bench <1>", "14.40 ms", "10.08 ms", "8.0 kB"):
        assert expected in text
    assert "Right answers" in text
    assert "Answers as the source" in text
    assert "-0.6\n-2.4 to +1.2" in text  # of 21 images that changed among 500
    assert "-3.9\n-\n" in text  # changed images were not counted: no interval
    assert "Trained in int8" in text
    assert "onnx-int8-224\nflips\n6.2 %\n3.1 %\n0.2\n0.05\nthe trained net" in text
    assert "0.3\nnot the trained net" in text


def test_what_was_not_measured_leaves_no_heading():
    text = text_of(replace(PAGE, times=(), right=(), agreement=(), integers=(), trainings=()))
    assert "Time of one inference" not in text
    assert "nswers" not in text
    assert "Train" not in text


def test_bars_are_as_long_as_what_is_left():
    drawn = what_is_left(PAGE.changes).wide
    bars = [shape for shape in drawn.shapes if isinstance(shape, Area)]
    lengths = [bar.points[1][0] - bar.points[0][0] for bar in bars]
    assert lengths[1] / lengths[0] == pytest.approx(2.0 / 0.7)
    assert [bar.ink for bar in bars] == ["blue", "orange"]
    whole = next(shape for shape in drawn.shapes if isinstance(shape, Line) and shape.dashed)
    assert whole.points[0][0] - bars[0].points[0][0] == pytest.approx(lengths[0] / 0.7)
    words = [shape.words for shape in drawn.shapes if isinstance(shape, Words)]
    assert "parameters: 0.70" in words


def test_curves_lie_under_each_other_over_the_same_epochs():
    drawn = training_curves(TRAINING).wide
    curves = {
        shape.ink: shape.points for shape in drawn.shapes if isinstance(shape, Line) and shape.width == 2.0
    }
    loss, right = curves["blue"], curves["green"]
    assert [x for x, _ in loss][2:] == [x for x, _ in right]
    assert np.diff([x for x, _ in loss]) == pytest.approx(np.full(3, loss[1][0] - loss[0][0]))
    assert max(y for _, y in loss) < min(y for _, y in right)
    # From 0: half the loss is half as high.
    ticks = [
        s for s in drawn.shapes if isinstance(s, Words) and s.words in ("0.0", "2.0") and s.anchor == "end"
    ]
    zero, two = (tick.at[1] - 4.0 for tick in sorted(ticks, key=lambda tick: tick.words))
    assert [(zero - y) / (zero - two) * 2.0 for _, y in loss] == pytest.approx([2.0, 1.0, 0.5, 0.25])
    tips = [shape.tip for shape in drawn.shapes if isinstance(shape, Dot)]
    assert tips == [
        *(f"epoch {i}: {v:g}" for i, v in enumerate((2, 1, 0.5, 0.25), 1)),
        "epoch 3: 80",
        "epoch 4: 90",
    ]


def test_the_border_of_two_phases_is_marked():
    drawn = training_curves(TRAINING).wide
    (border,) = [shape for shape in drawn.shapes if isinstance(shape, Line) and shape.dashed]
    second, third = (shape.at[0] for shape in [s for s in drawn.shapes if isinstance(s, Dot)][1:3])
    assert border.points[0][0] == pytest.approx((second + third) / 2)
    words = [shape.words for shape in drawn.shapes if isinstance(shape, Words)]
    assert {"largest", "together"} <= set(words)


@pytest.mark.parametrize("epochs", [1, 300], ids=["one", "many"])
def test_trainings_of_any_length_are_drawn(epochs):
    numbers = tuple(range(1, epochs + 1))
    panel = Panel("loss", tuple(1.0 / number for number in numbers), "blue")
    drawn = training_curves(Training("t", "T", numbers, ("all",) * epochs, (panel,)))
    dots = [shape for shape in drawn.wide.shapes if isinstance(shape, Dot)]
    assert len(dots) == (1 if epochs == 1 else 0)
    ticks = [s.words for s in drawn.wide.shapes if isinstance(s, Words) and s.anchor == "middle"]
    assert all(re.fullmatch(r"\d+|epoch", words) for words in ticks)
    assert len(set(ticks)) == len(ticks)


def test_figures_have_names_of_their_own_for_files():
    assert [each.name for each in all_figures(PAGE)] == ["left", "training-1-elastic"]


def test_where_training_in_int8_left_all_as_it_was_no_bars_are_drawn():
    unchanged = replace(PAGE, changes=(Change("parameters", "1,000", "1,000", 1.0),), times=())
    assert [each.name for each in all_figures(unchanged)] == ["training-1-elastic"]
    text = text_of(unchanged)
    assert "What is left" not in text and "Before and after" in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Change("a", "1", "2", float("nan")),
        lambda: Score(1, 1, float("inf"), 0.0),
        lambda: replace(TRAINING, epochs=(1, 2)),
        lambda: replace(TRAINING, panels=()),
    ],
    ids=["ratio", "score", "lengths", "no panel"],
)
def test_what_cannot_be_drawn_is_refused(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.08, 0.02), (0.03, 0.01)])
def test_the_interval_of_paired_answers_covers(lost, gained):
    images = 400
    drawn = np.random.default_rng(1).multinomial(images, [lost, gained, 1.0 - lost - gained], size=2000)
    found = [paired_points(int(a), int(b), images=images) for a, b, _ in drawn]
    covered = np.mean([each.low <= 100.0 * (gained - lost) <= each.high for each in found])
    assert covered >= 0.93
    assert np.mean([each.high - each.low for each in found]) < 100.0 * 4.6 * np.sqrt(
        (lost + gained + 0.004) / images
    )


def test_the_middle_is_the_change_itself():
    assert paired_points(12, 9, images=500).middle == pytest.approx(-0.6)
