"""The door: ``boardfit SUBCOMMAND``. One module per subcommand; nobody imports this package."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

from boardfit._version import __version__
from boardfit.cli.ends import end_at_once
from boardfit.errors import BoardfitError

SUBCOMMANDS = (
    *("build", "fit", "run", "watch", "inspect", "blame", "verify", "pack", "unpack"),
    *("bench", "boards", "doctor"),
    *("keygen", "sign"),
    *("report", "compare"),
    *("tune", "layers"),
    "image",
)

EXAMPLE = """\
examples:
  boardfit build model.keras --images photos -o model.boardfit
  boardfit run model.boardfit photos/*.jpg
  boardfit inspect model.boardfit

boardfit SUBCOMMAND --help shows more. BOARDFIT_DEBUG=1 shows the traceback of an error.
"""


_CAMERA_THREADS = ("read ", "sink ")
"""One that is in its library while the interpreter ends aborts the process."""


def entry() -> int:
    """Run the words of this process, which ends here where a thread of a camera or sink is left.

    Returns:
        Exit status, as of ``main``.
    """
    status = main()
    if any(thread.name.startswith(_CAMERA_THREADS) for thread in threading.enumerate()):
        end_at_once(status)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Words after the program's name; those of this process if None.

    Returns:
        Exit status: 0 if all went well, 1 after an error, 130 if interrupted. Wrong usage leaves
        through argparse with 2.
    """
    words = tuple(sys.argv[1:] if argv is None else argv)
    try:
        args = make_parser().parse_args(argv)
        args.words = words
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _raise_if_debugging()
        print("boardfit: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader went away ("| head"); what is still in the buffer must not raise at exit again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        # What is sent to boards and into images is not all of boardfit.
        if not (error.name or "").startswith("boardfit."):
            raise
        _raise_if_debugging()
        print(f"boardfit: error: {_left_out(words[0], error.name or '')}", file=sys.stderr)
        return 1
    except (BoardfitError, OSError) as error:
        _raise_if_debugging()
        print(f"boardfit: error: {error}", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="boardfit",
        description="Take a trained vision model to an edge board: one file that holds it in every "
        "format, proven against the original, and that chooses the input size frame by frame.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"boardfit {__version__}")
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    for name in SUBCOMMANDS:
        import_module(f"boardfit.cli.{name}").add_parser(subparsers)
    return parser


def _left_out(subcommand: str, module: str) -> str:
    extra = "[convert]" if module.startswith("boardfit.converters") else ""
    then = ", and copy the bundle here" if subcommand == "build" else ""
    return (
        f"boardfit {subcommand} needs {module}, which is left out on boards: type this on a laptop or server "
        f"with all of boardfit (pip install 'boardfit{extra}'){then}"
    )


def _raise_if_debugging() -> None:
    """Raise the exception that is being handled if the user wants to see where it comes from."""
    if os.environ.get("BOARDFIT_DEBUG", "") not in ("", "0"):
        raise
