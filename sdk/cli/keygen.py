"""boardfit keygen: a key to sign bundles with."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = """\
examples:
  boardfit keygen release
  boardfit keygen release --passphrase

release is the private key, which signs and which nobody else may see; release.pub goes to the boards.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "keygen",
        help="make a key to sign bundles with",
        description="Make an Ed25519 key: KEY, which its owner alone can read, and KEY.pub. Both are PEM.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("key", metavar="KEY", help="name of the file of the private key")
    parser.add_argument(
        "--passphrase",
        action="store_true",
        help="encrypt the private key; asked on the terminal, or taken from BOARDFIT_PASSPHRASE",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the two files."""
    from boardfit.bundle.keys import PUBLIC_SUFFIX, write_key_pair

    public = write_key_pair(args.key, ask_passphrase(twice=True) if args.passphrase else None)
    print(f"wrote {args.key} (private: keep it) and {args.key}{PUBLIC_SUFFIX} (for those who check)")
    print(f"key id {public.key_id}")
    return 0


def ask_passphrase(*, twice: bool = False) -> bytes:
    """Return the passphrase of a private key, from BOARDFIT_PASSPHRASE or the terminal.

    Args:
        twice: Ask again, and compare.

    Raises:
        RecipeError: It is empty, or the two differ.
    """
    import os
    from getpass import getpass

    from boardfit.errors import RecipeError

    given = os.environ.get("BOARDFIT_PASSPHRASE")
    try:
        phrase = given if given is not None else getpass("passphrase of the key: ")
        again = getpass("again: ") if given is None and twice else phrase
    except EOFError as error:
        raise RecipeError(
            "the key needs a passphrase, and nobody answers: set BOARDFIT_PASSPHRASE"
        ) from error
    if not phrase or phrase != again:
        raise RecipeError("the passphrase is empty, or the two differ: try again")
    return phrase.encode()
