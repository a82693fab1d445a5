"""The figures of a benchmark: latencies side by side, one distribution, heat and clock, accuracy for time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from boardfit.benchmarks.figure import (
    Area,
    Dot,
    Figure,
    Line,
    Shape,
    Words,
    axes,
    figure,
    x_axis,
    y_grid,
)
from boardfit.benchmarks.plot import LINE_PX, Axis, Canvas, axis_over, place_labels
from boardfit.benchmarks.ratios import wilson
from boardfit.benchmarks.records import Run
from boardfit.boards.records import Snapshot
from boardfit.timing import percentile

ROW_PX = 46


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One configuration in the figure of latencies.

    Attributes:
        label: For people.
        p50_s: Median.
        p90_s: 90th percentile.
        p99_s: 99th percentile.
        ink: Of its board.
        board: Name of the board where there are several; else empty.
        published: (who, seconds) of others' numbers for the same.
    """

    label: str
    p50_s: float
    p90_s: float
    p99_s: float
    ink: str
    board: str = ""
    published: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """Board and label."""
        return f"{self.board}: {self.label}" if self.board else self.label


@dataclass(frozen=True, slots=True)
class Judged:
    """One configuration in the figure of accuracy over time.

    Attributes:
        label: For people.
        p50_s: Median latency in seconds.
        top1: Share of right answers, 0 to 1.
        images: How many were judged.
        ink: Of its board.
    """

    label: str
    p50_s: float
    top1: float
    images: int
    ink: str


def latencies(rows: Sequence[LatencyRow]) -> Figure:
    """Return p50, p90 and p99 of each configuration, one row each.

    Args:
        rows: At least one, in the order of their showing.
    """

    def draw(canvas: Canvas) -> list[Shape]:
        numbers = [1e3 * value for row in rows for value in (row.p99_s, *(s for _, s in row.published))]
        ends = {"start": 12.0, "end": float(canvas.right)}
        x = axis_over((0.0, *numbers), ticks=canvas.ticks_xy[0], top=math.inf, **ends)
        shapes: list[Shape] = [
            Line(((x.px(value), 8.0), (x.px(value), canvas.bottom)), opacity=0.13) for value in x.ticks()
        ]
        shapes += x_axis(canvas, x, title="ms; disc p50, bar p90, ring p99")
        for index, row in enumerate(rows):
            names = (row.board, row.label) if stacked and canvas.css == "narrow" else (row.name,)
            step = ROW_PX + (LINE_PX if stacked and canvas.css == "narrow" else 0.0)
            shapes += _latency_row(row, x, 12.0 + step * index, names)
        return shapes

    stacked = any(row.board for row in rows)
    height = 60 + ROW_PX * len(rows)
    return figure(
        draw,
        name="latencies",
        title="Latency",
        words="Latency of each valid configuration: "
        + "; ".join(f"{row.name}: p50 {1e3 * row.p50_s:.2f} ms" for row in rows),
        heights=(height, height + (int(LINE_PX) * len(rows) if stacked else 0)),
    )


def _latency_row(row: LatencyRow, x: Axis, top: float, names: Sequence[str]) -> list[Shape]:
    """Return a row of the figure: its names, one line each, and the marks under them."""
    y = top + 10.0 + LINE_PX * len(names)
    p50, p90, p99 = (x.px(1e3 * value) for value in (row.p50_s, row.p90_s, row.p99_s))
    tip = f"{row.name}: p50 {1e3 * row.p50_s:.2f}, p90 {1e3 * row.p90_s:.2f}, p99 {1e3 * row.p99_s:.2f} ms"
    shapes: list[Shape] = [
        Line(((p50, y), (p99, y)), row.ink, width=2.0, opacity=0.6),
        Area(((p50, y - 4), (p90, y - 4), (p90, y + 4), (p50, y + 4)), row.ink, opacity=0.45, tip=tip),
        Dot((p99, y), 4.0, row.ink, hollow=True, tip=tip),
        Dot((p50, y), 6.0, row.ink, tip=tip),
    ]
    for who, seconds in row.published:
        at = x.px(1e3 * seconds)
        shapes.append(Line(((at, y - 9), (at, y + 9)), "grey", width=2.0, dashed=True))
        words = f"published by {who}: {1e3 * seconds:g}"
        shapes.append(Words((at, y + 19), words, "grey", anchor=_towards_middle(at, x)))
    lines = [Words((x.start, top + 13 + LINE_PX * i), words) for i, words in enumerate(names)]
    return [*shapes, *lines]


def _towards_middle(at: float, x: Axis) -> str:
    return "start" if at < (x.start + x.end) / 2 else "end"


