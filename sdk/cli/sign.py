"""boardfit sign: say with a key that this is the bundle which is meant."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.bundle import Bundle

EXAMPLE = """\
examples:
  boardfit sign lite0.boardfit --key release
  boardfit sign lite0.boardfit --key release --expires 2027-06-30T00:00:00Z -o signed.boardfit

Several keys sign one after the other. A signature is of the manifest, and so of every file that runs; the
measurements are outside. It is lost when the content changes (fit, pack): sign again.
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "sign",
        help="sign a bundle",
        description="Check every byte of a bundle and add a signature to it. What the key has signed before "
        "is replaced, what others have signed stays.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument("--key", metavar="KEY", required=True, help="a private key of boardfit keygen")
    parser.add_argument(
        "--expires",
        metavar="TIME",
        help="UTC, like 2027-06-30T00:00:00Z: from then on it is not to be installed; where it is installed "
        "it goes on running (default: never)",
    )
    parser.add_argument("-o", "--out", metavar="OUT", help="write a signed copy (default: BUNDLE itself)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bundle with one more signature."""
    from boardfit.bundle import open_bundle, verify_bundle, write_tree
    from boardfit.bundle.keys import read_private
    from boardfit.bundle.signing import sign
    from boardfit.cli.keygen import ask_passphrase

    key = read_private(args.key, ask_passphrase)
    verify_bundle(args.bundle)
    with open_bundle(args.bundle) as bundle:
        own = sign(key, bundle.content_id, expires=args.expires)
        others = [each for each in bundle.signatures if each.key_id != own.key_id]
        contents = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
        write_tree(
            args.out or args.bundle,
            bundle.manifest,
            contents=contents,
            measurements=bundle.measurements,
            signatures=[*others, own],
        )
        content_id = bundle.content_id
    print(f"signed {content_id} with key {own.key_id}, expires {own.expires or 'never'}")
    count = len(others) + 1
    print(f"wrote {args.out or args.bundle}, {count} signature{'s' if count > 1 else ''} in all")
    return 0


def lost_signatures_text(bundle: Bundle, kept: object) -> str:
    """Return what to say where a bundle's signatures do not go along with its changed content, or nothing."""
    if kept or not bundle.signatures:
        return ""
    return f"not signed: the {len(bundle.signatures)} signatures were of the other content; sign it again"
