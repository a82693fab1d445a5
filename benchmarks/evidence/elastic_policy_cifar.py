"""A fitted policy on the elastic CIFAR-10 net, beside the net that was trained at 32 alone.

    python benchmarks/evidence/elastic_policy_cifar.py WORK

Of the nets that elastic_cifar.py trained; WORK keeps the decoded images. Prints top-1 by size on the 5,000
test images with the paired bootstrap of the difference. Then, for each net, the policies that are fitted on
5,000 images on which neither net was trained, on the test images: multiply-accumulates, gain over the best
fixed size or mix of equal cost, and the time on each engine.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cifar import IMAGE, cifar
from elastic_cifar import NETS, SIZES

from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.resize import resize_batch
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_fit import describe
from boardfit.converters.policy_solve import Answers, Times, best_mix, choose, interval, oracle, replay
from boardfit.converters.targets import export
from boardfit.converters.verify import open_engine
from boardfit.runtime.entropy import entropy_bits
from boardfit.specs import PolicySpec, TensorSpec
from boardfit.timing import machine_name, time_paired

MACS = Times(look_s=tuple((size / SIZES[-1]) ** 2 for size in SIZES))
"""A convolutional net's multiply-accumulates grow with the square of the side."""
DROPS = (0.25, 0.5, 1.0, 2.0)
FORMATS = ("onnx", "tflite", "ncnn")
ROUNDS = 300


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    args = parser.parse_args(argv)
    sets = cifar(args.work)
    nets = {name: load(name) for name in ("plain", "elastic")}
    held, test = (
        {name: answers(by_size, sets[part]) for name, by_size in nets.items()} for part in ("held", "test")
    )
    print(f"CIFAR-10, {test['plain'].count} test images; ResNet-20, 41 MMACs at 32; {machine_name()}\n")
    print("| size | trained at 32 | elastic | difference | 95 % interval |\n|---|---|---|---|---|")
    for column, size in enumerate(SIZES):
        right = [test[name].top1[column] == test[name].target for name in ("plain", "elastic")]
        low, high = interval(right[1].astype(float) - right[0])
        shares = [100 * item.mean() for item in right]
        print(
            f"| {size} | {shares[0]:.1f} | {shares[1]:.1f} | {shares[1] - shares[0]:+.1f} "
            f"| {low:+.1f} to {high:+.1f} |"
        )
    look_s = {name: engine_times(by_size) for name, by_size in nets.items()}
    for name in nets:
        policies(name, held[name], test[name], look_s[name])
    return 0


def policies(name: str, held: Answers, test: Answers, look_s: dict[str, Times]) -> None:
    """Print the policies that are fitted on the held-out images, scored on the test images."""
    fixed = [replay(PolicySpec(kind="fixed", sizes=(size,)), test, MACS) for size in SIZES]
    print(f"\n{name}: fitted on {held.count} images that it was not trained on, scored on the test images")
    print(f"\n| goal | policy | MACs | right % | drop | gain over mix | 95 % | time {' / '.join(FORMATS)} |")
    print("|---|---|---|---|---|---|---|---|")
    for item in fixed:
        times = ratios(item.spec, test, look_s)
        print(f"| | {describe(item.spec)} | {item.time_s:.2f} | {item.score:.1f} | | | | {times} |")
    for drop in DROPS:
        spec = choose(held, MACS, max_drop=drop, max_time=None)
        found = replay(spec, test, MACS)
        score, expected = best_mix(fixed, found.time_s)
        low, high = interval(found.hits - expected)
        print(
            f"| {drop:g} points | {describe(spec)} | {found.time_s:.2f} | {found.score:.1f} "
            f"| {fixed[-1].score - found.score:.1f} | {found.score - score:+.1f} | {low:+.1f} to {high:+.1f} "
            f"| {ratios(spec, test, look_s)} |"
        )
    score, cost = oracle(test, MACS)
    print(f"| | oracle | {cost:.2f} | {score:.1f} | | | | |")


def ratios(spec: PolicySpec, test: Answers, look_s: dict[str, Times]) -> str:
    """Return a policy's engine time over that of the largest size, by format."""
    fixed = PolicySpec(kind="fixed", sizes=SIZES[-1:])
    return " / ".join(
        f"{replay(spec, test, times).time_s / replay(fixed, test, times).time_s:.2f}"
        for times in look_s.values()
    )


def load(name: str) -> dict[int, Any]:
    """Return the nets of one training by size; one trained at one size serves all."""
    paths = {size: NETS / f"{name}-{size}.keras" for size in SIZES}
    largest = paths[SIZES[-1]]
    return {
        size: keras.saving.load_model(path if path.is_file() else largest, compile=False)
        for size, path in paths.items()
    }


def answers(nets: dict[int, Any], images: ImageSet) -> Answers:
    """Return what the nets answer to every image at every size."""
    mean, std = (np.asarray(value, np.float32) for value in (IMAGE.mean, IMAGE.std))
    probabilities = []
    for size, net in nets.items():
        parts = []
        for begin in range(0, images.count, 500):
            pixels = np.asarray(resize_batch(images.pixels[begin : begin + 500].astype(np.float32), size))
            # The runtime resizes to bytes.
            parts.append(np.asarray(net((np.round(pixels) - mean) / std, training=False)))
        logits = np.concatenate(parts).astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities.append(powers / powers.sum(axis=1, keepdims=True))
    scores = np.stack(probabilities)
    pairs = [[(a + b).argmax(axis=1) for b in scores] for a in scores]
    return Answers(
        sizes=SIZES,
        bits=np.array([entropy_bits(np.ascontiguousarray(image[..., ::-1])) for image in images.pixels]),
        top1=scores.argmax(axis=2),
        certainty_bits=-(scores * np.log2(np.maximum(scores, 1e-30))).sum(axis=2),
        averaged=np.array(pairs),
        truth=images.labels,
    )


def engine_times(nets: dict[int, Any]) -> dict[str, Times]:
    """Return the median seconds of one inference by size, one thread, by format."""
    found = {}
    for format_name in FORMATS:
        calls = {}
        for size, net in nets.items():
            model = TrainedModel(
                name="resnet",
                net=net,
                outputs=(TensorSpec(name="scores", shape=(None, 10), activation="logits"),),
                image=IMAGE,
                reference=keras_reference(net),
            )
            exported = export(model, format_name=format_name, sizes=(size,), precision="fp32")
            engine, spec = open_engine(exported, threads=1), exported.artifact.inputs[0]
            shape = (1, size, size, 3) if spec.layout == "NHWC" else (1, 3, size, size)
            calls[str(size)] = partial(engine.run, {spec.name: np.zeros(shape, np.float32)})
        timed = time_paired(calls, rounds=ROUNDS)
        found[format_name] = Times(look_s=tuple(timed[str(size)].p50_s for size in nets))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
