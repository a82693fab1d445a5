"""boardfit blame: which layers of a quantized artifact carry the noise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.cli.quantized import Quantized

EXAMPLE = """\
examples:
  boardfit blame lite0.boardfit
  boardfit blame lite0.boardfit --artifact tflite-int8-224 --all --report blame.html
"""
SHOWN = 10


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "blame",
        help="show which layers of a quantized artifact carry the noise",
        description="Show, for each layer of each quantized artifact, the signal-to-quantisation-noise ratio "
        "of its output against the float artifact's, as the build measured it: the lowest first. What stayed "
        "outside the gate is shown too.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument("--artifact", metavar="NAME", help="only this one, such as tflite-int8-224")
    parser.add_argument("--all", action="store_true", help=f"all layers, not the {SHOWN} worst")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with a plot of all layers")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the layers, and write the page."""
    from boardfit.bundle import open_bundle
    from boardfit.cli.quantized import read_quantized
    from boardfit.errors import RecipeError

    with open_bundle(args.bundle) as bundle:
        found = read_quantized(bundle.measurements)
        name = bundle.manifest.name
    names = [each.artifact or each.asked for each in found]
    if not found:
        raise RecipeError(f"{args.bundle} has no quantized artifact: build one with --precisions fp32,int8")
    if args.artifact and args.artifact not in names:
        raise RecipeError(f"{args.bundle} has no {args.artifact!r}: expected one of {', '.join(names)}")
    chosen = [each for each, own in zip(found, names, strict=True) if args.artifact in (None, own)]
    print("\n\n".join(blame_table(each, None if args.all else SHOWN) for each in chosen))
    if args.report:
        _write_page(Path(args.report), name, chosen)
        print(f"wrote {args.report}")
    return 0


def blame_table(each: Quantized, shown: int | None) -> str:
    """Return the worst layers of one artifact, the lowest ratio first."""
    from boardfit.cli.quantized import gate_text
    from boardfit.cli.text import table

    rows = sorted(layers_of(each), key=lambda row: float(row["sqnr_db"]))
    total = sum(int(row["macs"]) for row in rows) or 1
    cells = [
        [
            str(row["layer"]),
            str(row["kind"]),
            f"{100.0 * int(row['macs']) / total:.1f} %",
            "int8" if row["integer"] else "float",
            f"{float(row['sqnr_db']):.1f}",
            f"{float(row['added']):+.2g}",
        ]
        for row in rows[:shown]
    ]
    where = each.artifact or f"{each.asked}, outside the gate"
    header = ["layer", "kind", "MACs", "runs in", "SQNR, dB", "noise added"]
    return f"{where}: {gate_text(each.row.get('verdict'))}\n" + table(header, cells, left=(0, 1, 3))


def layers_of(each: Quantized) -> list[dict[str, Any]]:
    """Return the recorded layers that are whole, in the order of the format."""
    rows = each.row.get("blame")
    known = {"layer", "kind", "macs", "integer", "sqnr_db", "added"}
    return (
        [row for row in rows if isinstance(row, dict) and known <= set(row)] if isinstance(rows, list) else []
    )


def _write_page(path: Path, name: str, chosen: Sequence[Quantized]) -> None:
    from boardfit.benchmarks.blame_page import LayerNoise, NoiseOf, blame_html
    from boardfit.cli.quantized import gate_text
    from boardfit.errors import RecipeError
    from boardfit.files import write_whole

    parts = [
        NoiseOf(
            title=each.artifact or f"{each.asked}, outside the gate",
            summary=gate_text(each.row.get("verdict")),
            layers=tuple(
                LayerNoise(
                    name=str(row["layer"]),
                    kind=str(row["kind"]),
                    sqnr_db=float(row["sqnr_db"]),
                    integer=bool(row["integer"]),
                )
                for row in layers_of(each)
            ),
        )
        for each in chosen
    ]
    try:
        write_whole(path, blame_html(f"Quantisation noise of {name}", parts).encode())
    except OSError as error:
        raise RecipeError(f"cannot write {path} ({error.strerror}): choose another --report") from error
