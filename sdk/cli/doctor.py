"""boardfit doctor: what is missing on this machine, and what to type."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.errors import BundleError

if TYPE_CHECKING:
    from boardfit.boards.detect import Board
    from boardfit.cli.checkup import Finding

EXAMPLE = """\
examples:
  boardfit doctor                     what is missing here, with the command to type
  boardfit doctor lite0.boardfit      and does each engine here answer as it did where it was built?
  boardfit doctor --json | jq '.findings[] | select(.command != "")'

Exit status 1 if something that is needed is missing, or an answer is wrong.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "doctor",
        help="name what is missing on this machine, with the command to type",
        description="Try every library that this board needs, name each missing wheel or system library with "
        "the command to install it, say which engines are usable and whether a camera can be reached; of a "
        "bundle, run the golden input on each usable engine.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a .boardfit file or folder")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything; 1 if something needed is missing or wrong."""
    from boardfit.boards.detect import detect

    board = detect()
    found = []
    if not args.json:
        print(f"{board.profile.title}; {board.cpu}; {board.os_name or 'unknown system'}", flush=True)
    for finding in examine(board, args.bundle):
        found.append(finding)
        if not args.json:
            print(_line(finding), flush=True)
    bad = [finding for finding in found if finding.bad]
    if args.json:
        findings = [asdict(finding) for finding in found]
        print(json.dumps({**board.to_dict(), "findings": findings, "healthy": not bad}, indent=2))
    else:
        print(f"not ready: {', '.join(finding.name for finding in bad)}" if bad else "ready")
    return 1 if bad else 0


def examine(board: Board, path: str | None) -> Iterator[Finding]:
    """Yield what is found, in the order in which it is looked at.

    Args:
        board: Where we are.
        path: Of a bundle; None for the machine alone.
    """
    from boardfit.cli import checkup

    yield from _system(board)
    base = checkup.base_libraries(board)
    yield from base
    if any(finding.bad for finding in base):
        yield checkup.Finding("engines", checkup.NOTE, "not tried before these libraries are there")
    else:
        yield from _with_libraries(board, path)


def _with_libraries(board: Board, path: str | None) -> Iterator[Finding]:
    """Yield what can be found only where numpy and OpenCV are: these modules import them."""
    from boardfit.boards.probes import Probes
    from boardfit.bundle import open_bundle
    from boardfit.cli import checkup
    from boardfit.cli.camera_check import camera, sensors

    engines = checkup.engines(board)
    yield from engines
    yield from camera(board)
    yield from sensors(board, Probes(board.profile).read(0.0))
    try:
        with open_bundle(path) if path else nullcontext() as bundle:
            yield from checkup.enough_engines(engines, bundle)
            if path and bundle is not None:
                yield from checkup.answers(path, bundle, engines)
    except BundleError as error:
        yield checkup.Finding("bundle", checkup.WRONG, str(error))


def _system(board: Board) -> Iterator[Finding]:
    from boardfit.cli.checkup import NOTE, OK, Finding

    yield Finding("python", OK, f"{platform.python_version()}, {board.bits} bits")
    if board.bits == 32 and board.machine == "aarch64":
        text = "32 bits on a 64-bit kernel: LiteRT and ONNX Runtime have no wheels for it"
        yield Finding("python", NOTE, text)
    if _is_managed():
        text = "the system's own: pip installs into a virtual environment only"
        yield Finding("python", NOTE, text, "python3 -m venv --system-site-packages VENV")
    if board.emulated:
        yield Finding("processor", NOTE, f"emulated ({board.emulation}): its times are no board's")


def _is_managed() -> bool:
    """Return whether pip would refuse to install here (PEP 668), as on Debian 12 and later."""
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    return sys.prefix == sys.base_prefix and marker.is_file()


def _line(finding: Finding) -> str:
    line = f"{finding.state:8s}{finding.name}: {finding.text}"
    return f"{line}\n{'':8s}{finding.command}" if finding.command else line
