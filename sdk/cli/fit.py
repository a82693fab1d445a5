"""boardfit fit: choose the size policy of a bundle on evidence."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.cli.tuned import add_tuning, tuned_engines, tuning_files, tuning_words
from boardfit.errors import RecipeError, RemoteError

if TYPE_CHECKING:
    from boardfit.converters.policy_evidence import Photo
    from boardfit.runtime.choose import Setup
    from boardfit.runtime.times import BoardTimes

EXAMPLE = """\
examples:
  boardfit fit model.boardfit --images photos                 label-free: agreement with the largest size
  boardfit fit model.boardfit --images photos --val labels.csv --max-drop 1.0
  boardfit fit model.boardfit --max-time 0.7                  from recorded answers, with this board's times
  boardfit fit model.boardfit --save-times board.json         only time this board
  boardfit fit model.boardfit --times board.json              from recorded answers, with another's times
  boardfit fit model.boardfit --board ssh://pi@kitchen        the same, timed there now
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "fit",
        help="choose the size policy of a bundle on evidence",
        description="Run every size once per image, then choose the policy: the least time at a given "
        "drop, or the best answers within a given time. Chosen on one half of the images, reported on the "
        "other. The bundle keeps the answers: a board solves again from its own times, without images.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help="the bundle; rewritten in place unless -o is given")
    parser.add_argument(
        "--images", metavar="DIR", help="photographs; without them the recorded answers serve"
    )
    parser.add_argument("--val", metavar="CSV", help="columns file,label: score right answers, not agreement")
    parser.add_argument("--times", metavar="FILE", help="times of another board, from --save-times there")
    parser.add_argument("--save-times", metavar="FILE", help="time this machine, write FILE, and stop")
    parser.add_argument(
        "--board",
        default="local",
        metavar="ADDRESS",
        help="whose times: local (default), ssh://user@host[:port] or adb://serial",
    )
    add_goal(parser)
    parser.add_argument("--engine", help="the engine to run and to time (default: as boardfit.load chooses)")
    add_tuning(parser)
    parser.add_argument("--report", metavar="FILE.html", help="write a page with plots and examples")
    parser.add_argument("-o", "--out", metavar="OUT", help="write the fitted bundle there instead")
    parser.set_defaults(run=run)


def add_goal(parser: argparse.ArgumentParser, prefix: str = "max") -> None:
    """Add --max-drop and --max-time, or with another prefix, of which one may be given."""
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument(
        f"--{prefix}-drop", type=float, metavar="POINTS", help="least time at this loss (default: 0.5 points)"
    )
    goal.add_argument(
        f"--{prefix}-time",
        type=float,
        metavar="SHARE",
        help="best answers within this share of the full time",
    )


def run(args: argparse.Namespace) -> int:
    """Fit and rewrite the bundle, or only save this machine's times."""
    if args.board != "local" and args.times:
        raise RecipeError("--times are another board's, and --board times one: leave out one of them")
    if args.save_times:
        return _save_times(args)
    from boardfit.cli.quiet import quiet_engines
    from boardfit.cli.text import fit_text, policy_text
    from boardfit.converters.policy_fit import fit_table, goal_of
    from boardfit.converters.refit import refit

    photos = choose_photos(args.images, args.val)
    with quiet_engines():
        result = refit(
            args.bundle,
            args.out or args.bundle,
            goal=goal_of(args.max_drop, args.max_time),
            photos=photos,
            board=_times(args),
            setup=_setup(args),
            progress=lambda text: print(text, file=sys.stderr, flush=True),
        )
    print(fit_table(result))
    print(f"chosen: {policy_text(result.policy)}")
    if result.policy.fit is not None:
        print(fit_text(result.policy.fit))
    print(f"wrote {args.out or args.bundle}")
    if args.report:
        from boardfit.cli.policy_report import write_policy_report

        write_policy_report(Path(args.report), args.out or args.bundle, result, photos or [])
        print(f"wrote {args.report}")
    return 0


def choose_photos(images: str | None, val: str | None) -> list[Photo] | None:
    """Return the images to fit on; None where none are named."""
    from boardfit.converters.policy_evidence import Photo, labelled_photos
    from boardfit.converters.samples import choose_images

    if images is None:
        if val is not None:
            raise RecipeError("--val names labels of images: say with --images where those lie")
        return None
    if val is not None:
        return labelled_photos(val, images)
    return [Photo(path=path) for path in choose_images(images, LIMIT)]


LIMIT = 5000
"""More images would make the recorded answers larger than a bundle's measurements may be."""


def _setup(args: argparse.Namespace) -> Setup:
    """Return what ``boardfit.load`` would run the bundle's sizes with: tuned, where it is."""
    from boardfit.bundle import open_bundle
    from boardfit.loading import advice
    from boardfit.runtime.choose import Setup

    asked = Setup(args.engine)
    with open_bundle(args.bundle) as bundle:
        tuned = advice(bundle, asked, policy="entropy", tuning=args.tuning)
    if tuned is not None:
        print(f"as tuned: {tuned.text}", file=sys.stderr)
    return tuned or asked


def _times(args: argparse.Namespace) -> BoardTimes | None:
    """Return the times of a file or of a board elsewhere; None to time this machine."""
    from boardfit.runtime.times import load_times

    if args.board == "local":
        return load_times(Path(args.times)) if args.times else None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        _time_elsewhere(args, out)
        return load_times(out)


def _time_elsewhere(args: argparse.Namespace, out: Path) -> None:
    """Time the bundle on a board, as that is tuned, and fetch the times.

    Raises:
        RemoteError: The board cannot be reached, or has not timed it.
    """
    from boardfit.cli.remote import require_address, run_remotely

    require_address(args.board)
    words = ["fit", args.bundle, "--save-times", str(out)]
    words += ["--engine", args.engine] if args.engine else []
    words += tuning_words(args.tuning)
    status = run_remotely(
        args.board,
        words,
        bundle=Path(args.bundle),
        inputs=tuning_files(args.tuning),
        out=out,
        engines=tuned_engines(args.tuning, (args.engine,) if args.engine else ()),
    )
    if status != 0 or not out.is_file():
        raise RemoteError(f"{args.board} has not timed {args.bundle} (exit status {status}): see above")


def _save_times(args: argparse.Namespace) -> int:
    if args.board != "local":
        _time_elsewhere(args, Path(args.save_times))
        return 0
    from boardfit.bundle import open_bundle
    from boardfit.cli.quiet import quiet_engines
    from boardfit.runtime.times import measure_board, save_times

    with open_bundle(args.bundle) as bundle, quiet_engines():
        board = measure_board(bundle, setup=_setup(args))
    save_times(Path(args.save_times), board)
    print(times_text(board))
    print(f"wrote {args.save_times}")
    return 0


def times_text(board: BoardTimes) -> str:
    """Return what looks and changes of size take, in one line."""
    rows = ", ".join(f"{s}: {1e3 * t:.2f} ms" for s, t in zip(board.sizes, board.times.look_s, strict=True))
    switch_ms = [1e3 * board.times.change_s(kind) for kind in ("entropy", "two-look")]
    return (
        f"{board.machine}: {rows}; a change of size {switch_ms[0]:.2f} ms, two-look's {switch_ms[1]:.2f} ms"
    )
