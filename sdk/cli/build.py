"""boardfit build: a trained model becomes a bundle."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from boardfit.cli.fit import add_goal
from boardfit.cli.lists import words
from boardfit.cli.training import TrainingProgress

if TYPE_CHECKING:
    from boardfit.converters.build import BuildReport
    from boardfit.converters.recipe import Recipe

EXAMPLE = """\
examples:
  boardfit build model.keras --images photos -o model.boardfit --sizes 112,160,224
  boardfit build --torch my_package.nets:small --images photos -o small.boardfit
  boardfit build model.keras --images photos -o model.boardfit --sizes auto
  boardfit build net.onnx --images photos --image-spec unit --print-recipe > recipe.toml
  boardfit build --recipe recipe.toml -o net.boardfit --dry-run
  boardfit build model.keras --images photos --precisions fp32,int8 -o int8.boardfit --val labels.csv
  boardfit build model.keras --images photos --precisions int8 --distill more-photos -o int8.boardfit
  boardfit build model.keras --images photos --elastic --distill more-photos -o elastic.boardfit
  boardfit build model.keras --images photos --prune 0.4 --distill more-photos --epochs 10 -o small.boardfit
  boardfit build small.keras --images photos --teacher large.keras --distill more-photos -o small.boardfit

A --torch factory is Python code and is run: build only from authors whom you trust.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "build",
        help="make a bundle from a trained model",
        description="Export a trained model to TFLite, ONNX and ncnn at several input sizes, compare every "
        "file with the source on your photographs, and pack them into one bundle.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", help="a .keras, .h5 or .onnx file, or a SavedModel folder")
    parser.add_argument(
        "--torch", metavar="FACTORY", help="package.module:factory or file.py:factory; it may take the size"
    )
    parser.add_argument("--images", metavar="DIR", help="folder of photographs to compare on")
    parser.add_argument("-o", "--out", metavar="OUT", help="OUT.boardfit (one file) or a folder")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        metavar="S,S",
        help="input sides (default: 112,160,224); auto proposes: the source's own, and about 1/2 and 1/3 "
        "of its time",
    )
    parser.add_argument("--formats", type=words, metavar="F,F", help="default: tflite,onnx,ncnn")
    parser.add_argument(
        "--precisions",
        type=words,
        metavar="P,P",
        help="fp32, fp16 (both the default), int8, int16x8, dynamic",
    )
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line, in the output's order")
    parser.add_argument(
        "--image-spec", metavar="SPEC", help="efficientnet-lite, imagenet (default), tf, unit, or FILE.toml"
    )
    parser.add_argument(
        "--task", help="classify (default), detect, segment, embed, or raw: what the outputs are"
    )
    parser.add_argument("--name", help="name of the bundle (default: the source's)")
    parser.add_argument("--policy", help="policy of a bundle that is not fitted (default: entropy)")
    parser.add_argument("--no-fit", action="store_true", help="keep the classic thresholds")
    parser.add_argument(
        "--val", metavar="CSV", help="columns file,label: fit and judge on right answers, not agreement"
    )
    add_goal(parser, prefix="policy")
    _add_training(parser)
    _add_quantize(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="compare on at most N images (default: 128)")
    parser.add_argument(
        "--assume-same-padding",
        action="store_true",
        default=None,
        help='take padding that equals "same" at the source\'s size for "same" at every size',
    )
    parser.add_argument(
        "--pass-through",
        action="store_true",
        default=None,
        help="pack the source as it is: .onnx as ONNX and ncnn, .tflite as TFLite at its own size",
    )
    parser.add_argument(
        "--input",
        action="append",
        metavar="NAME=FILE.npy",
        help="numbers for an input besides the image, a row each frame, to compare on; once for each input",
    )
    parser.add_argument("--recipe", metavar="FILE", help="read all of this from a TOML file; flags win")
    parser.add_argument("--print-recipe", action="store_true", help="print the recipe as TOML and stop")
    parser.add_argument("--dry-run", action="store_true", help="check all that can be checked, and stop")
    parser.set_defaults(run=run)


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("compressing")
    group.add_argument(
        "--prune",
        type=float,
        metavar="SHARE",
        help="take away this share of the multiplications, 0.4 for 40 %%",
    )
    group.add_argument(
        "--prune-time",
        type=float,
        metavar="SHARE",
        help="take channels away until this share of the time remains, measured here, 0.7 for 70 %%",
    )
    group.add_argument("--prune-engine", metavar="E", help="whose time: litert (default), onnxruntime, ncnn")
    group.add_argument(
        "--sparsity",
        type=float,
        metavar="SHARE",
        help="set this share of weights to 0: not faster, zips better",
    )
    group.add_argument(
        "--elastic",
        action="store_true",
        default=None,
        help="train the model to be good at every size; the largest one teaches the others",
    )
    group.add_argument("--distill", metavar="DIR", help="photographs to train on, without labels")
    group.add_argument(
        "--teacher", metavar="MODEL", help="who teaches (default: the source), of the same classes"
    )
    group.add_argument("--distill-labels", metavar="CSV", help="columns file,label: learn from these as well")
    group.add_argument("--epochs", type=int, metavar="N", help="how often each is seen (default: 10)")
    group.add_argument(
        "--learning-rate", type=float, metavar="R", help="at its peak (default: what suits the stage)"
    )
    group.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")


