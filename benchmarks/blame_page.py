"""The noise of each layer of quantized artifacts, as one page of HTML that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from boardfit.benchmarks import plot
from boardfit.benchmarks.page import document, table
from boardfit.errors import InputError

NAMED = 5
"""So many of the noisiest layers are named in the plot."""

_STYLE = """
svg .noise { color: #2a6f97; } svg .float { color: #6b7280; }
@media (prefers-color-scheme: dark) { svg .noise { color: #6bb6e0; } svg .float { color: #9ca3af; } }
svg .noise circle { fill: currentColor; } svg .float circle { fill: Canvas; stroke: currentColor; }
svg .curve { fill: none; stroke: currentColor; opacity: .35; }
"""


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """One layer.

    Attributes:
        name: The format's own.
        kind: ``conv`` and the like.
        sqnr_db: Signal-to-quantisation-noise ratio of its output.
        integer: Whether it runs in integers.
    """

    name: str
    kind: str
    sqnr_db: float
    integer: bool


@dataclass(frozen=True, slots=True)
class NoiseOf:
    """One artifact: its name, its gate's verdict in words, its layers in the order of the format."""

    title: str
    summary: str
    layers: tuple[LayerNoise, ...]


def blame_html(title: str, parts: Sequence[NoiseOf]) -> str:
    """Return the page.

    Args:
        title: Of the page; plain text.
        parts: The artifacts.

    Raises:
        InputError: There is nothing to show.
    """
    if not any(part.layers for part in parts):
        raise InputError("no layer was measured: there is nothing to plot")
    return document(
        [_section(part) for part in parts if part.layers],
        title=title,
        headline="Each dot is a layer, from the input to the output: how loud the signal of its output is "
        "over the error that quantisation put on it. Hollow dots compute in float.",
        style=plot.STYLE + _STYLE,
    )


def noise_plot(part: NoiseOf) -> str:
    """Return the plot of one artifact as inline SVG; the noisiest layers are named."""
    worst = sorted(range(len(part.layers)), key=lambda i: part.layers[i].sqnr_db)[:NAMED]

    def draw(canvas: plot.Canvas) -> str:
        ratios = [layer.sqnr_db for layer in part.layers]
        x = plot.axis_over(
            (0.0, max(1.0, len(ratios))),
            start=canvas.left,
            end=canvas.right,
            ticks=canvas.ticks_xy[0],
            top=float("inf"),
        )
        y = plot.axis_over(
            ratios, start=canvas.bottom, end=canvas.top, ticks=canvas.ticks_xy[1], top=float("inf")
        )
        points = [(x.px(i + 1), y.px(ratio)) for i, ratio in enumerate(ratios)]
        dots = [_dot(at, layer) for at, layer in zip(points, part.layers, strict=True)]
        labels = [(*points[i], part.layers[i].name) for i in worst]
        places = plot.place_labels(canvas, labels, points)
        names = [plot.text(at, label[2], css="halo") for at, label in zip(places, labels, strict=True)]
        grid = plot.axes(canvas, x, y, x_title="layer", y_title="SQNR, dB")
        return "\n".join([grid, plot.path(points, css="curve"), *dots, *names])

    noisiest = part.layers[worst[0]]
    words = (
        f"{part.title}: {len(part.layers)} layers, {noisiest.name} the noisiest at {noisiest.sqnr_db:.1f} dB"
    )
    return plot.draw_twice(draw, words=words, height=320)


def _section(part: NoiseOf) -> str:
    rows = [
        (layer.name, layer.kind, "int8" if layer.integer else "float", f"{layer.sqnr_db:.1f}")
        for layer in sorted(part.layers, key=lambda layer: layer.sqnr_db)
    ]
    cells = table(("layer", "kind", "runs in", "SQNR, dB"), rows, left=(0, 1, 2))
    return (
        f"<section><h2>{escape(part.title)}</h2>\n<p>{escape(part.summary)}</p>\n{noise_plot(part)}\n"
        f"<details><summary>All {len(rows)} layers</summary>{cells}</details></section>"
    )


def _dot(at: tuple[float, float], layer: LayerNoise) -> str:
    css = "noise" if layer.integer else "float"
    name = escape(f"{layer.name}: {layer.sqnr_db:.1f} dB")
    return (
        f'<g class="{css}"><circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4"><title>{name}</title></circle></g>'
    )
