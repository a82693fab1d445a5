"""boardfit layers: where an inference's time goes, layer by layer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.benchmarks.layers import Layers

EXAMPLE = """\
examples:
  boardfit layers model.boardfit
  boardfit layers model.boardfit --engine onnxruntime --size 160 --all
  boardfit layers model.boardfit --engine litert --precision int8 --threads 1 --report layers.html

LiteRT and ONNX Runtime have a profiler, ncnn's Python package has none.
"""

SHOWN = 10
"""So many of the slowest layers are printed."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "layers",
        help="show what each layer of a model takes",
        description="Run one model of a bundle with its engine's own profiler on: the slowest layers, sums "
        "by kind, and all layers together beside the whole inference.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument(
        "--engine", metavar="NAME", help="litert or onnxruntime (default: as tuned, or the first)"
    )
    parser.add_argument(
        "--precision", metavar="P", help="fp32, fp16, int8, ... (default: as tuned, or exact)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: as boardfit.load)")
    parser.add_argument("--size", type=int, metavar="S", help="input side in pixels (default: the largest)")
    parser.add_argument("--runs", type=int, default=50, metavar="N", help="profiled runs (default: 50)")
    parser.add_argument(
        "--all", action="store_true", help="print every layer, in the order in which they run"
    )
    parser.add_argument("--report", metavar="FILE.html", help="write a page with a plot and all layers")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Profile, print, and write the page."""
    from boardfit.benchmarks.layers import layers_html, profile_layers
    from boardfit.bundle import open_bundle
    from boardfit.cli.quiet import quiet_engines
    from boardfit.errors import RecipeError
    from boardfit.files import write_whole
    from boardfit.loading import advice
    from boardfit.runtime.choose import Setup

    asked = Setup(args.engine, args.precision, args.threads)
    if args.threads is not None and args.threads < 1:
        raise RecipeError(f"threads is {args.threads}: expected at least 1")
    if args.report and not Path(args.report).absolute().parent.is_dir():
        raise RecipeError(f"the folder of {args.report} does not exist: make it, or choose another --report")
    with open_bundle(args.bundle) as bundle, quiet_engines():
        size = bundle.manifest.sizes[-1] if args.size is None else args.size
        setup = advice(bundle, asked, size=size) or asked
        layers = profile_layers(bundle, setup, size=args.size, runs=args.runs)
    print(layers_text(layers, every=args.all))
    if args.report:
        try:
            write_whole(Path(args.report), layers_html(layers).encode())
        except OSError as error:
            raise RecipeError(f"cannot write {args.report}: {error.strerror}") from error
        print(f"wrote {args.report}")
    return 0


def layers_text(layers: Layers, *, every: bool) -> str:
    """Return the slowest layers, or every one in its order, then the kinds and the sum."""
    from boardfit.cli.text import table

    together = layers.profile.sum_s
    shown = layers.profile.layers
    if not every:
        shown = tuple(sorted(shown, key=lambda layer: -layer.p50_s)[:SHOWN])
    rows = [
        [layer.name, layer.kind, f"{layer.p50_s * 1e3:.3f}", f"{100.0 * layer.p50_s / together:.1f}"]
        for layer in shown
    ]
    kinds = [
        [kind, str(count), f"{seconds * 1e3:.3f}", f"{100.0 * seconds / together:.1f}"]
        for kind, count, seconds in layers.kinds
    ]
    return "\n".join(
        [
            f"{layers.bundle_name}, {layers.setup.text}, {layers.size} pixels, on {layers.machine}",
            "",
            table(["layer", "kind", "p50 ms", "%"], rows, left=(0, 1)),
            "",
            table(["kind", "layers", "p50 ms", "%"], kinds),
            "",
            layers.sum_text,
        ]
    )