def _add_quantize(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--max-drop", type=float, metavar="POINTS", help="of top-1, with --val (default: 1.0 points)"
    )
    group.add_argument(
        "--max-flips", type=float, metavar="PERCENT", help="of answers, without --val (default: 5 %%)"
    )
    group.add_argument("--calibration", metavar="DIR", help="calibrate on these (default: some of --images)")
    group.add_argument("--calibration-images", type=int, metavar="N", help="at most N (default: 256)")
    group.add_argument("--estimators", type=words, metavar="E,E", help="default: min-max,percentile,mse,kl")
    group.add_argument(
        "--qat",
        choices=("needed", "always", "never"),
        help="train int8 on the photographs of --distill: where its gate is not met without (default), "
        "before anything else is tried, or never",
    )
    group.add_argument("--no-rescue", action="store_true", help="refuse at once what is outside the gate")


def run(args: argparse.Namespace) -> int:
    """Build, or only check, or only print the recipe; 1 if something could not be int8."""
    recipe = recipe_from(args)
    if args.print_recipe:
        from boardfit.converters.recipe import to_toml

        print(to_toml(recipe), end="")
        return 0
    from boardfit.errors import RecipeError

    if not args.out:
        raise RecipeError("no place for the bundle was given: add -o NAME.boardfit")
    from boardfit.cli.quiet import quiet_engines
    from boardfit.converters.build import build
    from boardfit.converters.plan import plan

    started = time.monotonic()
    progress = _Progress(started)
    if args.dry_run:
        checked = plan(recipe, args.out, progress=progress)
        print(_plan_text(checked))
        return 0
    try:
        with quiet_engines(), TrainingProgress() as watch:
            report = build(recipe, args.out, resume=args.resume, watch=watch, progress=progress)
    except KeyboardInterrupt:
        if recipe.compresses:
            words = sys.argv[1:] if args.resume else [*sys.argv[1:], "--resume"]
            print(f"to go on: boardfit {shlex.join(words)}", file=sys.stderr)
        raise
    print(_report_text(report, time.monotonic() - started))
    return 0 if all(outcome.kept_integers for outcome in report.outcomes) else 1


