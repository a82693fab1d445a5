"""boardfit bench: how fast, how hot, how right, on this machine; a report that one can reproduce."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.cli.lists import cores, count, counts, size_wh, words
from boardfit.cli.quiet import quiet_engines
from boardfit.cli.tuned import add_tuning, tuned_engines, tuning_files
from boardfit.errors import InputError, RecipeError, ReportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from boardfit.benchmarks.accuracy import Labelled
    from boardfit.benchmarks.cases import Wanted
    from boardfit.benchmarks.records import Report
    from boardfit.benchmarks.scenario import Plan

EXAMPLE = """\
examples:
  boardfit bench model.boardfit --quick
  boardfit bench model.boardfit --images photos --out pi5
  boardfit bench model.boardfit --board ssh://pi@kitchen --out pi5
  boardfit bench model.boardfit --engine all --precision all --size all --threads 1,2 --out all-of-pi5
  boardfit bench model.boardfit --scenario camera --fps 15 --images street.png --duration 60
  boardfit bench model.boardfit --precision fp32,int8 --images photos --val labels.csv

A run is a load, a first frame, a warm-up, then at least --duration seconds and 64 frames, as MLPerf's LoadGen
asks in its single-stream scenario; its submissions take --duration 600. Every combination of what is named is
measured in --runs such runs.

Exit status 3: it was measured, but the numbers cannot be trusted, and the report says why: the board
throttled, other processes took its cores, the runs disagree, the end was slower than the beginning, or the
clock went backwards.
"""

INVALID = 3
"""Exit status: measured, written, and not to be trusted."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "bench",
        help="measure a bundle on this machine, and write a report",
        description="Measure a bundle: cold start, first frame and steady state apart, each stage, memory, "
        "heat; and say whether the numbers can be trusted.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument(
        "--board",
        default="local",
        metavar="ADDRESS",
        help="local (default), ssh://user@host[:port] or adb://serial: what it lacks is sent, and removed",
    )
    _add_case(parser)
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--images",
        metavar="PATH",
        help="image, folder or pattern; 64 are taken at most (default: the bundle's test picture)",
    )
    pictures.add_argument(
        "--frame-size", type=size_wh, metavar="WxH", help="made pictures of this size, such as 640x480"
    )
    pictures.add_argument(
        "--val",
        metavar="CSV",
        help="columns file,label: judge the answers to these files of --images, a folder",
    )
    how_long = parser.add_argument_group("how long")
    how_long.add_argument(
        "--runs", type=int, default=5, metavar="N", help="repetitions of each case (default: 5)"
    )
    how_long.add_argument("--duration", type=float, metavar="S", help="least seconds of a run (default: 10)")
    how_long.add_argument(
        "--quick", action="store_true", help="runs of 1 s: for a first look, too short for heat"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write report.json, report.html, report.md there, a new folder"
    )
    parser.set_defaults(run=run)


