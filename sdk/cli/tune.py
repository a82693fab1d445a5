"""boardfit tune: the fastest engine, precision, threads and cores of a bundle, on this board."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.cli.lists import cores, counts, words
from boardfit.errors import RecipeError

if TYPE_CHECKING:
    from boardfit.benchmarks.candidates import Field
    from boardfit.benchmarks.trial_bench import Meter
    from boardfit.benchmarks.tune import Plan
    from boardfit.benchmarks.tuning import Tuning
    from boardfit.boards.profile import Profile
    from boardfit.bundle import Bundle, Manifest

EXAMPLE = """\
examples:
  boardfit tune model.boardfit
  boardfit tune model.boardfit --engine litert,onnxruntime --threads 1,2
  boardfit tune model.boardfit --affinity 4-7 --affinity 0-3   bound to the big cores, or to the small ones
  boardfit tune model.boardfit --save-times board.json         for boardfit fit --times, on any machine
  boardfit tune model.boardfit --out tuning.json               for boardfit.load(..., tuning="tuning.json")
  boardfit tune model.boardfit --board ssh://pi@kitchen        the same, tuned on that board

What is found is kept in this user's cache, and boardfit.load uses it on this board as long as the engines and
the bundle's models stay the same. After Ctrl-C the same command goes on where it was.
"""

SHOWN = 3
"""So many setups of each size are printed."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand's arguments."""
    parser = subparsers.add_parser(
        "tune",
        help="find the fastest engine, precision, threads and cores on this board",
        description="Time every setup that the bundle's own proofs admit, in turn and by successive halving, "
        "for each size; boardfit.load then uses the best.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a .boardfit file or folder")
    parser.add_argument(
        "--board",
        default="local",
        metavar="ADDRESS",
        help="local (default), ssh://user@host[:port] or adb://serial: what it lacks is sent, and removed; "
        "what was found comes here, to --out (default then: tuning.json)",
    )
    parser.add_argument("--engine", type=words, metavar="A,B", help="only these (default: what is installed)")
    parser.add_argument(
        "--precision",
        type=words,
        metavar="A,B",
        help="only these, and without asking the bundle's gate (default: what its gate and parity admit)",
    )
    parser.add_argument("--threads", type=counts, metavar="N,N", help="default: 1, 2, 4 up to the cores")
    parser.add_argument(
        "--affinity",
        type=cores,
        action="append",
        metavar="LIST",
        help="bind the engine to these cores, as in 0-3,6; may be given again; 'all' for unbound (default: "
        "unbound, and each kind of core where there are several)",
    )
    parser.add_argument("--size", type=counts, metavar="S,S", help="only these (default: all)")
    parser.add_argument(
        "--for",
        dest="goal",
        choices=("p95", "energy"),
        default="p95",
        help="what is to be least: the 95th percentile of the time (default), or joules per frame, where the "
        "board tells its power",
    )
    parser.add_argument("--runs", type=int, metavar="N", help="timed runs of the finalists (default: 96)")
    parser.add_argument(
        "--exhaustive", action="store_true", help="give every setup all runs: slower, to compare with"
    )
    parser.add_argument("--save-times", metavar="FILE", help="also time each look as tuned, for boardfit fit")
    parser.add_argument("-o", "--out", metavar="FILE", help="write the tuning there, not into the cache")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tune and write what was found."""
    if args.board != "local":
        return _run_elsewhere(args)
    from boardfit.benchmarks.candidates import Wish, candidates, core_groups
    from boardfit.benchmarks.tune import RUNS, Plan
    from boardfit.benchmarks.tuning import write_tuning
    from boardfit.boards.detect import detect
    from boardfit.bundle import open_bundle
    from boardfit.cli.quiet import quiet_engines

    wish = Wish(
        engines=args.engine,
        precisions=args.precision,
        threads=args.threads,
        affinities=None if args.affinity is None else tuple(dict.fromkeys(args.affinity)),
        sizes=args.size,
    )
    board = detect()
    with open_bundle(args.bundle) as bundle:
        field = candidates(bundle, wish, cores=board.cores, groups=core_groups())
        meter = _meter(board.profile) if args.goal == "energy" else None
        plan = Plan(
            goal=args.goal,
            runs=RUNS if args.runs is None else args.runs,
            exhaustive=args.exhaustive,
            at_once=_at_once(bundle),
        )
        out = _out(args, bundle.manifest)
        if board.emulated:
            print("the processor is emulated: what is found says nothing of a real board", file=sys.stderr)
        with quiet_engines():
            tuning = _tuned(bundle, field, plan, meter, board=board.profile.name, out=out)
        write_tuning(out, tuning)
        print(tuning_text(tuning, bundle.manifest))
        print(f"wrote {out}" + ("" if args.out else ": boardfit.load uses it on this board"))
        if args.save_times:
            _save_times(bundle, tuning, Path(args.save_times))
    return 0


def _run_elsewhere(args: argparse.Namespace) -> int:
    """Run the same command on a board, and fetch what it found."""
    from boardfit.cli.remote import require_address, run_remotely, without_board

    require_address(args.board)
    if args.save_times:
        raise RecipeError("--save-times is of this machine: of another there is boardfit fit --board")
    words = list(without_board(args.words))
    out = args.out or "tuning.json"
    if not args.out:
        words += ["--out", out]
    if not Path(out).absolute().parent.is_dir() or Path(out).is_dir():
        raise RecipeError(f"{out} is a folder, or lies in none: give the path of a file with --out")
    return run_remotely(
        args.board,
        words,
        bundle=Path(args.bundle),
        out=Path(out),
        engines=args.engine or ("all",),
        typed=args.words,
    )


def _meter(profile: Profile) -> Meter:
    """Return what meters energy on this board.

    Raises:
        RecipeError: The board does not tell its power.
    """
    from boardfit.benchmarks.energy import energy_meter, total_w
    from boardfit.boards.probes import Probes

    probes = Probes(profile)
    if total_w(probes.read(0.0).power_w) is None:
        raise RecipeError(f"{profile.title} does not tell its power here: tune --for p95")
    return energy_meter(lambda: total_w(probes.read(0.0).power_w))


def _tuned(bundle: Bundle, field: Field, plan: Plan, meter: Meter | None, *, board: str, out: Path) -> Tuning:
    from boardfit.benchmarks.journal import Journal
    from boardfit.benchmarks.tune import subject, tune
    from boardfit.benchmarks.tuning import key_here
    from boardfit.boards.probes.load import BusyShare

    key = key_here(bundle.manifest, [str(setup.engine) for setup in field.setups])
    journal = Journal(out.with_name(f"{out.name}.part"), subject(bundle, field, key, plan))
    journal.check()
    if journal.resumed:
        print(f"going on after {journal.resumed} steps of an earlier run", file=sys.stderr)
    sizes = len(field.by_size)
    print(f"{len(field.setups)} setups at {sizes} size{'s' * (sizes > 1)}", file=sys.stderr, flush=True)
    try:
        tuning = tune(
            bundle,
            field,
            key=key,
            board=board,
            plan=plan,
            journal=journal,
            meter=meter,
            progress=lambda text: print(text, file=sys.stderr, flush=True),
            busy_share=BusyShare(Path("/"), time.process_time).read,
        )
    except KeyboardInterrupt:
        print("what was timed is kept: the same command goes on from there", file=sys.stderr)
        raise
    journal.remove()
    return tuning


def tuning_text(tuning: Tuning, manifest: Manifest) -> str:
    """Return the best setups of each size, and what the bundle's own policy gets."""
    from boardfit.cli.text import table
    from boardfit.loading import answering_sizes

    rows = []
    for size in tuning.sizes:
        for trial in tuning.ranked(size)[:SHOWN]:
            cells = [f"{trial.p50_s * 1e3:.2f}", f"{trial.p95_s * 1e3:.2f}", str(trial.runs)]
            energy = [] if trial.energy_j is None else [f"{trial.energy_j * 1e3:.1f}"]
            rows.append([str(size), trial.setup.text, *cells, *energy])
    energy = ["mJ"] if tuning.goal == "energy" else []
    lines = [table(["size", "setup", "p50 ms", "p95 ms", "runs", *energy], rows, left=(1,))]
    lines += [f"left out: {reason}" for reason in tuning.left_out]
    lines += [f"disturbed: {what}: tune again on a quieter machine" for what in tuning.disturbed]
    sizes = answering_sizes(manifest)
    chosen = tuning.choose(sizes)
    if chosen is not None:
        lines.append(f"for the bundle's policy, at {', '.join(map(str, sizes))}: {chosen.text}")
    return "\n".join(lines)


