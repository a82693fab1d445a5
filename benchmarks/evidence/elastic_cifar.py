"""Elastic training against the same net trained at one size, on CIFAR-10: sizes 32, 24 and 16.

    python benchmarks/evidence/elastic_cifar.py WORK [--epochs 15] [--only plain|elastic]

Two trainings of one seed: at 32 alone, and elastic. Each resumes where it stopped, is recorded in
results/elastic_cifar.jsonl, and is not run again once it is recorded. WORK keeps the images and checkpoints;
the nets lie in nets/.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cifar import IMAGE, cifar, record, recorded, resnet20

from boardfit.converters.compress.elastic_net import DEALT, LARGEST, TOGETHER, ElasticNet, ElasticOptions
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import view, with_private_norms
from boardfit.converters.compress.train import Moment, Phase, Training, train
from boardfit.timing import machine_name

SIZES = (16, 24, 32)
NETS = Path(__file__).parent / "nets"
RESULTS = Path(__file__).parent / "results" / "elastic_cifar.jsonl"
SEED = 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--only", choices=("plain", "elastic"))
    args = parser.parse_args(argv)
    sets = cifar(args.work)
    for name, sizes in (("plain", SIZES[-1:]), ("elastic", SIZES)):
        if args.only in (None, name):
            run(args, name, sizes, sets)
    return 0


def run(args: Any, name: str, sizes: tuple[int, ...], sets: dict[str, ImageSet]) -> None:
    """Train one net, keep it by size, and record what it answers on the test images."""
    if recorded(RESULTS, name):
        return
    keras.utils.set_random_seed(SEED)
    options = ElasticOptions()
    net = resnet20()
    nets = with_private_norms(net, sizes)
    model = ElasticNet(
        {size: view(item) for size, item in nets.items()},
        image=IMAGE,
        activation="logits",
        options=options,
        labelled=True,
        batch=128,
    )
    folder = args.work / name
    settings = Training(
        epochs=args.epochs, learning_rate=0.2, seed=SEED, folder=folder, resume=True, watch=Told()
    )
    names = (LARGEST, DEALT, TOGETHER)
    shares = (1.0, 0.0, 0.0) if len(sizes) == 1 else options.shares
    phases = [Phase(n, s) for n, s in zip(names, shares, strict=True) if s]
    report = train(model, sets["train"], settings=settings, phases=phases)
    for size, item in nets.items():
        item.save(NETS / f"{name}-{size}.keras")
    row: dict[str, Any] = {
        "name": name,
        "machine": machine_name(),
        "epochs": args.epochs,
        "seconds": round(sum(item.seconds for item in report.history)),
        "parameters": net.count_params(),
        "right": {},
    }
    for size in SIZES:
        chosen = nets.get(size, net)
        scores = predict(model, chosen, sets["test"], size)
        row["right"][str(size)] = round(100 * float((scores.argmax(1) == sets["test"].labels).mean()), 2)
    record(RESULTS, row)
    print(row)


def predict(model: ElasticNet, net: Any, images: ImageSet, size: int) -> np.ndarray:
    """Return (N, 10) scores of one net at one size."""
    parts = [
        np.asarray(net(model.tensor(images.pixels[i : i + 500], size), training=False))
        for i in range(0, images.count, 500)
    ]
    return np.concatenate(parts)


class Told:
    """Prints a line every half minute."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, moment: Moment) -> None:
        """Print how far the training is."""
        if time.monotonic() - self._last > 30.0 or moment.step == moment.steps:
            self._last = time.monotonic()
            print(
                f"epoch {moment.epoch}/{moment.epochs} {moment.phase} step {moment.step}/{moment.steps} "
                f"loss {moment.loss:.3f} {moment.images_per_s:.0f} images/s, "
                f"{moment.left_s / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    raise SystemExit(main())
