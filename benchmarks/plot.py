"""Small plots as inline SVG: axes, labels that keep clear of each other, marks, histograms.

Everything is drawn twice, for a desk and for a phone, and CSS shows one: an SVG that shrinks with the page
takes its letters along. Colours come from the page: a class sets ``color``, shapes use ``currentColor``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

STYLE = """
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; }
svg.wide { max-width: 860px; } svg.narrow { display: none; max-width: 28rem; font-size: 12px; }
@media (max-width: 44rem) { svg.wide { display: none; } svg.narrow { display: block; } }
svg text { fill: currentColor; }
svg .halo { stroke: Canvas; stroke-width: 3px; stroke-linejoin: round; paint-order: stroke; }
svg .faint { opacity: .72; } svg .grid { stroke: currentColor; opacity: .13; }
svg .axis { stroke: currentColor; opacity: .6; }
svg .bar { fill: var(--bar); } svg .threshold { stroke: currentColor; stroke-width: 1.5; }
svg .shade { fill: #c2620e; opacity: .14; }
"""

LETTER_PX = 7.5
LINE_PX = 16.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers along a line of pixels; its ends are ticks.

    Attributes:
        low: Number at ``start``.
        high: Number at ``end``; more than ``low``.
        step: Between two ticks.
        start: Pixel.
        end: Pixel; less than ``start`` for an axis that runs upwards.
    """

    low: float
    high: float
    step: float
    start: float
    end: float

    def px(self, value: float) -> float:
        """Return the pixel of a number."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[float, ...]:
        """Return the numbers that are marked, ascending."""
        first, last = round(self.low / self.step), round(self.high / self.step)
        return tuple(self.step * i for i in range(first, last + 1))

    def text(self, value: float) -> str:
        """Return a number with as many decimals as the step needs."""
        return f"{value:.{max(0, -math.floor(math.log10(self.step) + 1e-9))}f}"


def axis_over(values: Iterable[float], *, start: float, end: float, ticks: int, top: float) -> Axis:
    """Return an axis with round ends around some numbers.

    Args:
        values: At least one finite number.
        start: Pixel of the low end.
        end: Pixel of the high end.
        ticks: About how many steps there may be.
        top: No number can be higher: the axis ends there at the latest, unless one is.
    """
    numbers = list(values)
    low, high = min(numbers), max(numbers)
    if high - low < 1e-9 * max(1.0, abs(high)):
        room = 0.05 * max(1.0, abs(high))
        low, high = low - room, max(high, min(high + room, top))
    step = _round_step((high - low) / ticks)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return Axis(low=first * step, high=last * step, step=step, start=start, end=end)


@dataclass(frozen=True, slots=True)
class Canvas:
    """One of the two drawings of a plot.

    Attributes:
        css: ``wide`` or ``narrow``.
        width: Pixels.
        height: Pixels.
        ticks_xy: About how many steps each axis may have.
    """

    css: str
    width: int
    height: int
    ticks_xy: tuple[int, int]

    @property
    def left(self) -> int:
        """Pixel where the plotted area begins."""
        return 40

    @property
    def right(self) -> int:
        """Pixel where it ends."""
        return self.width - 20

    @property
    def top(self) -> int:
        """Pixel of its upper edge; a title fits above."""
        return 30

    @property
    def bottom(self) -> int:
        """Pixel of its lower edge; ticks and a title fit below."""
        return self.height - 42


def draw_twice(draw: Callable[[Canvas], str], *, words: str, height: int) -> str:
    """Return a plot for a desk and for a phone.

    Args:
        draw: Returns the shapes for a canvas.
        words: Text alternative; plain text.
        height: Pixels on a desk.
    """
    canvases = (
        Canvas(css="wide", width=860, height=height, ticks_xy=(10, 8)),
        Canvas(css="narrow", width=350, height=min(height, 340), ticks_xy=(5, 6)),
    )
    return "\n".join(
        f'<svg class="{canvas.css}" viewBox="0 0 {canvas.width} {canvas.height}" role="img" '
        f'aria-label="{escape(words)}">\n<title>{escape(words)}</title>\n{draw(canvas)}\n</svg>'
        for canvas in canvases
    )


def axes(canvas: Canvas, x: Axis, y: Axis, *, x_title: str, y_title: str) -> str:
    """Return grid, ticks with their numbers, and both titles; plain texts."""
    parts = []
    for value in y.ticks():
        at = y.px(value)
        parts.append(line((canvas.left, at), (canvas.right, at), css="grid"))
        parts.append(text((canvas.left - 6, at + 4), y.text(value), anchor="end", css="faint ytick"))
    for value in x.ticks():
        at = x.px(value)
        parts.append(line((at, canvas.bottom), (at, canvas.bottom + 5), css="axis"))
        parts.append(text((at, canvas.bottom + 18), x.text(value), anchor="middle", css="faint xtick"))
    parts.append(line((canvas.left, canvas.bottom), (canvas.right, canvas.bottom), css="axis"))
    middle = (canvas.left + canvas.right) / 2
    parts.append(text((middle, canvas.height - 5), x_title, anchor="middle"))
    parts.append(text((4, 14), y_title))
    return "\n".join(parts)


def line(start: tuple[float, float], end: tuple[float, float], *, css: str) -> str:
    """Return a straight line between two pixels."""
    return (
        f'<line class="{css}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
    )


def text(at: tuple[float, float], words: str, *, anchor: str = "start", css: str = "") -> str:
    """Return plain text at a pixel on its base line."""
    marked = f' class="{css}"' if css else ""
    return f'<text{marked} x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def path(points: Sequence[tuple[float, float]], *, css: str, closed: bool = False) -> str:
    """Return a line, or an area, through pixels."""
    steps = " L".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return f'<path class="{css}" d="M{steps}{" Z" if closed else ""}"/>'


def place_labels(
    canvas: Canvas, labels: Sequence[tuple[float, float, str]], taken: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Return where each label's text begins (left end of its base line), clear of the others.

    Args:
        canvas: Labels stay inside its plotted area; to the right of it there is a little room.
        labels: (x, y, text) of the points that are named, in the order of their importance.
        taken: Pixels that a label should not cover: marks, curves.
    """
    boxes: list[tuple[float, float, float, float]] = []
    places = []
    for x, y, words in labels:
        width = LETTER_PX * len(words)
        spots = list(_spots(x, y, width))

        def cost(rank: int, spots: list[tuple[float, float]] = spots, width: float = width) -> float:
            left, base = spots[rank]
            box = (left, base - LINE_PX + 4, left + width, base + 4)
            out = max(0.0, canvas.left - box[0], box[2] - canvas.width)
            out += max(0.0, canvas.top - box[1], box[3] - canvas.bottom)
            hidden = sum(box[0] < px < box[2] and box[1] < py < box[3] for px, py in taken)
            return 1e4 * out + 1000.0 * sum(_overlap(box, other) for other in boxes) + 6.0 * hidden + rank

        left, base = spots[min(range(len(spots)), key=cost)]
        boxes.append((left, base - LINE_PX + 4, left + width, base + 4))
        places.append((left, base))
    return places


def histogram(
    values: Sequence[float],
    *,
    bounds: Sequence[float],
    x_title: str,
    words: str,
    shade_above: bool = False,
    most: float = math.inf,
) -> str:
    """Return a histogram of bits with bounds as vertical lines.

    Args:
        values: At least one finite number of bits, not negative.
        bounds: Where the lines stand, in bits; each is named.
        x_title: Title of the axis; plain text.
        words: Text alternative; plain text.
        shade_above: Whether the area above the last bound is tinted.
        most: No value can be higher; the axis ends there.
    """

    def draw(canvas: Canvas) -> str:
        x = axis_over(
            (*values, *bounds), start=canvas.left, end=canvas.right, ticks=canvas.ticks_xy[0], top=most
        )
        edges, counts = _bins(values, x)
        shares = [100.0 * count / len(values) for count in counts]
        # Room above the bars for the names of the bounds.
        highest = min(100.0, 1.25 * max(shares))
        y = axis_over((0.0, highest), start=canvas.bottom, end=canvas.top, ticks=4, top=100.0)
        parts = [axes(canvas, x, y, x_title=x_title, y_title="images, %")]
        if shade_above and bounds:
            parts.append(_shade(canvas, x.px(bounds[-1])))
        bins = list(zip(pairwise(edges), shares, strict=True))
        parts += [_bar(x, y, low, high, share) for (low, high), share in bins]
        tops = [(x.px((low + high) / 2), y.px(share) + 4.0) for (low, high), share in bins]
        return "\n".join([*parts, _bounds(canvas, x, bounds, tops)])

    return draw_twice(draw, words=words, height=260)


def _bounds(canvas: Canvas, x: Axis, bounds: Sequence[float], bars: Sequence[tuple[float, float]]) -> str:
    lines = [line((x.px(b), canvas.top), (x.px(b), canvas.bottom), css="threshold") for b in bounds]
    names = [(x.px(b), canvas.top + 10.0, f"{b:.2f} bits") for b in bounds]
    on_lines = [(x.px(b), canvas.top + 8.0 * i) for b in bounds for i in range(12)]
    places = place_labels(canvas, names, [*on_lines, *bars])
    named = [text(at, name[2], css="halo") for at, name in zip(places, names, strict=True)]
    return "\n".join(lines + named)


def _bins(values: Sequence[float], x: Axis) -> tuple[list[float], list[int]]:
    """Return the edges of the bins and how many values each holds; each tick is an edge."""
    steps = len(x.ticks()) - 1
    per_tick = max(times for times in (1, 2, 5, 10, 20) if times == 1 or times * steps <= 45)
    count = per_tick * steps
    width = (x.high - x.low) / count
    counts = [0] * count
    for value in values:
        counts[min(count - 1, max(0, math.floor((value - x.low) / width + 1e-9)))] += 1
    return [x.low + width * i for i in range(count + 1)], counts


def _shade(canvas: Canvas, start: float) -> str:
    return (
        f'<rect class="shade" x="{start:.1f}" y="{canvas.top}" '
        f'width="{canvas.right - start:.1f}" height="{canvas.bottom - canvas.top}"/>'
    )


def _bar(x: Axis, y: Axis, low: float, high: float, share: float) -> str:
    left, right, top = x.px(low) + 0.5, x.px(high) - 0.5, y.px(share)
    name = escape(f"{low:.2f} to {high:.2f} bits: {share:.1f} %")
    return (
        f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" '
        f'height="{y.start - top:.1f}"><title>{name}</title></rect>'
    )


def _spots(x: float, y: float, width: float) -> Iterable[tuple[float, float]]:
    """Yield places around a point, the best first; then farther out."""
    for away in range(7):
        below, above = y + LINE_PX * (away + 1), y - LINE_PX * (away + 0.5)
        yield from ((x + 9, below), (x - 9 - width, above), (x + 9, above + 12), (x - 9 - width, below - 12))
        yield from ((x - width / 2, above - 4), (x - width / 2, below + 6), (x + 14 - width, below + 6))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Return the common area of two boxes in square pixels, a little air around them included."""
    wide = min(one[2], other[2]) - max(one[0], other[0]) + 6.0
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _round_step(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least as large."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(times * power for times in (1.0, 2.0, 5.0, 10.0) if times * power >= step * (1 - 1e-9))
