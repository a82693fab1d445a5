"""boardfit boards: which boards are known, what is known of one, and where we are."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.boards.profile import Profile

EXAMPLE = """\
examples:
  boardfit boards                              all that are known
  boardfit boards raspberry-pi-5               what is known of one, with its sources
  boardfit boards detect                       where are we, and how is this board doing?
  boardfit boards detect --json | jq .board
"""

DETECT = "detect"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "boards",
        help="list the boards that are known, show one, or tell where we are",
        description="List the boards that are known; show one: cores, memory, engines in order of "
        "preference, sensors, systems, each number with its source; or tell where we are and how the board "
        "is doing.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("board", metavar="NAME", nargs="?", help=f"a board's name, or {DETECT!r}")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List, show or detect."""
    from boardfit.boards.profile import find_profile, profiles

    if args.board == DETECT:
        _print_here(as_json=args.json)
    elif args.board is None:
        found = profiles()
        print(json.dumps([each.to_dict() for each in found], indent=2) if args.json else _list(found))
    else:
        from boardfit.cli.board_text import profile_text

        one = find_profile(args.board)
        print(json.dumps(one.to_dict(), indent=2) if args.json else profile_text(one))
    return 0


def _print_here(*, as_json: bool) -> None:
    import time

    from boardfit.boards.detect import detect
    from boardfit.boards.probes import Probes
    from boardfit.cli.board_text import board_text

    board = detect()
    snapshot = Probes(board.profile).read(time.time())
    if as_json:
        print(json.dumps({**board.to_dict(), "now": snapshot.to_dict()}, indent=2))
    else:
        print(board_text(board, snapshot))


def _list(found: tuple[Profile, ...]) -> str:
    from boardfit.cli.board_text import cores_short, memory_short
    from boardfit.cli.text import table

    rows = [
        [each.name, each.title, cores_short(each), memory_short(each), " ".join(each.instructions)]
        for each in found
    ]
    return table(["name", "board", "cores", "memory", "instructions"], rows, left=(0, 1, 2, 3, 4))
