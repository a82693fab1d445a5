"""The figures of a compression: what is left of the source, and the trainings epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from boardfit.benchmarks.figure import Area, Dot, Figure, Line, Shape, Words, figure, x_axis
from boardfit.benchmarks.plot import Axis, Canvas, axis_over
from boardfit.benchmarks.score_plot import require_finite
from boardfit.errors import InputError

ROW_PX = 40
_BAR_PX = 10
_PANEL_PX = 150
_MOST_DOTS = 40
"""A training of more epochs is drawn as a line alone."""


@dataclass(frozen=True, slots=True)
class Change:
    """One number before and after.

    Attributes:
        name: What it counts.
        before: Of the source, with its unit.
        after: Of the compressed model.
        ratio: After over before.
    """

    name: str
    before: str
    after: str
    ratio: float

    def __post_init__(self) -> None:
        require_finite(self.name, (self.ratio,))


@dataclass(frozen=True, slots=True)
class Panel:
    """One number of a training over its epochs.

    Attributes:
        title: With its unit.
        values: One for each epoch; None where it was not told.
        ink: One of ``figure.INKS``.
        from_zero: Whether its axis begins at 0.
        top: The highest that it can be.
    """

    title: str
    values: tuple[float | None, ...]
    ink: str
    from_zero: bool = True
    top: float = math.inf


@dataclass(frozen=True, slots=True)
class Training:
    """A training.

    Attributes:
        name: Stem of the picture's file.
        title: For people.
        epochs: Numbers, ascending.
        phases: Name of the phase of each.
        panels: What is drawn, one under the other.
    """

    name: str
    title: str
    epochs: tuple[int, ...]
    phases: tuple[str, ...]
    panels: tuple[Panel, ...]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.epochs, self.phases, *(p.values for p in self.panels))}
        if len(lengths) != 1 or not self.epochs or not self.panels:
            raise InputError(f"{self.title}: expected panels, and in each a value for every epoch")


def what_is_left(changes: Sequence[Change]) -> Figure:
    """Return a bar for each number: how much of the source's there still is.

    Args:
        changes: At least one, in the order of their showing.
    """

    def draw(canvas: Canvas) -> list[Shape]:
        ratios = [0.0, 1.0, *(change.ratio for change in changes)]
        ends = {"start": 12.0, "end": float(canvas.right)}
        x = axis_over(ratios, ticks=canvas.ticks_xy[0], top=math.inf, **ends)
        shapes: list[Shape] = [
            Line(((x.px(value), 8.0), (x.px(value), canvas.bottom)), opacity=0.13) for value in x.ticks()
        ]
        shapes.append(Line(((x.px(1.0), 8.0), (x.px(1.0), canvas.bottom)), width=1.5, dashed=True))
        shapes += x_axis(canvas, x, title="share of the source's")
        for index, change in enumerate(changes):
            top = 10.0 + ROW_PX * index
            y, end = top + 20.0, x.px(change.ratio)
            corners = ((x.start, y), (end, y), (end, y + _BAR_PX), (x.start, y + _BAR_PX))
            tip = f"{change.name}: {change.before} to {change.after}"
            shapes.append(Area(corners, "blue" if change.ratio < 1.05 else "orange", opacity=0.8, tip=tip))
            shapes.append(Words((x.start, top + 14.0), f"{change.name}: {change.ratio:.2f}"))
        return shapes

    height = 62 + ROW_PX * len(changes)
    return figure(
        draw,
        name="left",
        title="What is left",
        words="Share of the source's that is left: "
        + "; ".join(f"{change.name} {change.ratio:.2f}" for change in changes),
        heights=(height, height),
    )


def training_curves(training: Training) -> Figure:
    """Return the panels of a training under each other, over the same epochs."""

    def draw(canvas: Canvas) -> list[Shape]:
        ends = {"start": _left(canvas), "end": float(canvas.right)}
        first, last = training.epochs[0], training.epochs[-1]
        x = _whole(axis_over((first, max(last, first + 1)), ticks=canvas.ticks_xy[0], top=math.inf, **ends))
        shapes = x_axis(canvas, x, title="epoch")
        shapes += _phase_marks(canvas, x, training)
        for panel, edges in zip(training.panels, _places(canvas, len(training.panels)), strict=True):
            shapes += _panel(canvas, x, edges, training.epochs, panel)
        return shapes

    parts = [_told(panel) for panel in training.panels]
    height = 80 + _PANEL_PX * len(training.panels)
    return figure(
        draw,
        name=training.name,
        title=training.title,
        words=f"{training.title}, {len(training.epochs)} epochs: {'; '.join(parts)}",
        heights=(height, height),
    )


def _told(panel: Panel) -> str:
    values = [value for value in panel.values if value is not None]
    return f"{panel.title} {values[0]:.4g} to {values[-1]:.4g}" if values else f"{panel.title} not told"


def _whole(x: Axis) -> Axis:
    """Return an axis whose ticks are whole numbers: there is no half epoch."""
    if x.step >= 1.0:
        return x
    return Axis(low=math.floor(x.low), high=math.ceil(x.high), step=1.0, start=x.start, end=x.end)


def _places(canvas: Canvas, count: int) -> Iterator[tuple[float, float]]:
    """Yield the upper and lower pixel of each panel; a title fits above each."""
    room = (canvas.bottom - canvas.top) / count
    for i in range(count):
        yield canvas.top + room * i + 30.0, canvas.top + room * (i + 1) - 6.0


def _phase_marks(canvas: Canvas, x: Axis, training: Training) -> list[Shape]:
    """Return a broken line wherever a phase begins, with its name."""
    if len(set(training.phases)) == 1:
        return []
    shapes: list[Shape] = [Words((x.px(training.epochs[0]), canvas.top), training.phases[0], opacity=0.75)]
    steps = pairwise(zip(training.epochs, training.phases, strict=True))
    for (one, before), (two, phase) in steps:
        if phase != before:
            at = x.px((one + two) / 2.0)
            shapes.append(Line(((at, canvas.top), (at, canvas.bottom)), opacity=0.35, dashed=True))
            shapes.append(Words((at + 4.0, canvas.top), phase, opacity=0.75))
    return shapes


def _panel(
    canvas: Canvas, x: Axis, edges: tuple[float, float], epochs: Sequence[int], panel: Panel
) -> list[Shape]:
    told = [(e, v) for e, v in zip(epochs, panel.values, strict=True) if v is not None]
    title = Words((4.0, edges[0] - 15.0), panel.title)
    if not told:
        return [title]
    values = [value for _, value in told]
    shown = (0.0, *values) if panel.from_zero else values
    y = axis_over(shown, start=edges[1], end=edges[0], ticks=4, top=panel.top)
    points = tuple((x.px(epoch), y.px(value)) for epoch, value in told)
    shapes: list[Shape] = [*_grid(canvas, y), title, Line(points, panel.ink, width=2.0)]
    if len(points) <= _MOST_DOTS:
        shapes += [
            Dot(at, 3.0, panel.ink, tip=f"epoch {epoch}: {value:.4g}")
            for at, (epoch, value) in zip(points, told, strict=True)
        ]
    return shapes


def _left(canvas: Canvas) -> float:
    """Return where the panels begin: numbers such as 100.0 stand to the left of it."""
    return canvas.left + 14.0


def _grid(canvas: Canvas, y: Axis) -> Iterator[Shape]:
    """Yield a line across and a number for each tick."""
    for value in y.ticks():
        at, left = y.px(value), _left(canvas)
        yield Line(((left, at), (canvas.right, at)), opacity=0.13)
        yield Words((left - 6.0, at + 4.0), y.text(value), anchor="end", opacity=0.75)
