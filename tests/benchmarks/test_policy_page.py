from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from boardfit.benchmarks.policy_page import Example, Point, PolicyPage, policy_html
from boardfit.benchmarks.score_plot import best_mixes
from boardfit.errors import InputError

TABLE = (
    Point("two-look 160, 224", 0.61, 88.7, 87.1, 90.2, "chosen"),
    Point("best mix at equal time", 0.62, 85.4, 84.3, 86.6, "mix"),
    Point("same mix at random", 0.63, 84.8, 83.5, 86.1, "random"),
    Point("fixed 112", 0.27, 62.3, 60.4, 64.5, "fixed"),
    Point("fixed 160", 0.53, 80.1, 78.2, 81.9, "fixed"),
    Point("fixed 224", 1.0, 89.0, 87.5, 90.4, "fixed"),
    Point("classic rule", 0.81, 83.9, 82.6, 85.7, "entropy"),
    Point("smallest right size", 0.43, 94.9, 94.9, 94.9, "oracle"),
)
CURVES = (
    Point("drop 1", 0.9, 88.3, 86.9, 89.8, "entropy"),
    Point("drop 5", 0.7, 84.4, 82.8, 86.2, "entropy"),
    Point("drop 1", 0.55, 87.9, 86.3, 89.4, "two-look"),
    Point("drop 5", 0.45, 84.1, 82.2, 85.8, "two-look"),
)
EXAMPLES = (
    Example("b.jpg", 224, 7.31, "dog", 1.92, b"\xff\xd8b"),
    Example("a.jpg", 160, 6.52, "cat", 0.14, b"\xff\xd8a"),
    Example("c.jpg", 224, 7.83, "cup", 2.75, b"\xff\xd8c"),
)
PAGE = PolicyPage(
    title="lite0",
    headline="two looks take 0.61 of the time",
    facts=(("Measured on", "a board"),),
    score_name="right answers %",
    table=TABLE,
    curves=CURVES,
    entropy_bits=(5.25, 6.5, 6.75, 7.0, 7.25, 7.5, 7.5, 7.75),
    thresholds_bits=(5.8, 7.0),
    doubt_bits=(0.1, 0.2, 0.4, 0.83, 1.5, 3.0, 0.05, 0.7),
    second_look_bits=0.83,
    examples=EXAMPLES,
)
NOTHING = replace(
    PAGE,
    facts=(),
    table=(),
    curves=(),
    entropy_bits=(),
    thresholds_bits=(),
    doubt_bits=(),
    second_look_bits=None,
    examples=(),
)
VOID = {"meta", "img", "br", "rect", "line", "circle", "path"}
SCRIPT = "<script>x</script>"


