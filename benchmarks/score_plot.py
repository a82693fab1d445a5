"""The plot of score over time, for policies: marks, curves with intervals, the line of best mixes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from boardfit.benchmarks.plot import (
    Axis,
    Canvas,
    axes,
    axis_over,
    draw_twice,
    line,
    path,
    place_labels,
    text,
)
from boardfit.errors import InputError

FAMILIES = {
    "fixed": "one fixed size",
    "mix": "best mix of two fixed sizes",
    "random": "sizes at random",
    "entropy": "image entropy chooses",
    "two-look": "a second look where the first is in doubt",
    "three-look": "a third look where the second is, too",
    "oracle": "oracle",
    "chosen": "chosen",
}
"""Each family of policies, in words."""

STYLE = """
.fixed, .key { color: CanvasText; } .mix { color: #6b7280; } .random { color: #8b5a9f; }
.entropy { color: #c2620e; } .two-look { color: #2a6f97; } .three-look { color: #0b8a83; }
.oracle { color: #2f7d4a; }
.chosen { color: #c1121f; }
@media (prefers-color-scheme: dark) {
  .mix { color: #9ca3af; } .random { color: #c79bdb; } .entropy { color: #f0964a; }
  .two-look { color: #6bb6e0; } .three-look { color: #4fcfc4; } .oracle { color: #6cc48a; }
  .chosen { color: #ff6b6b; } }
svg .band { fill: currentColor; opacity: .13; }
svg .curve { fill: none; stroke: currentColor; stroke-width: 2; }
svg .mixes { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .whisker { stroke: currentColor; stroke-width: 1.3; opacity: .7; }
svg .solid { fill: currentColor; } svg .hollow { fill: Canvas; stroke: currentColor; stroke-width: 2; }
svg .cross { fill: none; stroke: currentColor; stroke-width: 2; }
svg .chosen .solid { stroke: Canvas; stroke-width: 1.5; } svg .chosen text { font-weight: 700; }
.legend { list-style: none; margin: .5rem 0 0; padding: 0; display: grid; gap: .2rem 1.5rem; font-size: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); max-width: 54rem; }
.legend li { display: flex; gap: .5rem; align-items: start; line-height: 1.35; }
.legend svg { flex: none; width: 30px; height: 18px; }
"""

_CURVES = ("random", "entropy", "two-look", "three-look")


@dataclass(frozen=True, slots=True)
class Point:
    """One policy, measured.

    Attributes:
        name: What it is, for people.
        time_ratio: Its time over the largest size's.
        score: In per cent; see ``PolicyPage.score_name``.
        low: Lower end of the 95 % interval of ``score``.
        high: Upper end.
        family: One of FAMILIES.
    """

    name: str
    time_ratio: float
    score: float
    low: float
    high: float
    family: str

    def __post_init__(self) -> None:
        require_finite(f"policy {self.name!r}", (self.time_ratio, self.score, self.low, self.high))
        if self.family not in FAMILIES:
            raise InputError(
                f"policy {self.name!r} is of the family {self.family!r}: expected one of "
                f"{', '.join(FAMILIES)}"
            )


def score_plot(table: Sequence[Point], curves: Sequence[Point], *, score_name: str) -> str:
    """Return score over time with its legend.

    Args:
        table: Points with a mark of their own.
        curves: Points that make one curve per family; fixed sizes, oracles and chosen ones among them get
            marks, and those of ``mix`` are the line of best mixes, which is else drawn from the fixed sizes.
        score_name: Title of the axis; plain text.
    """
    marked = _marked(table, curves)
    points = [*table, *curves]

    def draw(canvas: Canvas) -> str:
        times = (1.0, *(p.time_ratio for p in points))
        x = axis_over(times, start=canvas.left, end=canvas.right, ticks=canvas.ticks_xy[0], top=math.inf)
        scores = [value for p in points for value in (p.low, p.score, p.high)]
        y = axis_over(scores, start=canvas.bottom, end=canvas.top, ticks=canvas.ticks_xy[1], top=100.0)
        mixes = _mixes(marked, curves)
        return "\n".join(
            [
                axes(canvas, x, y, x_title="time / largest size's time", y_title=score_name),
                *(_curve(of_family(curves, family), family, x, y) for family in _CURVES),
                _mix_line(mixes, x, y),
                *(_mark(point, x, y) for point in marked),
                _names(marked, [*(_pairs(of_family(curves, f)) for f in _CURVES), mixes], canvas, x, y),
            ]
        )

    words = f"{score_name} over time as a fraction of the largest size's. " + "; ".join(
        f"{p.name}: {p.score:.1f} at {p.time_ratio:.2f}" for p in marked
    )
    return f"{draw_twice(draw, words=words, height=480)}\n{_legend(marked, curves)}"


def of_family(points: Iterable[Point], family: str) -> list[Point]:
    """Return the points of a family by time, each once."""
    members = {p for p in points if p.family == family}
    return sorted(members, key=lambda p: (p.time_ratio, p.score, p.name))


def _marked(table: Iterable[Point], curves: Iterable[Point]) -> list[Point]:
    """Return the points with a mark of their own; the chosen ones last, on top of the others."""
    alone = [p for p in curves if p.family in ("fixed", "oracle", "chosen")]
    order = list(FAMILIES)
    return sorted({*table, *alone}, key=lambda p: (order.index(p.family), p.time_ratio, p.name))


def _curve(points: Sequence[Point], family: str, x: Axis, y: Axis) -> str:
    if not points:
        return ""
    lower = [(x.px(p.time_ratio), y.px(p.low)) for p in points]
    upper = [(x.px(p.time_ratio), y.px(p.high)) for p in points]
    middle = [(x.px(p.time_ratio), y.px(p.score)) for p in points]
    if points[0].time_ratio < points[-1].time_ratio:
        shapes = [path([*upper, *reversed(lower)], css="band", closed=True), path(middle, css="curve")]
    else:
        shapes = [line(low, high, css="whisker") for low, high in zip(lower, upper, strict=True)]
    for point, (px, py) in zip(points, middle, strict=True):
        shapes.append(f'<circle class="solid" cx="{px:.1f}" cy="{py:.1f}" r="2.6">{_tip(point)}</circle>')
    return f'<g class="{family}">{"".join(shapes)}</g>'


def _mixes(marked: Sequence[Point], curves: Sequence[Point]) -> list[tuple[float, float]]:
    """Return the corners (time_ratio, score) of the line of best mixes; less than two where there is none."""
    given = _pairs(of_family(curves, "mix"))
    return given if len(given) > 1 else best_mixes(of_family(marked, "fixed"))


def _mix_line(corners: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    if len(corners) < 2:
        return ""
    return f'<g class="mix">{path([(x.px(t), y.px(s)) for t, s in corners], css="mixes")}</g>'


def _pairs(points: Iterable[Point]) -> list[tuple[float, float]]:
    return [(p.time_ratio, p.score) for p in points]


def best_mixes(fixed: Sequence[Point]) -> list[tuple[float, float]]:
    """Return the corners (time_ratio, score) of the line of best mixes, by time.

    A mix runs one size on a random share of the images and another on the rest: it lies on the straight
    line between the two, and the best of them on the upper hull of all. It never falls: whoever may take
    longer need not.

    Args:
        fixed: The fixed sizes, in any order.
    """
    hull: list[tuple[float, float]] = []
    for t, s in sorted({(p.time_ratio, p.score) for p in fixed}):
        if hull and s <= hull[-1][1]:
            continue
        if hull and t == hull[-1][0]:
            hull.pop()
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], (t, s)):
            hull.pop()
        hull.append((t, s))
    latest = max((p.time_ratio for p in fixed), default=0.0)
    if hull and latest > hull[-1][0]:
        hull.append((latest, hull[-1][1]))
    return hull


def _turns_up(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> bool:
    return (two[1] - one[1]) * (three[0] - one[0]) <= (three[1] - one[1]) * (two[0] - one[0])


def _mark(point: Point, x: Axis, y: Axis) -> str:
    px = x.px(point.time_ratio)
    whisker = ""
    if point.high > point.low:
        whisker = line((px, y.px(point.low)), (px, y.px(point.high)), css="whisker")
    mark = _shape(point.family, px, y.px(point.score), _tip(point))
    return f'<g class="{point.family}">{whisker}{mark}</g>'


def _shape(family: str, x: float, y: float, tip: str = "") -> str:
    """Return the mark of a family at a pixel."""
    if family in ("fixed", "oracle"):
        css, radius = ("solid", 5.0) if family == "fixed" else ("hollow", 6.0)
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{tip}</circle>'
    css, steps = {
        "mix": ("cross", "m-6,0 h12 m-6,-6 v12"),
        "random": ("cross", "m-5,-5 l10,10 m0,-10 l-10,10"),
        "entropy": ("hollow", "m-5,-5 h10 v10 h-10 z"),
        "two-look": ("hollow", "m0,-6 l6,10 h-12 z"),
        "three-look": ("hollow", "m0,6 l6,-10 h-12 z"),
        "chosen": ("solid", "m0,-10 l9,10 l-9,10 l-9,-10 z"),
    }[family]
    return f'<path class="{css}" d="M{x:.1f},{y:.1f} {steps}">{tip}</path>'


def _tip(point: Point) -> str:
    return f"<title>{escape(f'{point.name}: {point.score:.1f} at {point.time_ratio:.2f}')}</title>"


def _names(
    marked: Sequence[Point],
    lines: Iterable[Sequence[tuple[float, float]]],
    canvas: Canvas,
    x: Axis,
    y: Axis,
) -> str:
    """Return the labels of the points that are named in the plot; the legend names the others."""
    centres = [(x.px(p.time_ratio), y.px(p.score)) for p in marked]
    taken = [(px + dx, py + dy) for px, py in centres for dx in (-6, 0, 6) for dy in (-6, 0, 6)]
    for corners in lines:
        taken += _along([(x.px(t), y.px(s)) for t, s in corners])
    named = [p for p in reversed(marked) if p.family in ("fixed", "oracle", "chosen")]
    words = [p.name if p.family == "fixed" else FAMILIES[p.family] for p in named]
    labels = [(x.px(p.time_ratio), y.px(p.score), word) for p, word in zip(named, words, strict=True)]
    return "\n".join(
        f'<g class="{p.family}">{text(at, word, css="halo")}</g>'
        for p, at, word in zip(named, place_labels(canvas, labels, taken), words, strict=True)
    )


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return pixels on a line through corners, close enough for labels to keep clear of it."""
    return [
        (x0 + (x1 - x0) * i / 12, y0 + (y1 - y0) * i / 12)
        for (x0, y0), (x1, y1) in pairwise(corners)
        for i in range(13)
    ]


def _legend(marked: Sequence[Point], curves: Sequence[Point]) -> str:
    items = [(p.family, _shape(p.family, 15, 9), p.name) for p in reversed(marked) if p.family != "fixed"]
    if any(p.family == "fixed" for p in marked):
        items.append(("fixed", _shape("fixed", 15, 9), FAMILIES["fixed"]))
    if len(_mixes(marked, curves)) > 1:
        items.append(("mix", line((0, 9), (30, 9), css="mixes"), "best mixes of two fixed sizes"))
    sample = '<rect class="band" width="30" height="18"/>' + line((0, 9), (30, 9), css="curve")
    items += [(family, sample, FAMILIES[family]) for family in _CURVES if of_family(curves, family)]
    rows = "\n".join(
        f'<li><svg class="{family}" viewBox="0 0 30 18" aria-hidden="true">{shape}</svg>'
        f"<span>{escape(words)}</span></li>"
        for family, shape, words in items
    )
    return f'<ul class="legend">\n{rows}\n</ul>'


def require_finite(what: str, values: Iterable[float]) -> None:
    """Raise InputError if a number is not finite."""
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"{what} holds {value}: expected finite numbers; measure it again")
