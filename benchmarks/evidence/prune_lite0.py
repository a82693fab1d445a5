"""EfficientNet-Lite0 with a fifth of its multiplications gone, and what 1,000 photographs bring back.

    python benchmarks/evidence/prune_lite0.py WORK lite0.keras --held --epochs 2  trains on 700, scores 300
    python benchmarks/evidence/prune_lite0.py WORK lite0.keras                    on all, scores photos_score
    python benchmarks/evidence/prune_lite0.py WORK lite0.keras --table

Channels are chosen and the net is taught on photos_fit, whose labels are not read: the teacher is Lite0 as it
was. Each number of epochs is a training of its own, 0 is none. Settings are chosen with --held; what is
reported are the runs without it. Each run resumes where it stopped, is recorded in results/prune_lite0.jsonl,
and is not repeated once it is recorded.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cifar import record, recorded
from elastic_lite0 import compare, lite0_and_photos, training_of

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.prune_time import EngineClock
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.ingest.survey import layer_rows
from boardfit.converters.recipe_prune import PruneSection
from boardfit.timing import machine_name

SIZE = 224
ENGINES = ("litert", "onnxruntime", "ncnn")
RESULTS = Path(__file__).parent / "results" / "prune_lite0.jsonl"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("model")
    parser.add_argument(
        "--held", action="store_true", help="score photographs that are kept from the training"
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 3, 6])
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--norms", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--macs", type=float, default=0.2, help="share of the multiplications that goes")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is recorded")
    args = parser.parse_args(argv)
    print("| epochs | top-1 before | after | difference | 95 % interval | macs | time |")
    print("|---|---|---|---|---|---|---|")
    for epochs in args.epochs:
        name = (
            f"{'held' if args.held else 'score'} macs={args.macs:g} epochs={epochs} "
            f"rate={args.learning_rate if epochs else 0:g}"
            f"{' norms=' + args.norms if epochs else ''}"
        )
        row = recorded(RESULTS, name)
        if row is None and not args.table:
            row = run(args, name, epochs)
            record(RESULTS, row)
        if row is not None:
            before, after, low, high = row["right"]
            times = ", ".join(f"{engine} {ratio:.2f}" for engine, ratio in row["time"].items())
            gained = f"{after - before:+.1f} | {low:+.1f} to {high:+.1f}"
            print(f"| {epochs} | {before:.1f} | {after:.1f} | {gained} | {row['macs']:.2f} | {times} |")
    return 0


def run(args: Any, name: str, epochs: int) -> dict[str, Any]:
    """Prune, train, and score both nets on the same photographs."""
    source, read, scored = lite0_and_photos(args.model, (SIZE,), held=args.held)
    stage = Prune(PruneSection(macs=args.macs, criterion="taylor"), SIZE, images=read)
    result = run_stage(stage, source)
    model, notes = result.model, result.notes
    if epochs:
        training = training_of(name, work=args.work, epochs=epochs, learning_rate=args.learning_rate)
        taught = Distill(
            size=SIZE,
            images=read,
            labelled=False,
            training=training,
            options=DistillOptions(norms=args.norms),
            teacher=source,
        )
        result = run_stage(taught, model)
        model, notes = result.model, (*notes, *result.notes)
    macs = [sum(row.macs for row in layer_rows(each.net, SIZE)) for each in (source, model)]
    return {
        "name": name,
        "machine": machine_name(),
        "macs": macs[1] / macs[0],
        "time": {engine: round(EngineClock(engine, SIZE)(source, model), 3) for engine in ENGINES},
        "right": compare(source, model, scored, SIZE),
        "notes": list(notes),
    }


if __name__ == "__main__":
    sys.exit(main())