class Shapes(HTMLParser):
    """Checks that every element is closed in its turn; keeps texts and, per plot, shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.plots: list[list[tuple[str, dict[str, str], list[str]]]] = []
        self.plot_words: list[str] = []
        self.urls: list[str] = []
        self.styles: list[str] = []
        self.groups: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.enter(tag, dict(attrs))
        self.open.append(tag)
        if tag in VOID - {"rect", "line", "circle", "path"}:
            self.open.pop()

    def handle_startendtag(self, tag, attrs):
        self.enter(tag, dict(attrs))

    def enter(self, tag, attrs):
        self.urls += [attrs[name] for name in ("src", "href", "xlink:href") if name in attrs]
        if tag == "g":
            self.groups.append(attrs["class"])
        if tag == "svg" and attrs.get("role") == "img":
            self.plots.append([])
            self.plot_words.append(attrs["aria-label"])
        if self.plots and "svg" in self.open:
            attrs["group"] = self.groups[-1] if "g" in self.open else ""
            self.plots[-1].append((tag, attrs, []))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
            return
        self.text.append(data)
        if "svg" in self.open and self.open[-1] == "text":
            self.plots[-1][-1][2].append(data)


def shapes_of(page: PolicyPage) -> Shapes:
    parser = Shapes()
    parser.feed(policy_html(page))
    parser.close()
    assert parser.open == []
    return parser


def text_of(page: PolicyPage) -> str:
    return "\n".join(shapes_of(page).text)


def plots_with(page: PolicyPage, words: str) -> list[list]:
    shapes = shapes_of(page)
    found = [plot for plot, name in zip(shapes.plots, shapes.plot_words, strict=True) if words in name]
    assert len(found) == 2, "one for a desk and one for a phone"
    return found


def scale(plot, css: str, coordinate: str):
    """Return number -> pixel, read from the first and the last tick of an axis."""
    below = 4.0 if coordinate == "y" else 0.0  # the base line of a number lies under its tick
    ticks = [
        (float("".join(data)), float(attrs[coordinate]) - below)
        for tag, attrs, data in plot
        if tag == "text" and css in attrs.get("class", "")
    ]
    (low, start), (high, end) = ticks[0], ticks[-1]
    return lambda value: start + (end - start) * (value - low) / (high - low)


def thresholds(plot) -> list[float]:
    lines = [attrs for tag, attrs, _ in plot if tag == "line" and attrs["class"] == "threshold"]
    assert all(attrs["x1"] == attrs["x2"] for attrs in lines)
    return [float(attrs["x1"]) for attrs in lines]


def test_everything_stands_on_it():
    text = text_of(PAGE)
    for part in ("lite0", "two looks take 0.61 of the time", "a board", "right answers %"):
        assert part in text
    for point in (*TABLE, *CURVES):
        numbers = (f"{point.time_ratio:.2f}", f"{point.score:.1f}", f"{point.low:.1f} to {point.high:.1f}")
        assert "\n".join((point.name, *numbers)) in text


def test_it_can_be_read_on_a_phone():
    assert 'name="viewport"' in policy_html(PAGE)


def test_it_requests_nothing():
    shapes = shapes_of(PAGE)
    assert len(shapes.urls) == len(EXAMPLES)
    assert all(url.startswith("data:image/jpeg;base64,") for url in shapes.urls)
    html = policy_html(PAGE)
    assert "<script" not in html and "http" not in html and "<link" not in html
    assert not re.search(r"url\(|@import", "".join(shapes.styles))


@pytest.mark.parametrize(
    "page",
    [
        replace(PAGE, title=SCRIPT),
        replace(PAGE, headline=SCRIPT),
        replace(PAGE, facts=((SCRIPT, SCRIPT),)),
        replace(PAGE, score_name=f'">{SCRIPT}'),
        replace(PAGE, table=(replace(TABLE[0], name=f'">{SCRIPT}'), *TABLE[1:])),
        replace(PAGE, table=(*TABLE, replace(TABLE[3], name=f"'>{SCRIPT}"))),
        replace(PAGE, curves=(*CURVES, replace(CURVES[0], name=SCRIPT))),
        replace(PAGE, examples=(replace(EXAMPLES[0], source=f'">{SCRIPT}'),)),
        replace(PAGE, examples=(replace(EXAMPLES[0], label=SCRIPT),)),
    ],
    ids=["title", "headline", "facts", "score", "chosen", "fixed", "curve", "source", "label"],
)
def test_no_text_becomes_markup(page):
    assert SCRIPT in text_of(page)
    assert "<script" not in policy_html(page)


def test_every_plot_has_words():
    shapes = shapes_of(PAGE)
    assert len(shapes.plots) == 6
    assert "two-look 160, 224: 88.7 at 0.61" in shapes.plot_words[0]
    assert (
        "Of 8 images 12.5 % below 5.80 bits, 25.0 % from 5.80 to 7.00, 62.5 % from 7.00 up"
        in (shapes.plot_words[2])
    )
    assert "25.0 % of 8 first answers are in more doubt than 0.83 bits" in shapes.plot_words[4]


def test_marks_stand_at_their_numbers():
    for plot in plots_with(PAGE, "over time"):
        x, y = scale(plot, "xtick", "x"), scale(plot, "ytick", "y")
        dots = [
            (float(attrs["cx"]), float(attrs["cy"]))
            for tag, attrs, _ in plot
            if tag == "circle" and attrs["group"] in ("fixed", "oracle")
        ]
        expected = [(x(p.time_ratio), y(p.score)) for p in TABLE if p.family in ("fixed", "oracle")]
        assert sorted(dots) == [pytest.approx(place, abs=0.2) for place in sorted(expected)]
        (diamond,) = [a["d"] for tag, a, _ in plot if tag == "path" and a["group"] == "chosen"]
        at = tuple(map(float, re.match(r"M([\d.]+),([\d.]+) ", diamond).groups()))
        assert at == pytest.approx((x(0.61), y(88.7)), abs=0.2)


def test_whiskers_span_the_interval():
    for plot in plots_with(PAGE, "over time"):
        y = scale(plot, "ytick", "y")
        (whisker,) = [
            attrs
            for tag, attrs, _ in plot
            if tag == "line" and attrs["class"] == "whisker" and attrs["group"] == "chosen"
        ]
        assert (float(whisker["y1"]), float(whisker["y2"])) == pytest.approx((y(87.1), y(90.2)), abs=0.2)


def test_curves_run_by_time_inside_their_band():
    for plot in plots_with(PAGE, "over time"):
        x, y = scale(plot, "xtick", "x"), scale(plot, "ytick", "y")
        band, curve = (
            [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+),([\d.]+)", attrs["d"])]
            for tag, attrs, _ in plot
            if tag == "path" and attrs["group"] == "entropy" and attrs["class"] in ("band", "curve")
        )
        corners = [(0.7, 86.2), (0.9, 89.8), (0.9, 86.9), (0.7, 82.8)]
        assert curve == [pytest.approx((x(t), y(s)), abs=0.2) for t, s in [(0.7, 84.4), (0.9, 88.3)]]
        assert band == [pytest.approx((x(t), y(s)), abs=0.2) for t, s in corners]


@pytest.mark.parametrize(
    "table",
    [TABLE, tuple(replace(p, time_ratio=1.0, score=90.0, low=90.0, high=90.0) for p in TABLE)],
    ids=["apart", "all at one place"],
)
def test_names_in_the_plot_do_not_cover_each_other(table):
    for plot, width in zip(plots_with(replace(PAGE, table=table), "over time"), (860, 350), strict=True):
        names = [
            (float(attrs["x"]), float(attrs["y"]), "".join(data))
            for tag, attrs, data in plot
            if tag == "text" and attrs.get("class") == "halo"
        ]
        assert {name for _, _, name in names} == {"chosen", "oracle", "fixed 112", "fixed 160", "fixed 224"}
        for i, (x0, y0, one) in enumerate(names):
            assert x0 > 0 and x0 + 6.5 * len(one) < width
            for x1, y1, other in names[:i]:
                apart = abs(y0 - y1) > 11 or x0 + 6.5 * len(one) < x1 or x1 + 6.5 * len(other) < x0
                assert apart, (one, other)


def test_thresholds_stand_at_their_bits():
    for plot in plots_with(PAGE, "image entropy"):
        x = scale(plot, "xtick", "x")
        assert thresholds(plot) == pytest.approx([x(5.8), x(7.0)], abs=0.2)
        assert {"5.80 bits", "7.00 bits"} <= {"".join(data) for _, _, data in plot}


def test_the_bound_of_the_second_look_and_what_lies_above_it():
    for plot in plots_with(PAGE, "first look"):
        x = scale(plot, "xtick", "x")
        assert thresholds(plot) == pytest.approx([x(0.83)], abs=0.2)
        (shade,) = [attrs for tag, attrs, _ in plot if attrs.get("class") == "shade"]
        assert float(shade["x"]) == pytest.approx(x(0.83), abs=0.2)


def test_bars_count_all_images():
    for plot in plots_with(PAGE, "image entropy"):
        y = scale(plot, "ytick", "y")
        heights = [float(attrs["height"]) for _, attrs, _ in plot if attrs.get("class") == "bar"]
        assert sum(heights) == pytest.approx(y(0) - y(100), abs=0.1 * len(heights))


def test_a_threshold_that_no_image_reaches_is_said_not_drawn():
    page = replace(PAGE, thresholds_bits=(6.0, 9.0))
    for plot in plots_with(page, "image entropy"):
        assert thresholds(plot) == pytest.approx([scale(plot, "xtick", "x")(6.0)], abs=0.2)
        assert "9.00" not in str(plot)
    assert "it means always the smaller size" in text_of(page)
    assert "it means always the smaller size" not in text_of(PAGE)


def test_without_a_second_look_there_is_no_doubt():
    page = replace(PAGE, second_look_bits=None)
    assert "first look" not in text_of(page) and len(shapes_of(page).plots) == 4


def test_examples_are_grouped_by_size():
    text = text_of(PAGE)
    order = ["160 pixels: 1 picture", "cat", "a.jpg", "image 6.52 bits", "doubt 0.14 bits"]
    order += ["224 pixels: 2 pictures", "dog", "b.jpg", "cup", "c.jpg", "doubt 2.75 bits"]
    places = [text.index(part, text.index("Examples at each size")) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "page",
    [
        NOTHING,
        replace(NOTHING, table=(Point("fixed 224", 1.0, 89.0, 87.0, 91.0, "fixed"),)),
        replace(
            PAGE, table=tuple(replace(p, time_ratio=1.0, score=100.0, low=100.0, high=100.0) for p in TABLE)
        ),
        replace(NOTHING, table=(Point("fixed 224", 1.0, 0.0, 0.0, 0.0, "fixed"),)),
        replace(PAGE, curves=CURVES[:1]),
        replace(PAGE, curves=tuple(replace(p, time_ratio=0.5) for p in CURVES)),
        replace(PAGE, table=(), thresholds_bits=()),
        replace(PAGE, entropy_bits=(7.0,), thresholds_bits=(7.0,), doubt_bits=(0.0,), second_look_bits=0.0),
        replace(PAGE, entropy_bits=(0.0,) * 3, thresholds_bits=(9.0,), doubt_bits=(2.0,)),
        replace(PAGE, entropy_bits=(8.0,) * 3, thresholds_bits=(8.0,)),
        replace(PAGE, thresholds_bits=(7.0, 7.01, 7.02, 7.03)),
    ],
    ids=[
        "nothing",
        "one size",
        "all equal",
        "zero",
        "one on a curve",
        "one time",
        "no table",
        "one image",
        "black images",
        "noise",
        "thresholds together",
    ],
)
def test_little_to_show_is_shown(page):
    shapes = shapes_of(page)
    assert "nan" not in policy_html(replace(page, examples=())) and page.headline in shapes.text
    assert bool(shapes.plots) == bool(page.table or page.curves or page.entropy_bits)
    numbers = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height")
    for plot in shapes.plots:
        places = [float(attrs[name]) for _, attrs, _ in plot for name in numbers if name in attrs]
        assert all(0.0 <= place <= 860.0 for place in places)


def point(time_ratio: float, score: float) -> Point:
    return Point("fixed", time_ratio, score, score, score, "fixed")


@pytest.mark.parametrize(
    ("fixed", "corners"),
    [
        ([], []),
        ([(1.0, 80.0)], [(1.0, 80.0)]),
        ([(1.0, 90.0), (0.2, 60.0), (0.6, 80.0)], [(0.2, 60.0), (0.6, 80.0), (1.0, 90.0)]),
        ([(0.2, 60.0), (0.6, 70.0), (1.0, 90.0)], [(0.2, 60.0), (1.0, 90.0)]),
        ([(0.2, 60.0), (0.6, 90.0), (1.0, 85.0)], [(0.2, 60.0), (0.6, 90.0), (1.0, 90.0)]),
        ([(0.5, 60.0), (0.5, 70.0)], [(0.5, 70.0)]),
    ],
    ids=["none", "one", "all on the hull", "one under it", "the largest is worse", "equal times"],
)
def test_best_mixes_are_the_upper_hull_that_never_falls(fixed, corners):
    assert best_mixes([point(*pair) for pair in fixed]) == corners


@pytest.mark.parametrize("field", ["time_ratio", "score", "low", "high"])
def test_a_point_is_finite(field):
    with pytest.raises(InputError, match=r"fixed 112.*nan"):
        replace(TABLE[3], **{field: float("nan")})


def test_a_point_is_of_a_known_family():
    with pytest.raises(InputError, match=r"'magic'.*two-look"):
        replace(TABLE[3], family="magic")


@pytest.mark.parametrize(
    "change",
    [
        {"entropy_bits": (7.0, float("nan"))},
        {"thresholds_bits": (float("inf"),)},
        {"doubt_bits": (float("nan"),)},
        {"second_look_bits": float("inf")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_bits_are_finite(change):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(PAGE, **change)