def _add_case(parser: argparse.ArgumentParser) -> None:
    case = parser.add_argument_group("what is measured (lists with commas; all combinations)")
    case.add_argument(
        "--scenario",
        choices=("single-stream", "camera", "offline"),
        default="single-stream",
        help="single-stream: the next frame when the last is answered (default). camera: frames at --fps, "
        "the newest first, dropped ones counted. offline: batches, as many as it can",
    )
    case.add_argument("--engine", type=words, metavar="E,..", help="litert, onnxruntime, ncnn, or all")
    case.add_argument("--precision", type=words, metavar="P,..", help="fp32, fp16, int8, or all")
    case.add_argument(
        "--threads",
        type=counts,
        default=(),
        metavar="N,..",
        help="of the engine (default: cores, at most 4)",
    )
    case.add_argument(
        "--affinity",
        type=cores,
        metavar="LIST",
        help="cores that the engine is bound to, as in 0-3,6; 'all' for none (default)",
    )
    case.add_argument(
        "--size", type=_sizes, default=(), metavar="S,..", help="input sides, each alone, or all"
    )
    case.add_argument("--policy", metavar="P", help="fixed, entropy or two-look (default: the bundle's)")
    add_tuning(case)
    case.add_argument("--fps", type=float, default=15.0, metavar="F", help="of the camera (default: 15)")
    case.add_argument(
        "--batch", type=count, default=8, metavar="N", help="frames a call, offline (default: 8)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; 3 if the numbers cannot be trusted."""
    wanted, plan = _wanted(args), _plan(args)
    labelled = _labelled(args)
    if args.board != "local":
        return _run_elsewhere(args)
    from boardfit.benchmarks.bench import bench
    from boardfit.cli.bench_text import report_text
    from boardfit.cli.out_folder import new_folder
    from boardfit.cli.remote import typed_words

    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    with new_folder(args.out) as folder, quiet_engines():
        report = bench(
            args.bundle,
            _as_tuned(args, wanted, progress),
            plan=plan,
            images=[path for path, _ in labelled] or ([args.images] if args.images else []),
            frame_size_wh=args.frame_size,
            labelled=labelled,
            command=("boardfit", *typed_words(args.words)),
            progress=progress,
        )
        whole = folder is None or _written(folder, report)
    print(report_text(report))
    if args.out:
        print(f"wrote {args.out}")
    if not whole:
        return 1
    return 0 if report.valid else INVALID


def _written(folder: Path, report: Report) -> bool:
    """Write a report; False if only its pages failed: an hour of measuring is not lost for them."""
    from boardfit.benchmarks.store import write_report
    from boardfit.cli.bench_pages import write_pages

    write_report(folder, report)
    try:
        write_pages(folder, [report])
    except ReportError as error:
        print(f"boardfit: {error}; boardfit report makes the pages again", file=sys.stderr)
        return False
    return True


def _run_elsewhere(args: argparse.Namespace) -> int:
    """Run the same command on a board, and fetch what it wrote."""
    from boardfit.cli.out_folder import require_new
    from boardfit.cli.remote import require_address, run_remotely, without_board

    require_address(args.board)
    require_new(args.out)
    if args.images and not Path(args.images).exists():
        raise InputError(
            f"{args.images} is not there: name one image or one folder, which is sent to the board"
        )
    return run_remotely(
        args.board,
        list(without_board(args.words)),
        bundle=Path(args.bundle),
        inputs=[
            *(Path(path) for path in (args.images, args.val) if path is not None),
            *tuning_files(args.tuning),
        ],
        out=Path(args.out) if args.out else None,
        engines=tuned_engines(args.tuning, args.engine or ()),
        typed=args.words,
    )


def _wanted(args: argparse.Namespace) -> Wanted:
    from boardfit.benchmarks.cases import ALL, Wanted

    def names(words: tuple[str, ...] | None) -> tuple[str, ...] | str:
        return ALL if words == (ALL,) else words or ()

    return Wanted(
        scenario=args.scenario,
        engines=names(args.engine),
        precisions=names(args.precision),
        threads=args.threads,
        affinity=args.affinity or (),
        sizes=args.size,
        policy=args.policy,
        fps=args.fps,
        batch=args.batch,
    )


def _as_tuned(args: argparse.Namespace, wanted: Wanted, progress: Callable[[str], None]) -> Wanted:
    """Return what is wanted with what ``boardfit tune`` found for all that is left open, as in ``load``.

    Where several engines, precisions, threads or all sizes are to be compared, it stays as it is.
    """
    from dataclasses import replace

    from boardfit.benchmarks.cases import ALL
    from boardfit.bundle import open_bundle
    from boardfit.loading import advice
    from boardfit.runtime.choose import Setup

    named = (wanted.engines, wanted.precisions, wanted.threads)
    if wanted.sizes == ALL or any(each == ALL or len(each) > 1 for each in named):
        return wanted
    asked = Setup(
        engine=next(iter(wanted.engines), None),
        precision=next(iter(wanted.precisions), None),
        threads=next(iter(wanted.threads), None),
        affinity=args.affinity,
    )
    with open_bundle(args.bundle) as opened:
        size = wanted.sizes[0] if len(wanted.sizes) == 1 and isinstance(wanted.sizes[0], int) else None
        tuned = advice(opened, asked, policy=wanted.policy, size=size, tuning=args.tuning)
    if tuned is None or tuned.engine is None or tuned.precision is None or tuned.threads is None:
        return wanted
    progress(f"as tuned: {tuned.text}")
    return replace(
        wanted,
        engines=(tuned.engine,),
        precisions=(tuned.precision,),
        threads=(tuned.threads,),
        affinity=tuned.affinity or (),
    )


def _plan(args: argparse.Namespace) -> Plan:
    from boardfit.benchmarks.scenario import QUICK_S, Plan, plan_of

    if args.quick and args.duration is not None:
        raise RecipeError("--quick and --duration: give one of them")
    usual_s = QUICK_S if args.quick else Plan().duration_s
    return plan_of(runs=args.runs, duration_s=usual_s if args.duration is None else args.duration)


def _labelled(args: argparse.Namespace) -> Labelled:
    from boardfit.runtime.labels import read_labels

    if args.val is None:
        return ()
    if args.images is None or not Path(args.images).is_dir():
        raise RecipeError("--val names labels of images: say with --images in which folder those lie")
    return read_labels(args.val, args.images)


def _sizes(text: str) -> tuple[int, ...] | str:
    return "all" if text == "all" else counts(text)
