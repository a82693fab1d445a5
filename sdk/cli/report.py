"""boardfit report: pages of one or several benchmarks, an index of many, or what compressing changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.errors import ReportError

if TYPE_CHECKING:
    from boardfit.benchmarks.records import Report

EXAMPLE = """\
examples:
  boardfit report pi5                          the pages of one report again, beside its report.json
  boardfit report pi4 pi5 orin -o boards       several boards on one page
  boardfit report --index benchmarks           benchmarks/index.html over all reports beneath
  boardfit report pruned.boardfit -o pruned    what compressing changed, and the curves of its trainings
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "report",
        help="put benchmarks, or a compression, on a page",
        description="Write report.html, report.md and pictures from what boardfit bench measured: of one "
        "report, or of several (boards) side by side. With --index, a sortable table of a folder of reports; "
        "what could not be read is named on it, and the exit status is 1. Of a bundle whose build compressed "
        "the model: compression.html, with parameters, multiplications, files, answers and times before and "
        "after, and the curves of the trainings.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a folder that boardfit bench --out wrote, or its report.json; or one bundle",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        help="where the pages go (default: beside the one report; else ./report)",
    )
    parser.add_argument("--index", metavar="FOLDER", help="write FOLDER/index.html over all reports beneath")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the pages, or the index."""
    from boardfit.cli.bench_pages import write_index, write_pages

    if bool(args.runs) == bool(args.index):
        raise ReportError("nothing to do, or two things: name reports, or a folder with --index")
    if args.index:
        path, left_out = write_index(args.index)
        for sentence in left_out:
            print(f"boardfit: left out: {sentence}", file=sys.stderr)
        print(f"wrote {path}")
        return 1 if left_out else 0
    if len(args.runs) == 1 and _is_bundle(Path(args.runs[0])):
        return _write_compression(Path(args.runs[0]), Path(args.out or "report"))
    reports = read_reports(args.runs)
    for path in write_pages(_place(args.out, args.runs), reports):
        print(f"wrote {path}")
    return 0


def _is_bundle(path: Path) -> bool:
    """Return whether a path is meant as a bundle, be it damaged."""
    return path.suffix == ".boardfit" or (path / "manifest.json").is_file()


def _write_compression(path: Path, folder: Path) -> int:
    from boardfit.bundle import open_bundle
    from boardfit.cli.compressed import write_compression

    with open_bundle(path) as bundle:
        for written in write_compression(folder, bundle):
            print(f"wrote {written}")
    return 0


def read_reports(runs: Sequence[str]) -> list[Report]:
    """Read reports, each of which must be another.

    Raises:
        ReportError: One cannot be read, or two are the same.
    """
    from boardfit.benchmarks.store import read_report

    reports: list[Report] = []
    for name in runs:
        report = read_report(name)
        if report in reports:
            twin = runs[reports.index(report)]
            raise ReportError(f"{twin} and {name} are the same report: name each once, or measure again")
        reports.append(report)
    return reports


def _place(out: str | None, runs: Sequence[str]) -> Path:
    if out is not None:
        return Path(out)
    if len(runs) > 1:
        return Path("report")
    only = Path(runs[0])
    return only if only.is_dir() else only.parent