def recipe_from(args: argparse.Namespace) -> Recipe:
    """Return the recipe that a file and the flags make together; flags win."""
    from pathlib import Path

    from boardfit.converters.recipe import Recipe, merge
    from boardfit.converters.toml_file import load_toml

    flags = {
        "source": {
            "model": args.source,
            "torch": args.torch,
            "name": args.name,
            "task": args.task,
            "pass_through": args.pass_through,
            "labels": args.labels,
            "image_spec": args.image_spec,
            "assume_same_padding": args.assume_same_padding,
            "inputs": args.input,
        },
        "images": {"folder": args.images, "limit": args.limit},
        "export": {**_export_sizes(args.sizes), "formats": args.formats, "precisions": args.precisions},
        "prune": {
            "macs": args.prune,
            "time": args.prune_time,
            "engine": args.prune_engine,
            "sparsity": args.sparsity,
        },
        "distill": {
            "folder": args.distill,
            "teacher": args.teacher,
            "labels": args.distill_labels,
            "epochs": args.epochs,
            "learning_rate": args.learning_rate,
        },
        "elastic": {"enabled": args.elastic},
        "qat": {"when": args.qat},
        "policy": {"kind": args.policy},
        "fit": {
            "enabled": False if args.no_fit else None,
            "val": args.val,
            "max_drop": args.policy_drop,
            "max_time": args.policy_time,
        },
        "quantize": {
            "calibration": args.calibration,
            "calibration_images": args.calibration_images,
            "estimators": args.estimators,
            "max_drop": args.max_drop,
            "max_flips": args.max_flips,
            "rescue": False if args.no_rescue else None,
        },
    }
    tables = load_toml(Path(args.recipe)) if args.recipe else {}
    return Recipe.from_dict(merge(tables, flags))


class _Progress:
    """Prints each step on stderr with the seconds since the start."""

    def __init__(self, started: float) -> None:
        self._started = started

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=sys.stderr, flush=True)


def _plan_text(checked: Any) -> str:
    wanted = checked.recipe.export
    lines = [
        f"{checked.model.name}: {_weight_text(checked.model)}, sizes {', '.join(map(str, wanted.sizes))}",
        f"would make: {', '.join(f'{f} {p}' for f in wanted.formats for p in wanted.precisions)}",
        f"would compare on {len(checked.paths)} images, and write {checked.out}",
        f"would fit the policy on {len(checked.photos)} images"
        if checked.photos
        else f"would not fit the policy: {checked.not_fitted}",
        *(checked.order.pictures.notes if checked.order else ()),
        *([f"would train on {len(checked.training.paths)} images"] if checked.training else ()),
        *(f"note: {note}" for note in checked.model.notes),
        "nothing was written (dry run)",
    ]
    return "\n".join(lines)


def _weight_text(model: Any) -> str:
    if model.untouched is not None:
        return f"passed through, {len(model.untouched.data) / 1e6:.1f} MB"
    return f"{model.net.count_params():,} parameters"


def _report_text(report: BuildReport, seconds: float) -> str:
    from boardfit.cli.compressed import compression_table
    from boardfit.cli.text import policy_text
    from boardfit.converters.policy_fit import fit_table
    from boardfit.converters.verify import parity_table

    times = {(row.artifact, row.size): row for row in report.times}
    table = parity_table(report.parity).splitlines()
    lines = [f"{table[0]}  {'ms here':>8}"]
    for row, text in zip(report.parity, table[1:], strict=True):
        lines.append(f"{text}    {times[row.artifact, row.size].p50_s * 1e3:>8.2f}")
    if report.compression is not None:
        lines += ["", compression_table(report.compression), ""]
    if report.fit is not None:
        lines += ["", fit_table(report.fit), f"policy {policy_text(report.manifest.policy)}", ""]
    if report.outcomes:
        lines += ["", *_quantized_lines(report), ""]
    lines += [f"note: {note}" for note in report.notes]
    size_mb = sum(entry.size_bytes for entry in report.manifest.files) / 1e6
    lines.append(f"wrote {report.out} ({size_mb:.1f} MB) in {seconds:.0f} s")
    return "\n".join(lines)


def _quantized_lines(report: BuildReport) -> list[str]:
    """Return the quantized artifacts as a table, and what stayed outside the gate."""
    from boardfit.bundle import open_bundle
    from boardfit.cli.quantized import quantized_table
    from boardfit.converters.quantize.stage import refused_table

    with open_bundle(report.out) as bundle:
        lines = quantized_table(bundle.measurements).splitlines()
    return [*lines, *refused_table(report.outcomes).splitlines()]


def _export_sizes(sizes: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the recipe's fields for --sizes, of which no side means auto."""
    if sizes is None:
        return {}
    return {"sizes": sizes or None, "auto_sizes": not sizes}


def _sizes(text: str) -> tuple[int, ...]:
    if text == "auto":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sides like 112,160,224, or auto") from None