def distribution(seconds: Sequence[float], *, name: str, title: str, noun: str) -> Figure:
    """Return the histogram of one configuration's latencies, with its percentiles.

    Args:
        seconds: Of every frame that counts.
        name: Stem of the file.
        title: For people.
        noun: What a value belongs to: ``frames`` or ``batches``.
    """
    marks = [(f"p{p}", 1e3 * percentile(list(seconds), float(p))) for p in (50, 90, 99)]
    ms = 1e3 * np.asarray(seconds)
    # A handful of stragglers would squeeze all others into one bar: they are told in words.
    end = min(float(ms.max()), 1.3 * marks[-1][1])
    beyond = int((ms > end).sum())

    def draw(canvas: Canvas) -> list[Shape]:
        kept = ms[ms <= end]
        ticks = canvas.ticks_xy[0]
        x = axis_over(
            (float(kept.min()), end), start=canvas.left, end=canvas.right, ticks=ticks, top=math.inf
        )
        edges = np.linspace(x.low, x.high, 61 if canvas.css == "wide" else 36)
        shares = 100.0 * np.histogram(kept, edges)[0] / len(ms)
        top = 1.15 * float(shares.max())
        y = axis_over((0.0, top), start=canvas.bottom, end=canvas.top, ticks=4, top=100.0)
        shapes = axes(canvas, x, y, x_title="ms", y_title=f"{noun}, %")
        for (low, high), share in zip(pairwise(edges.tolist()), shares.tolist(), strict=True):
            if share > 0.0:
                left, right, peak = x.px(low) + 0.5, x.px(high) - 0.5, y.px(share)
                corners = ((left, y.start), (left, peak), (right, peak), (right, y.start))
                shapes.append(Area(corners, "blue", tip=f"{low:.2f} to {high:.2f} ms: {share:.1f} %"))
        return [*shapes, *_percentile_marks(canvas, x, marks)]

    told = f"; {beyond} {noun} beyond {end:.1f} ms, up to {ms.max():.1f} ms" if beyond else ""
    words = ", ".join(f"{mark} {value:.2f} ms" for mark, value in marks)
    return figure(draw, name=name, title=f"{title}{told}", words=f"{title}: {words}{told}")


def _percentile_marks(canvas: Canvas, x: Axis, marks: Sequence[tuple[str, float]]) -> list[Shape]:
    shapes: list[Shape] = []
    names = [(x.px(value), canvas.top + 10.0, f"{mark} {value:.2f}") for mark, value in marks]
    on_lines = [(at, canvas.top + 8.0 * i) for at, _, _ in names for i in range(8)]
    places = place_labels(canvas, names, on_lines)
    for (at, _, words), place in zip(names, places, strict=True):
        shapes.append(Line(((at, canvas.top), (at, canvas.bottom)), width=1.5, opacity=0.8))
        shapes.append(Words(place, words, bold=True))
    return shapes


def heat_and_clock(runs: Sequence[Run], *, name: str, title: str) -> Figure | None:
    """Return temperature and clock over time; None where the board tells neither.

    Args:
        runs: In their order; their snapshots share one clock.
        name: Stem of the file.
        title: For people.
    """
    shots = [shot for run in runs for shot in (run.before, *run.trace, run.after)]
    heat = [(shot.time_s, shot.hottest_c) for shot in shots if shot.hottest_c is not None]
    clocks = [(shot.time_s, list(shot.clocks_hz.values())) for shot in shots if shot.clocks_hz]
    if not heat and not clocks:
        return None
    start = shots[0].time_s
    last = max(shot.time_s for shot in shots) - start
    starts = [run.before.time_s - start for run in runs]
    throttled = [(one - start, two - start) for one, two in _throttled(shots)]

    def draw(canvas: Canvas) -> list[Shape]:
        ticks = canvas.ticks_xy[0]
        x = axis_over((0.0, max(last, 1.0)), start=canvas.left, end=canvas.right, ticks=ticks, top=math.inf)
        shapes: list[Shape] = [_box(x.px(a), canvas.top, x.px(b), canvas.bottom, "red") for a, b in throttled]
        shapes += x_axis(canvas, x, title="seconds")
        for at in starts[1:]:
            shapes.append(
                Line(((x.px(at), canvas.top), (x.px(at), canvas.bottom)), opacity=0.35, dashed=True)
            )
        panels = _panels(canvas, count=bool(heat) + bool(clocks))
        if heat:
            points = [(time - start, value) for time, value in heat]
            shapes += _heat_panel(canvas, x, next(panels), points)
        if clocks:
            shapes += _clock_panel(canvas, x, next(panels), [(t - start, hz) for t, hz in clocks])
        return shapes

    parts = []
    if heat:
        hottest = [value for _, value in heat]
        parts.append(f"{min(hottest):.0f} to {max(hottest):.0f} °C")
    if clocks:
        means = [fmean(hz) / 1e9 for _, hz in clocks]
        parts.append(f"{min(means):.2f} to {max(means):.2f} GHz")
    if throttled:
        parts.append("red ground: throttled")
    words = f"{title}: {', '.join(parts)}"
    return figure(draw, name=name, title=words, words=words, heights=(340, 320))


