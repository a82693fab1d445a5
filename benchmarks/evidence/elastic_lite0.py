"""EfficientNet-Lite0 made elastic on the 1,000 photographs of photos_fit; the teacher is Lite0 itself.

    python benchmarks/evidence/elastic_lite0.py WORK lite0.keras --held     trains on 700, scores 300
    python benchmarks/evidence/elastic_lite0.py WORK lite0.keras            trains on all, scores photos_score

Settings are chosen with --held; what is reported is the run without it. Each run resumes where it stopped, is
recorded in results/elastic_lite0.jsonl, and is not repeated once it is recorded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from cifar import record, recorded
from elastic_cifar import Told
from photos import labelled

from boardfit.converters.compress.elastic import Elastic
from boardfit.converters.compress.elastic_net import ElasticOptions
from boardfit.converters.compress.images import Augment, ImageSet, load_image_set
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.image_specs import IMAGE_SPECS
from boardfit.converters.ingest import ingest
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.converters.policy_solve import interval
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.timing import machine_name

SIZES = (112, 160, 224)
HELD_OUT = 300
RESULTS = Path(__file__).parent / "results" / "elastic_lite0.jsonl"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("model")
    parser.add_argument("--held", action="store_true")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--norms", choices=("frozen", "batch"), default="frozen")
    parser.add_argument("--kernels", choices=("frozen", "trained"), default="frozen")
    parser.add_argument("--hint", type=float, default=0.0, help="weight of the feature hint")
    args = parser.parse_args(argv)
    name = (
        f"{'held' if args.held else 'score'} epochs={args.epochs} rate={args.learning_rate:g} "
        f"norms={args.norms} kernels={args.kernels}" + (f" hint={args.hint:g}" if args.hint else "")
    )
    row = recorded(RESULTS, name) or run(args, name)
    print(row["machine"], row["name"], f"{row['seconds']} s")
    print("| size | before | after | gained | 95 % interval |\n|---|---|---|---|---|")
    for size, (before, after, low, high) in row["right"].items():
        print(f"| {size} | {before:.1f} | {after:.1f} | {after - before:+.1f} | {low:+.1f} to {high:+.1f} |")
    return 0


def run(args: Any, name: str) -> dict[str, Any]:
    """Train, score both nets on the same photographs, and record it."""
    source, read, scored = lite0_and_photos(args.model, SIZES, held=args.held)
    training = training_of(name, work=args.work, epochs=args.epochs, learning_rate=args.learning_rate)
    options = ElasticOptions(shares=(0.0, 0.25, 0.75), norms=args.norms, kernels=args.kernels, hint=args.hint)
    stage = Elastic(sizes=SIZES, images=read, labelled=False, training=training, options=options)
    result = run_stage(stage, source)
    row = {
        "name": name,
        "machine": machine_name(),
        "seconds": int(float(result.notes[-1].split(" s,")[0].split()[-1])),
        "right": {str(size): compare(source, result.model, scored, size) for size in SIZES},
    }
    record(RESULTS, row)
    return row


def lite0_and_photos(
    model: str, sizes: tuple[int, ...], *, held: bool
) -> tuple[TrainedModel, Callable[[int], ImageSet], list[tuple[Path, int]]]:
    """Return Lite0, what reads the photographs to train on at a side, and those that are scored."""
    photos = list(labelled("photos_fit"))
    order = np.random.default_rng(0).permutation(len(photos))
    rows = order[HELD_OUT:] if held else order
    scored = [photos[i] for i in order[:HELD_OUT]] if held else list(labelled("photos_score"))
    image = IMAGE_SPECS["efficientnet-lite"]
    source = ingest(SourceRequest(source=model, sizes=sizes, image=image), kind=None)
    paths = [photos[i][0] for i in rows]
    return source, lambda side: load_image_set(paths, image=image, side=side), scored


def training_of(name: str, *, work: Path, epochs: int, learning_rate: float) -> Training:
    """Return how Lite0 is trained on few photographs; it goes on where a run of that name stopped."""
    return Training(
        epochs=epochs,
        batch=32,
        optimizer="adamw",
        learning_rate=learning_rate,
        weight_decay=1e-2,
        augment=Augment(shift=0.1, min_scale=0.7),
        folder=work / name.replace(" ", "_"),
        resume=True,
        watch=Told(),
    )


def compare(
    before: TrainedModel, after: TrainedModel, photos: list[tuple[Path, int]], size: int
) -> tuple[float, float, float, float]:
    """Return right answers in per cent before and after, and the interval of the difference in points."""
    preprocessor = Preprocessor(before.image, "NHWC")
    tensor = np.concatenate([preprocessor.fit(read_image(path), size)[0] for path, _ in photos])
    truth = np.array([label for _, label in photos])
    hits = [np.asarray(net.reference(tensor)[0]).argmax(axis=1) == truth for net in (before, after)]
    low, high = interval(hits[1].astype(float) - hits[0])
    return float(100 * hits[0].mean()), float(100 * hits[1].mean()), low, high


if __name__ == "__main__":
    sys.exit(main())
