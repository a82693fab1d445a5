"""Figures as plain shapes in pixels: a page shows them as SVG, the door paints the same shapes as PNG.

Every figure is drawn twice, for a desk and for a phone, as in ``plot``; the PNG is the desk's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from boardfit.benchmarks import plot
from boardfit.benchmarks.plot import Axis, Canvas

INKS = {
    "text": ("#1b1f24", "#e6e8eb"),
    "grey": ("#6b7280", "#9ca3af"),
    "blue": ("#2a6f97", "#6bb6e0"),
    "orange": ("#c2620e", "#f0964a"),
    "green": ("#2f7d4a", "#6cc48a"),
    "purple": ("#8b5a9f", "#c79bdb"),
    "teal": ("#0b8a83", "#4fcfc4"),
    "red": ("#c1121f", "#ff6b6b"),
}
"""Colours by name, on light and on dark ground."""

SERIES = ("blue", "orange", "green", "purple", "teal", "red")
"""Inks of things that stand side by side, in their order; red last, since it also means a fault."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A line through pixels."""

    points: tuple[Point, ...]
    ink: str = "text"
    width: float = 1.0
    opacity: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon; ``tip`` is shown under the pointer."""

    points: tuple[Point, ...]
    ink: str
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A disc, or a ring if ``hollow``; ``tip`` is shown under the pointer."""

    at: Point
    radius: float
    ink: str
    hollow: bool = False
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text; ``at`` is on its base line, at the end that ``anchor`` names.

    Attributes:
        at: Pixel.
        words: Plain text.
        ink: One of INKS.
        anchor: ``start``, ``middle`` or ``end``.
        bold: Whether it stands out.
        opacity: 0 to 1.
    """

    at: Point
    words: str
    ink: str = "text"
    anchor: str = "start"
    bold: bool = False
    opacity: float = 1.0


Shape = Line | Area | Dot | Words


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a canvas; later ones lie on top."""

    canvas: Canvas
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure for a page and for a file.

    Attributes:
        name: Stem of the file.
        title: For people.
        words: Text alternative: what it shows, in a sentence.
        wide: For a desk, and for the PNG.
        narrow: For a phone.
    """

    name: str
    title: str
    words: str
    wide: Drawing
    narrow: Drawing


def figure(
    draw: Callable[[Canvas], Sequence[Shape]],
    *,
    name: str,
    title: str,
    words: str,
    heights: tuple[int, int] = (300, 260),
) -> Figure:
    """Draw a figure for a desk and for a phone.

    Args:
        draw: Returns the shapes for a canvas.
        name: Stem of the file.
        title: For people.
        words: Text alternative.
        heights: Pixels on a desk and on a phone.
    """
    wide = Canvas(css="wide", width=860, height=heights[0], ticks_xy=(10, 6))
    narrow = Canvas(css="narrow", width=350, height=heights[1], ticks_xy=(5, 5))
    drawings = [Drawing(canvas, tuple(draw(canvas))) for canvas in (wide, narrow)]
    return Figure(name, title, words, *drawings)


def svg(shown: Figure) -> str:
    """Return both drawings as inline SVG; the page's style shows one of them."""
    return "\n".join(
        f'<svg class="{each.canvas.css}" viewBox="0 0 {each.canvas.width} {each.canvas.height}" role="img" '
        f'aria-label="{escape(shown.words)}">\n' + "\n".join(map(_element, each.shapes)) + "\n</svg>"
        for each in (shown.wide, shown.narrow)
    )


def style() -> str:
    """Return the CSS that figures need."""

    def inks(index: int) -> str:
        return "\n".join(
            f"svg .{name}, .key.{name} {{ color: {pair[index]}; }}" for name, pair in INKS.items()
        )

    dark = f"@media (prefers-color-scheme: dark) {{ {inks(1)} }}"
    return f"{plot.STYLE}{inks(0)}\n{dark}\nsvg .over {{ paint-order: stroke; stroke: Canvas; }}\n"


def axes(canvas: Canvas, x: Axis, y: Axis, *, x_title: str, y_title: str) -> list[Shape]:
    """Return grid, ticks with their numbers, and both titles."""
    return [*y_grid(canvas, y), *x_axis(canvas, x, title=x_title), Words((4, 14), y_title)]


def y_grid(canvas: Canvas, y: Axis) -> list[Shape]:
    """Return a line across and a number for each tick."""
    shapes: list[Shape] = []
    for value in y.ticks():
        at = y.px(value)
        shapes.append(Line(((canvas.left, at), (canvas.right, at)), opacity=0.13))
        shapes.append(Words((canvas.left - 6, at + 4), y.text(value), anchor="end", opacity=0.75))
    return shapes


def x_axis(canvas: Canvas, x: Axis, *, title: str) -> list[Shape]:
    """Return the lower axis alone, with its title."""
    base = canvas.bottom
    shapes: list[Shape] = [Line(((x.start, base), (x.end, base)), opacity=0.6)]
    for value in x.ticks():
        at = x.px(value)
        shapes.append(Line(((at, base), (at, base + 5)), opacity=0.6))
        shapes.append(Words((at, base + 18), x.text(value), anchor="middle", opacity=0.75))
    middle = (canvas.left + canvas.right) / 2
    return [*shapes, Words((middle, canvas.height - 5), title, anchor="middle")]


def _element(shape: Shape) -> str:
    if isinstance(shape, Line):
        dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return (
            f'<polyline class="{shape.ink}" fill="none" stroke="currentColor" stroke-width="{shape.width:g}" '
            f'points="{_pairs(shape.points)}" opacity="{shape.opacity:g}"{dash}/>'
        )
    if isinstance(shape, Area):
        return (
            f'<polygon class="{shape.ink}" fill="currentColor" points="{_pairs(shape.points)}" '
            f'opacity="{shape.opacity:g}">{_tip(shape.tip)}</polygon>'
        )
    if isinstance(shape, Dot):
        fill = (
            'fill="Canvas" stroke="currentColor" stroke-width="2"'
            if shape.hollow
            else ('fill="currentColor"')
        )
        return (
            f'<circle class="{shape.ink}" {fill} cx="{shape.at[0]:.1f}" cy="{shape.at[1]:.1f}" '
            f'r="{shape.radius:g}">{_tip(shape.tip)}</circle>'
        )
    weight = ' font-weight="700"' if shape.bold else ""
    return (
        f'<text class="{shape.ink} over" stroke-width="3" x="{shape.at[0]:.1f}" y="{shape.at[1]:.1f}" '
        f'text-anchor="{shape.anchor}" opacity="{shape.opacity:g}"{weight}>{escape(shape.words)}</text>'
    )


def _pairs(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _tip(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""