def _save_times(bundle: Bundle, tuning: Tuning, path: Path) -> None:
    from boardfit.cli.fit import times_text
    from boardfit.cli.quiet import quiet_engines
    from boardfit.runtime.times import measure_board, save_times

    chosen = tuning.choose(bundle.manifest.sizes)
    if chosen is None:
        raise RecipeError(
            f"the times of {list(bundle.manifest.sizes)} are asked for, and {list(tuning.sizes)} are tuned: "
            "leave out --size"
        )
    with quiet_engines():
        board = measure_board(bundle, setup=chosen)
    save_times(path, board)
    print(f"{chosen.text}: {times_text(board)}")
    print(f"wrote {path}")


def _out(args: argparse.Namespace, manifest: Manifest) -> Path:
    from boardfit.benchmarks.tuning import machine_here, models_id, own_path

    if args.out and Path(args.out).is_dir():
        raise RecipeError(f"{args.out} is a folder: give the path of a file with --out")
    return Path(args.out) if args.out else own_path(models_id(manifest), machine_here())


def _at_once(bundle: Bundle) -> int:
    """Return how many sessions half of the free memory holds; as guessed from the files that each loads."""
    from boardfit.boards.probes.memory import read_memory

    available = read_memory(Path("/")).available_bytes
    sizes = {entry.path: entry.size_bytes for entry in bundle.manifest.files}
    files = max(sum(sizes[path] for path in artifact.files) for artifact in bundle.manifest.artifacts)
    # The file, the engine's packed copy of it, a third for safety, and what runs through, which is a guess.
    each = 3 * files + (48 << 20)
    return 64 if available is None else max(2, min(64, available // 2 // each))
