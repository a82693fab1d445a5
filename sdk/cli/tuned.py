"""The option --tuning of every subcommand that runs a bundle."""

from __future__ import annotations

import argparse
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


def _tuning(text: str) -> str | bool:
    if not text:
        raise argparse.ArgumentTypeError("expected a file, or 'none'")
    return False if text == "none" else text
