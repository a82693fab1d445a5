"""A fitted policy on the elastic CIFAR-10 net, beside the net that was trained at 32 alone.

    python benchmarks/evidence/elastic_policy_cifar.py WORK

Of the nets that elastic_cifar.py trained; WORK keeps the decoded images. Prints top-1 by size on the 5,000
test images with the paired bootstrap of the difference. Then, for each net, the policies that are fitted on
5,000 images on which neither net was trained, on the test images: multiply-accumulates, gain over the best
fixed size or mix of equal cost, and the time on each engine.

Each image that is fitted on counts as it is, mirrored, shifted by two pixels, and both, as the training
varied its images too: where one size is right and another wrong hangs on such little things, so that four
views tell more than one. How much more is printed: the correlation between views of that difference.
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
from boardfit.converters.policy_answers import Answers, answers_of
from boardfit.converters.policy_fit import describe
from boardfit.converters.policy_solve import best_mix, choose, interval, oracle, replay
from boardfit.converters.targets import export
from boardfit.converters.verify import open_engine
from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.times import Times
from boardfit.specs import PolicySpec, TensorSpec
from boardfit.timing import machine_name, time_paired

MACS = Times(look_s=tuple((size / SIZES[-1]) ** 2 for size in SIZES))
"""A convolutional net's multiply-accumulates grow with the square of the side."""
GOALS = [(drop, None) for drop in (0.25, 0.5, 1.0, 2.0)]
GOALS += [(None, share) for share in (0.8, 0.7, 0.65, 0.6, 0.55, 0.5)]
"""Points that may be lost, or the share of the largest size's multiply-accumulates that may be taken."""
FORMATS = ("onnx", "tflite", "ncnn")
ROUNDS = 300
SHIFT, VIEWS = 2, 4


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    args = parser.parse_args(argv)
    sets = cifar(args.work)
    nets = {name: load(name) for name in ("plain", "elastic")}
    held, test = (
        {name: answers(by_size, images) for name, by_size in nets.items()}
        for images in (views(sets["held"]), sets["test"])
    )
    print(f"CIFAR-10, {test['plain'].count} test images; ResNet-20, 41 MMACs at 32; {machine_name()}\n")
    print("| size | trained at 32 | elastic | difference | 95 % interval |\n|---|---|---|---|---|")
    for column, size in enumerate(SIZES):
        right = [test[name].top1[(column,)] == test[name].target for name in ("plain", "elastic")]
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
    print(
        f"\n{name}: fitted on {held.count} views of images that it was not trained on, scored on the test "
        f"images; right at {SIZES[-1]} minus right at {SIZES[-2]}: correlation {alike(held):.2f} of views"
    )
    print(
        "\n| goal | policy | MACs | right % | drop | 95 % | gain over mix | 95 % "
        f"| time {' / '.join(FORMATS)} |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for item in fixed:
        times = ratios(item.spec, test, look_s)
        print(f"| | {describe(item.spec)} | {item.time_s:.2f} | {item.score:.1f} | | | | | {times} |")
    for drop, share in GOALS:
        spec = choose(held, MACS, max_drop=drop, max_time=share, views=VIEWS)
        goal = f"at most {drop:g} points" if share is None else f"at most {share:g} of the MACs"
        found = replay(spec, test, MACS)
        score, expected = best_mix(fixed, found.time_s)
        low, high = interval(found.hits - expected)
        least, most = interval(fixed[-1].hits.astype(float) - found.hits)
        print(
            f"| {goal} | {describe(spec)} | {found.time_s:.3f} | {found.score:.1f} "
            f"| {fixed[-1].score - found.score:.2f} | {least:+.1f} to {most:+.1f} "
            f"| {found.score - score:+.2f} | {low:+.2f} to {high:+.2f} "
            f"| {ratios(spec, test, look_s)} |"
        )
    score, cost = oracle(test, MACS)
    print(f"| | oracle | {cost:.2f} | {score:.1f} | | | | | |")


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
    return answers_of(
        SIZES,
        bits=np.array([entropy_bits(np.ascontiguousarray(image[..., ::-1])) for image in images.pixels]),
        scores=np.stack(probabilities),
        truth=images.labels,
    )


def views(images: ImageSet) -> ImageSet:
    """Return the images, then again shifted by SHIFT pixels, then both mirrored; borders are reflected."""
    end = images.pixels.shape[1]
    wide = np.pad(images.pixels, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
    shifted = wide[:, :end, SHIFT : SHIFT + end]
    both = np.concatenate([images.pixels, shifted])
    return ImageSet(pixels=np.concatenate([both, both[:, :, ::-1]]), labels=np.tile(images.labels, VIEWS))


def alike(held: Answers) -> float:
    """Return the mean correlation between views of right at the largest size minus right at the next."""
    large, middle = (held.top1[(column,)] == held.target for column in (2, 1))
    pairs = np.corrcoef((large.astype(float) - middle).reshape(VIEWS, -1))
    return float((pairs.sum() - VIEWS) / (VIEWS * (VIEWS - 1)))


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
