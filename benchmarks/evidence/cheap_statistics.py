"""Do statistics of batch norm that are re-estimated per size help a net that arrives as it is?

    python benchmarks/evidence/cheap_statistics.py lite0.keras CACHE

Each layer's mean and variance become (1 - w) of its own and w of those that it sees at a size: over every
layer, or the last one alone. Estimated without labels on one half of photos_fit and judged on the other; what
is best there is scored on photos_score, with the 95 % interval of the paired difference. CACHE keeps what is
computed: the script goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from photos import labelled

from boardfit.converters.image_specs import resolve_image_spec
from boardfit.converters.ingest.keras_file import load_keras_file
from boardfit.converters.policy_solve import interval
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.timing import machine_name

SIZES = (112, 160, 224)
WEIGHTS = (0.03, 0.1, 0.3)
BATCH = 50


def tensors(name: str, size: int, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, S, S, 3) float32 tensors of a set's photographs, and their (N,) classes."""
    fit = Preprocessor(resolve_image_spec("efficientnet-lite"), "NHWC").fit
    photos = list(labelled(name))[rows]
    return np.concatenate([fit(read_image(path), size)[0] for path, _ in photos]), np.array(
        [label for _, label in photos]
    )


def batches(net: Any, images: np.ndarray) -> list[np.ndarray]:
    """Return a net's outputs on all images, batch by batch."""
    import tensorflow as tf

    call = tf.function(lambda x: net(x, training=False), reduce_retracing=True)
    found = [call(tf.constant(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
    many = found if isinstance(found[0], (list, tuple)) else [[one] for one in found]
    return [np.concatenate([one[k].numpy() for one in many]) for k in range(len(many[0]))]


def norms(net: Any) -> list[Any]:
    return [layer for layer in net.layers if type(layer).__name__ == "BatchNormalization"]


def estimate(net: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return (2, C) mean and variance of what enters every batch norm, by its name."""
    import keras

    seen = [keras.ops.mean(layer.input, axis=(1, 2)) for layer in norms(net)]
    squares = [keras.ops.mean(keras.ops.square(layer.input), axis=(1, 2)) for layer in norms(net)]
    found = batches(keras.Model(net.input, [*seen, *squares]), images)
    half = len(found) // 2
    means = [array.mean(axis=0) for array in found[:half]]
    variances = [array.mean(axis=0) - mean**2 for array, mean in zip(found[half:], means, strict=True)]
    return {
        layer.name: np.stack([mean, np.maximum(variance, 1e-8)])
        for layer, mean, variance in zip(norms(net), means, variances, strict=True)
    }


class Bench:
    """The net, its own statistics and the cache."""

    def __init__(self, path: str, cache: Path) -> None:
        self.net = load_keras_file(Path(path))
        self.own = {
            layer.name: np.stack([layer.moving_mean, layer.moving_variance]) for layer in norms(self.net)
        }
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    def statistics(self, size: int) -> dict[str, np.ndarray]:
        """Return what the first half of photos_fit shows at a size."""
        path = self.cache / f"statistics_{size}.npz"
        if not path.exists():
            self.use(self.own, weight=0.0, last=False)
            np.savez(path, **estimate(self.net, tensors("photos_fit", size, slice(0, None, 2))[0]))
        return dict(np.load(path))

    def use(self, other: dict[str, np.ndarray], *, weight: float, last: bool) -> None:
        """Mix other statistics into every batch norm, or the last one alone."""
        for layer in norms(self.net):
            share = weight if not last or layer is norms(self.net)[-1] else 0.0
            mean, variance = (1.0 - share) * self.own[layer.name] + share * other[layer.name]
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(variance)

    def hits(self, name: str, size: int, *, weight: float, last: bool) -> np.ndarray:
        """Return (N,) bool: right answers on photos_score, or on the second half of photos_fit."""
        path = self.cache / f"hits_{name}_{size}_{weight:g}_{'last' if last else 'all'}.npy"
        if not path.exists():
            images, labels = tensors(name, size, slice(1 if name == "photos_fit" else 0, None, HALF[name]))
            self.use(self.statistics(size), weight=weight, last=last)
            np.save(path, batches(self.net, images)[0].argmax(axis=1) == labels)
        return np.load(path)


HALF = {"photos_fit": 2, "photos_score": 1}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("cache", type=Path)
    args = parser.parse_args(argv)
    bench = Bench(args.model, args.cache)
    print(f"top-1 in per cent, {machine_name()}\n")
    print("| size | layers | own | " + " | ".join(f"w = {weight:g}" for weight in WEIGHTS) + " |")
    print("|---" * (3 + len(WEIGHTS)) + "|", flush=True)
    best: dict[int, tuple[float, float, bool]] = {}
    for size in SIZES[:2]:
        own = 100 * bench.hits("photos_fit", size, weight=0.0, last=False).mean()
        for last in (False, True):
            scores = [100 * bench.hits("photos_fit", size, weight=w, last=last).mean() for w in WEIGHTS]
            best[size] = max(
                best.get(size, (own, 0.0, False)), (max(scores), WEIGHTS[np.argmax(scores)], last)
            )
            cells = " | ".join(f"{score:.1f}" for score in scores)
            print(f"| {size} | {'last' if last else 'all'} | {own:.1f} | {cells} |", flush=True)
    print("\n| size | best | photos_score own | with it | gain | 95 % interval |\n|---|---|---|---|---|---|")
    for size, (_, weight, last) in best.items():
        own, mixed = (
            bench.hits("photos_score", size, weight=w, last=last).astype(float) for w in (0.0, weight)
        )
        low, high = interval(mixed - own)
        print(
            f"| {size} | w = {weight:g}, {'last' if last else 'all'} | {100 * own.mean():.1f} "
            f"| {100 * mixed.mean():.1f} | {100 * (mixed - own).mean():+.1f} | {low:+.1f} to {high:+.1f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
