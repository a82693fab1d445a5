"""boardfit compare: whether one benchmark is faster than another, or only luckier."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.benchmarks.compare import Comparison, Line

EXAMPLE = """\
examples:
  boardfit compare main-bench new-bench                 exit status 3 if something became worse
  boardfit compare main-bench new-bench --fail-on never
  boardfit compare pi4 pi5 --across-boards

exit status:
  0  nothing that decides became worse (p50, p90, frames/s, memory peak, top-1)
  1  the reports cannot be read, or are unlike
  3  something that decides became worse; with --fail-on difference, or better
  4  no verdict: fewer than 5 runs, or not valid
"""

WORSE, NO_VERDICT = 3, 4


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "compare",
        help="tell whether one benchmark is faster than another",
        description="Compare what boardfit bench measured twice: per metric the ratio B / A with its "
        "interval from the variance between runs, and faster, slower or no difference. All intervals hold "
        "together at 99 %. Reports of unlike machines, bundles, engines, threads or governors are refused.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "a", metavar="A", help="the base: a folder of boardfit bench --out, or its report.json"
    )
    parser.add_argument("b", metavar="B", help="what is judged, likewise")
    parser.add_argument(
        "--across-boards", action="store_true", help="compare unlike reports too, and list what differs"
    )
    parser.add_argument(
        "--fail-on",
        choices=("worse", "difference", "never"),
        default="worse",
        help="what makes the exit status 3 (default: worse); never: it is 0 whatever comes out",
    )
    parser.add_argument(
        "--least",
        type=float,
        default=1.0,
        metavar="PERCENT",
        help="a smaller change is no difference (default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; the status says what came out."""
    from boardfit.benchmarks.compare import compare
    from boardfit.benchmarks.store import read_report
    from boardfit.errors import ReportError

    if not 0.0 <= args.least < 100.0:
        raise ReportError(f"--least {args.least:g}: expected per cent, 0 or more and less than 100")
    found = compare(
        read_report(args.a),
        read_report(args.b),
        across_boards=args.across_boards,
        noticeable=args.least / 100.0,
    )
    print(json.dumps(found.to_dict(), indent=2) if args.json else people_text(found))
    return exit_status(found, args.fail_on)


def exit_status(found: Comparison, fail_on: str) -> int:
    """Return the status that ``--fail-on`` asks for."""
    if fail_on == "never":
        return 0
    bad = {"worse"} if fail_on == "worse" else {"worse", "better"}
    outcomes = {line.outcome for line in found.lines if line.decides}
    return WORSE if outcomes & bad else NO_VERDICT if "none" in outcomes else 0


def people_text(found: Comparison) -> str:
    """Return what differs, the notes, and a table per configuration."""
    from boardfit.cli.text import table

    parts = [f"{each.name} differs: {each.before} against {each.after}" for each in found.differences]
    parts += found.notes
    for case in dict.fromkeys(line.case for line in found.lines):
        rows = [_cells(line) for line in found.lines if line.case == case]
        header = ("metric", "A", "B", "B / A", "interval", "verdict")
        parts.append(f"\n{case}\n{table(header, rows, left=(0, 5))}")
    return "\n".join(parts).lstrip("\n")


def _cells(line: Line) -> list[str]:
    values = [_value(line.before, line.unit), _value(line.after, line.unit)]
    if line.change is None:
        return [line.metric, *values, "-", "-", line.verdict]
    middle, low, high = (line.change.middle, line.change.low, line.change.high)
    if line.unit == "%":
        change = [f"{middle:+.1f} points", f"{low:+.1f} to {high:+.1f}"]
    else:
        change = [f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
    return [line.metric, *values, *change, line.verdict]


def _value(value: float | None, unit: str) -> str:
    from boardfit.benchmarks.summary import bytes_text, ms_text

    if value is None:
        return "-"
    texts = {"s": f"{ms_text(value)} ms", "bytes": bytes_text(round(value)), "%": f"{value:.1f} %"}
    return texts.get(unit, f"{value:.1f}/s")