def _heat_panel(
    canvas: Canvas, x: Axis, edges: tuple[float, float], points: Sequence[tuple[float, float]]
) -> list[Shape]:
    values = [value for _, value in points]
    y = axis_over(values, start=edges[1], end=edges[0], ticks=4, top=math.inf)
    line = tuple((x.px(time), y.px(value)) for time, value in points)
    return [*_grid(canvas, y, "hottest zone, °C"), Line(line, "orange", width=2.0)]


def _clock_panel(
    canvas: Canvas, x: Axis, edges: tuple[float, float], points: Sequence[tuple[float, Sequence[float]]]
) -> list[Shape]:
    values = [hz / 1e9 for _, each in points for hz in each]
    y = axis_over((*values, 0.9 * min(values)), start=edges[1], end=edges[0], ticks=4, top=math.inf)
    upper = [(x.px(time), y.px(max(each) / 1e9)) for time, each in points]
    lower = [(x.px(time), y.px(min(each) / 1e9)) for time, each in points]
    mean = tuple((x.px(time), y.px(fmean(each) / 1e9)) for time, each in points)
    title = "clock, GHz"
    if any(max(each) > min(each) for _, each in points):
        title += " (band: slowest to fastest core)"
    return [
        *_grid(canvas, y, title),
        Area((*upper, *reversed(lower)), "blue", opacity=0.18),
        Line(mean, "blue", width=2.0),
    ]


def _panels(canvas: Canvas, *, count: int) -> Iterator[tuple[float, float]]:
    """Yield the upper and lower pixel of each panel; a title fits above each."""
    room = (canvas.bottom - canvas.top) / count
    for i in range(count):
        yield canvas.top + room * i + (30 if i else 0), canvas.top + room * (i + 1) - 4


def _grid(canvas: Canvas, y: Axis, title: str) -> list[Shape]:
    return [*y_grid(canvas, y), Words((4, y.end - 12), title)]


def _throttled(shots: Sequence[Snapshot]) -> list[tuple[float, float]]:
    """Return the spans of time at whose end the board said that it is throttled."""
    return [(one.time_s, two.time_s) for one, two in pairwise(shots) if two.throttled]


def _box(left: float, top: float, right: float, bottom: float, ink: str) -> Area:
    return Area(((left, top), (right, top), (right, bottom), (left, bottom)), ink, opacity=0.15)


def accuracy_for_time(points: Sequence[Judged]) -> Figure:
    """Return accuracy over latency, with the line of those that no other beats in both.

    Args:
        points: At least one.
    """
    fronts = {
        ink: pareto_front((point.p50_s, point.top1) for point in points if point.ink == ink)
        for ink in dict.fromkeys(point.ink for point in points)
    }
    ahead = [(point.p50_s, point.top1) in fronts[point.ink] for point in points]

    def draw(canvas: Canvas) -> list[Shape]:
        spans = [wilson(point.top1, point.images) for point in points]
        times, ticks = [1e3 * point.p50_s for point in points], canvas.ticks_xy
        x = axis_over((0.0, *times), start=canvas.left, end=canvas.right, ticks=ticks[0], top=math.inf)
        heights = [100.0 * value for span in spans for value in span]
        y = axis_over(heights, start=canvas.bottom, end=canvas.top, ticks=ticks[1], top=100.0)
        shapes = axes(canvas, x, y, x_title="p50, ms", y_title="top-1, %")
        for ink, front in fronts.items():
            steps = tuple((x.px(1e3 * time), y.px(100.0 * score)) for time, score in front)
            shapes.append(Line(steps, ink, width=1.5, opacity=0.7, dashed=True))
        at = [(x.px(1e3 * point.p50_s), y.px(100.0 * point.top1)) for point in points]
        for point, (px, py), (low, high) in zip(points, at, spans, strict=True):
            whisker = ((px, y.px(100.0 * low)), (px, y.px(100.0 * high)))
            tip = f"{point.label}: {100.0 * point.top1:.1f} % at {1e3 * point.p50_s:.2f} ms"
            shapes.append(Line(whisker, point.ink, width=1.3, opacity=0.6))
            shapes.append(Dot((px, py), 5.0, point.ink, tip=tip))
        # A phone has room for the names of those that are ahead.
        named = [i for i, first in enumerate(ahead) if first or canvas.css == "wide"]
        named.sort(key=lambda i: not ahead[i])
        places = place_labels(canvas, [(*at[i], points[i].label) for i in named], at)
        return [*shapes, *(Words(place, points[i].label) for place, i in zip(places, named, strict=True))]

    words = "; ".join(f"{p.label}: {100.0 * p.top1:.1f} % at {1e3 * p.p50_s:.2f} ms" for p in points)
    return figure(
        draw,
        name="accuracy",
        title="Accuracy for time",
        words=f"Accuracy for time: {words}",
        heights=(360, 320),
    )


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (time, score) that no other beats in both, by time."""
    front: list[tuple[float, float]] = []
    for time, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((time, score))
    return front
