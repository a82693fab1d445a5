"""What is given besides every frame: ``--input NAME=FILE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.specs import TensorSpec


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--input",
        action="append",
        dest="given",
        metavar="NAME=FILE",
        help="for a net that takes more than the frame: numbers (.npy) or a picture, the same for every "
        "frame; once for each input",
    )


def read_given(words: Sequence[str] | None, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Read the files that the options name.

    Args:
        words: ``NAME=FILE`` each, or None.
        specs: Of the inputs besides the frame, under the model's names.

    Returns:
        Arrays and frames by name; whether they fit is for the session to say.

    Raises:
        InputError: A word is no NAME=FILE, or a file cannot be read.
    """
    import numpy as np

    from boardfit.errors import InputError
    from boardfit.runtime.images import read_image

    images = {spec.name for spec in specs if spec.layout}
    given: dict[str, Any] = {}
    for word in words or []:
        name, _, path = word.partition("=")
        if not name or not path:
            raise InputError(f"--input {word}: expected NAME=FILE")
        try:
            given[name] = read_image(path) if name in images else np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"--input {word}: {path} cannot be read as .npy ({error})") from error
    return given
