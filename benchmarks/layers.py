"""Where an inference's time goes, layer by layer, for engines that tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from boardfit.benchmarks import plot
from boardfit.benchmarks.page import document, facts_list, table
from boardfit.errors import RecipeError
from boardfit.runtime.choose import Setup, choose_engine, default_threads
from boardfit.runtime.engines import engine_classes, is_installed
from boardfit.runtime.engines.layers import LayerProfile, LayerTime
from boardfit.runtime.inputs import check_given, further_feeds, input_specs
from boardfit.runtime.preprocess import Preprocessor
from boardfit.runtime.selftest import golden_inputs, golden_or_grey
from boardfit.specs import Artifact
from boardfit.timing import machine_name, time_paired

if TYPE_CHECKING:
    from boardfit.bundle import Bundle

RUNS = 50
WARMUP = 5
NAMED = 5
"""So many of the slowest layers have their number in the plot."""

_STYLE = """
svg .layer { fill: #2a6f97; }
@media (prefers-color-scheme: dark) { svg .layer { fill: #6bb6e0; } }
"""


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of one artifact at one size.

    Attributes:
        bundle_name: For people.
        setup: Engine, precision and threads.
        size: Input side in pixels.
        profile: What the engine told.
        plain_s: Median of one inference in seconds with the profiler off.
        machine: Where it ran.
    """

    bundle_name: str
    setup: Setup
    size: int
    profile: LayerProfile
    plain_s: float
    machine: str

    @property
    def kinds(self) -> list[tuple[str, int, float]]:
        """Kinds of layers with their number and their seconds together, the slowest first."""
        found: dict[str, list[float]] = {}
        for layer in self.profile.layers:
            found.setdefault(layer.kind, []).append(layer.p50_s)
        rows = [(kind, len(times), sum(times)) for kind, times in found.items()]
        return sorted(rows, key=lambda row: -row[2])

    @property
    def sum_text(self) -> str:
        """What the layers take together, beside the whole inference, profiled and not."""
        together, whole = self.profile.sum_s, self.profile.p50_s
        return (
            f"{len(self.profile.layers)} layers take {together * 1e3:.2f} ms together, "
            f"{100.0 * together / whole:.0f} % of the {whole * 1e3:.2f} ms of a whole inference; "
            f"{self.plain_s * 1e3:.2f} ms with the profiler off"
        )


def profile_layers(bundle: Bundle, setup: Setup, *, size: int | None = None, runs: int = RUNS) -> Layers:
    """Run one artifact of a bundle with its engine's profiler on, and off.

    Args:
        bundle: Open bundle.
        setup: What it leaves open, ``load`` would choose.
        size: Input side in pixels; None for the largest.
        runs: Profiled ones, at least 1.

    Raises:
        RecipeError: The engine has no profiler, or the size is not there.
        EngineMissing: The engine is not installed.
        EngineError: The engine refuses the file, or its profile cannot be read.
    """
    if runs < 1:
        raise RecipeError(f"{runs} runs: expected at least 1")
    choice = choose_engine(bundle.manifest.artifacts, engine=setup.engine, precision=setup.precision)
    profiler = getattr(choice.engine, "profile", None)
    if profiler is None:
        engines = engine_classes().items()
        told = [name for name, each in engines if getattr(each, "profile", None) and is_installed(each)]
        able = f"choose among {', '.join(told)}" if told else "install onnxruntime or ai-edge-litert"
        raise RecipeError(f"engine {choice.name!r} does not tell what its layers take: {able}")
    side = choice.sizes[-1] if size is None else size
    if side not in choice.sizes:
        raise RecipeError(f"the files serve {list(choice.sizes)} pixels, not {side}: choose among these")
    artifact = choice.artifact_for(side)
    files = bundle.artifact_files(artifact)
    threads = default_threads() if setup.threads is None else setup.threads
    feeds = _feeds(bundle, artifact, side)
    engine = choice.engine(artifact, files, threads)
    try:
        call = partial(engine.run, feeds)
        plain = time_paired({"run": call}, rounds=runs, warmup=WARMUP)["run"]
    finally:
        engine.close()
    found: LayerProfile = profiler(artifact, files, threads, feeds=feeds, runs=runs, warmup=WARMUP)
    used = Setup(choice.name, artifact.precision, threads, ())
    return Layers(bundle.manifest.name, used, side, found, plain.p50_s, machine_name())


def layers_html(layers: Layers) -> str:
    """Return the page: a bar for each layer, sums by kind, a table of all."""
    rows = [_row(layer, layers.profile.sum_s) for layer in layers.profile.layers]
    kinds = [
        (kind, str(count), f"{seconds * 1e3:.3f}", f"{100.0 * seconds / layers.profile.sum_s:.1f}")
        for kind, count, seconds in layers.kinds
    ]
    facts = [("Machine", layers.machine), ("Setup", layers.setup.text), ("Size", f"{layers.size} pixels")]
    return document(
        [
            facts_list(facts),
            f"<section><h2>From the input to the output</h2>\n{layers_plot(layers)}</section>",
            "<section><h2>By kind</h2>"
            + table(("kind", "layers", "ms", "%"), kinds, left=(0,))
            + "</section>",
            "<section><h2>All layers</h2>"
            + table(("layer", "kind", "p50 ms", "%"), rows, left=(0, 1))
            + "</section>",
        ],
        title=f"Layers of {layers.bundle_name}",
        headline=f"{layers.sum_text}.",
        style=plot.STYLE + _STYLE,
    )


def layers_plot(layers: Layers) -> str:
    """Return the layers' medians as bars, as inline SVG; the slowest are named."""
    times_ms = [layer.p50_s * 1e3 for layer in layers.profile.layers]
    slowest = sorted(range(len(times_ms)), key=lambda index: -times_ms[index])[:NAMED]

    def draw(canvas: plot.Canvas) -> str:
        far = float("inf")
        x = plot.axis_over(
            (0.0, float(len(times_ms))),
            start=canvas.left,
            end=canvas.right,
            ticks=canvas.ticks_xy[0],
            top=far,
        )
        y = plot.axis_over(
            (0.0, 1.2 * max(times_ms)), start=canvas.bottom, end=canvas.top, ticks=canvas.ticks_xy[1], top=far
        )
        bars = [_bar(x, y, index, layer) for index, layer in enumerate(layers.profile.layers)]
        tops = [(x.px(index + 0.5), y.px(value)) for index, value in enumerate(times_ms)]
        labels = [(*tops[index], layers.profile.layers[index].name.split(" ")[0]) for index in slowest]
        places = plot.place_labels(canvas, labels, tops)
        names = [plot.text(at, label[2], css="halo") for at, label in zip(places, labels, strict=True)]
        return "\n".join([plot.axes(canvas, x, y, x_title="layer", y_title="p50, ms"), *bars, *names])

    words = f"{layers.setup.text} at {layers.size} pixels: {layers.sum_text}"
    return plot.draw_twice(draw, words=words, height=320)


def _bar(x: plot.Axis, y: plot.Axis, index: int, layer: LayerTime) -> str:
    left, right, top = x.px(index + 0.1), x.px(index + 0.9), y.px(layer.p50_s * 1e3)
    name = escape(f"{layer.name}, {layer.kind}: {layer.p50_s * 1e3:.3f} ms")
    return (
        f'<rect class="layer" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" '
        f'height="{max(0.0, y.start - top):.1f}"><title>{name}</title></rect>'
    )


def _row(layer: LayerTime, whole_s: float) -> tuple[str, str, str, str]:
    share = 100.0 * layer.p50_s / whole_s
    return layer.name, layer.kind, f"{layer.p50_s * 1e3:.3f}", f"{share:.1f}"


def _feeds(bundle: Bundle, artifact: Artifact, size: int) -> dict[str, np.ndarray]:
    """Return the golden input, or grey where there is none, as an artifact takes it."""
    specs = input_specs(bundle.manifest.artifacts)[1:]
    given = check_given(specs, golden_inputs(bundle, specs))
    preprocessor = Preprocessor(bundle.manifest.image, artifact.inputs[0].layout)
    further = further_feeds(artifact, [given], size, preprocessor)
    return {artifact.inputs[0].name: preprocessor.fit(golden_or_grey(bundle), size)[0], **further}
