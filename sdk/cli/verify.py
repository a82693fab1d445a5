"""boardfit verify: is every byte of a bundle right, and does this machine compute what it should?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from boardfit.cli.quiet import quiet_engines

if TYPE_CHECKING:
    from boardfit.bundle import Bundle
    from boardfit.runtime.selftest import SelfTest

EXAMPLE = """\
examples:
  boardfit verify lite0.boardfit
  boardfit verify lite0.boardfit --engine onnxruntime
  boardfit verify lite0.boardfit --bytes-only
  boardfit verify lite0.boardfit --key release.pub  may it be installed?
  boardfit verify lite0.boardfit --images photos    the gate of int8 again, on this machine
"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "verify",
        help="check every byte of a bundle, and its answers on this machine",
        description="Check every hash, every size and every byte between the files; then run the bundle's "
        "golden frame on each installed engine and compare with what the source model answered.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument("--engine", metavar="NAME", help="test this engine only (default: all installed)")
    parser.add_argument(
        "--images", metavar="DIR", help="photographs of the build: repeat the gate of int8 on them"
    )
    parser.add_argument(
        "--key",
        action="append",
        metavar="PUB",
        help="a public key that is trusted, given again for each: one of them must have signed",
    )
    parser.add_argument(
        "--threshold", type=int, default=1, metavar="N", help="so many of --key must have signed (default: 1)"
    )
    parser.add_argument(
        "--installed", action="store_true", help="an expired signature counts: the bundle is in use already"
    )
    parser.add_argument("--bytes-only", action="store_true", help="run no engine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify; 1 if an engine's answer is wrong. Damage raises BundleError."""
    from boardfit.bundle import open_bundle, verify_bundle

    verify_bundle(args.bundle)
    with open_bundle(args.bundle) as bundle:
        print(f"bytes: all {len(bundle.manifest.files)} files as listed, content id {bundle.content_id}")
        if args.key:
            print(_signed_text(bundle, args))
        if args.bytes_only:
            return 0
        status = 0
        if bundle.manifest.golden is None:
            print("answers: not tested, the bundle carries no golden frame")
        else:
            status = _test_answers(bundle, args.engine)
        return max(status, _repeat_gate(bundle, args)) if args.images else status


def _signed_text(bundle: Bundle, args: argparse.Namespace) -> str:
    """Check the signatures as for installing, unless it is installed; return who signed."""
    from boardfit.bundle.trust import require_trusted

    good = require_trusted(bundle, args.key, threshold=args.threshold, installing=not args.installed)
    names = ", ".join(f"{each.key_id[:16]} (expires {each.expires or 'never'})" for each in good)
    return f"signed: by {names}"


def _repeat_gate(bundle: Bundle, args: argparse.Namespace) -> int:
    """Print the gate's verdicts on this machine; 1 if one is outside."""
    from boardfit.cli.regate import regate, regate_table

    rows = regate(bundle, args.images, engine=args.engine)
    print(regate_table(rows))
    outside = [row for row in rows if not row.verdict.passed]
    print(f"gate: {len(rows) - len(outside)} inside, {len(outside)} outside, on this machine")
    return 1 if outside else 0


def _test_answers(bundle: Bundle, wanted: str | None) -> int:
    """Run the self-test engine by engine, so that one that fails hides no other."""
    from boardfit.errors import EngineError
    from boardfit.runtime.selftest import self_test

    installed, absent = _engines(bundle)
    records: list[SelfTest] = []
    failures: list[str] = []
    for name in [wanted] if wanted else installed:
        try:
            with quiet_engines():
                records += self_test(bundle, engine=name)
        except EngineError as error:
            failures.append(f"FAILED {name}: {error}")
    if records:
        print(_table(records))
    failures += [f"FAILED {r.artifact} at {r.size} on {r.engine}" for r in records if not r.passed]
    if absent and not wanted:
        print(f"not tried, since not installed: {', '.join(absent)}")
    tested = len(records) - sum(not record.passed for record in records)
    if failures:
        print("\n".join(failures))
        print("answers: WRONG on this machine; use another engine or artifact, or rebuild the bundle")
        return 1
    print(
        f"answers: {tested} right"
        if tested
        else "answers: not tested, no engine for these formats is installed"
    )
    return 0


def _engines(bundle: Bundle) -> tuple[list[str], list[str]]:
    """Return the engines that run one of the bundle's formats: the installed, and the others."""
    from boardfit.runtime.engines import available_engines, engine_classes, is_installed

    formats = {artifact.format for artifact in bundle.manifest.artifacts}
    able = {name: found for name, found in engine_classes().items() if formats & set(found.formats)}
    installed = sorted({name for format_name in formats for name in available_engines(format_name)})
    return installed, sorted(
        name for name, found in able.items() if getattr(found, "libraries", ()) and not is_installed(found)
    )


def _table(records: list[SelfTest]) -> str:
    from boardfit.cli.text import table

    rows = [
        [
            record.artifact,
            record.engine,
            str(record.size),
            f"{record.error:.1e}",
            f"{record.cosine:.6f}",
            "ok" if record.passed else "WRONG",
        ]
        for record in records
    ]
    return table(["artifact", "engine", "size", "error/range", "cosine", "answer"], rows, left=(0, 1, 5))
