"""The option --tuning of every subcommand that runs a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_tuning(parser: Any) -> None:
    """Add --tuning: True for this board's own, False for none, or a path."""
    parser.add_argument(
        "--tuning",
        type=_tuning,
        default=True,
        metavar="FILE",
        help="a tuning.json of boardfit tune, or 'none' (default: this board's own, where there is one)",
    )


def tuning_words(tuning: str | bool) -> list[str]:
    """Return the words that say --tuning again; none for the default."""
    return [] if tuning is True else ["--tuning", tuning or "none"]


def tuning_files(tuning: str | bool) -> list[Path]:
    """Return the file that a board needs which runs with --tuning; none where it names none."""
    return [Path(tuning)] if isinstance(tuning, str) else []


def tuned_engines(tuning: str | bool, engines: Sequence[str]) -> tuple[str, ...]:
    """Return what engines a board needs: a tuning holds only beside all that it was made with."""
    return (*engines, "all") if isinstance(tuning, str) else tuple(engines)


def _tuning(text: str) -> str | bool:
    if not text:
        raise argparse.ArgumentTypeError("expected a file, or 'none'")
    return False if text == "none" else text
