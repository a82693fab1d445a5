"""boardfit pack: the part of a bundle that one board needs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from boardfit.bundle import Bundle, Manifest
    from boardfit.cli.subset import Selection

EXAMPLE = """\
examples:
  boardfit pack lite0.boardfit -o board.boardfit --format tflite --precision fp16
  boardfit pack lite0.boardfit -o small.boardfit --format onnx ncnn --size 112 160
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "pack",
        help="make a smaller bundle of some formats, precisions and sizes",
        description="Make a bundle with only some formats, precisions and sizes. What is left out of a "
        "choice stays as it is.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument(
        "-o", "--out", metavar="OUT", required=True, help="OUT.boardfit (one file) or a folder"
    )
    parser.add_argument("--format", nargs="+", metavar="F", default=[], help="tflite, onnx, ncnn")
    parser.add_argument("--precision", nargs="+", metavar="P", default=[], help="fp32, fp16, int8, ...")
    parser.add_argument("--size", nargs="+", metavar="S", type=int, default=[], help="input sides in pixels")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the smaller bundle."""
    from boardfit.bundle import open_bundle
    from boardfit.cli.subset import Selection, restrict
    from boardfit.cli.text import megabytes, policy_text

    wanted: Selection = Selection(tuple(args.format), tuple(args.precision), tuple(args.size))
    with open_bundle(args.bundle) as bundle:
        manifest = restrict(bundle.manifest, wanted)
        lost = write_part(bundle, manifest, args.out)
    size_bytes = sum(entry.size_bytes for entry in manifest.files)
    print(f"wrote {args.out}: {', '.join(a.name for a in manifest.artifacts)}, {megabytes(size_bytes)}")
    print(f"policy {policy_text(manifest.policy)}")
    if lost:
        print(lost)
    return 0


def write_part(bundle: Bundle, part: Manifest, out: str | os.PathLike[str]) -> str:
    """Write a part of a bundle as one of its own.

    Args:
        bundle: Open bundle.
        part: What remains of its manifest.
        out: The file or folder to write.

    Returns:
        What is to be said of signatures that do not hold for the part; empty if there are none.
    """
    from boardfit.bundle import write_tree
    from boardfit.cli.sign import lost_signatures_text
    from boardfit.cli.subset import restrict_measurements

    contents = {entry.path: bundle.read(entry.path) for entry in part.files}
    measurements = restrict_measurements(bundle.measurements, before=bundle.manifest, after=part)
    signatures = bundle.signatures_for(part)
    write_tree(out, part, contents=contents, measurements=measurements, signatures=signatures)
    return lost_signatures_text(bundle, signatures)
