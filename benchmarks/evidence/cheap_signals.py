"""By which signal should two-look go on? The answer's entropy, its doubt, or a learned predictor.

    python benchmarks/evidence/cheap_signals.py lite0.keras CACHE

On EfficientNet-Lite0, fitted on photos_fit and scored on photos_score, and on the elastic CIFAR-10 net, on
the images that it was not trained on, one half each, in four views. The predictor is a logistic regression,
its ridge by cross-validation, on the first look's pooled features (their principal components; Lite0 only),
and its entropy, best score and margin; thresholds are fitted on its out-of-fold predictions. Printed: the
area under the curve for "the small look is wrong where the largest is right"; then, for each goal, the gain
over the best fixed size or mix of equal time, by the doubt, and what the others change, with the 95 %
interval. Time is taken as proportional to the pixels. A temperature is not among them: it does not change
which answer is in more doubt. CACHE keeps the looks.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from cheap_statistics import SIZES, batches, tensors
from signals import area

from boardfit.converters.ingest.keras_file import load_keras_file
from boardfit.converters.policy_answers import Answers, answers_of
from boardfit.converters.policy_solve import best_mix, choose, interval, replay
from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.times import Times
from boardfit.specs import PolicySpec
from boardfit.timing import machine_name

GOALS = ((2.0, None), (5.0, None), (None, 0.8), (None, 0.7))
CIFAR_GOALS = ((0.5, None), (1.0, None), (None, 0.65), (None, 0.5))
VIEWS = 4
COMPONENTS = (0, 8, 32)
RIDGES = (10.0, 100.0, 1000.0)
FOLDS = 5


def looks(model: str, cache: Path, name: str) -> dict[str, np.ndarray]:
    """Return (S, N, C) logits, (S, N, F) pooled features and (N,) classes and image entropies of a set."""
    path = cache / f"looks_{name}.npz"
    if not path.exists():
        import keras
        from photos import labelled

        from boardfit.runtime.images import read_image

        cache.mkdir(parents=True, exist_ok=True)
        net = load_keras_file(Path(model))
        pool = next(one for one in net.layers if type(one).__name__ == "GlobalAveragePooling2D")
        both = keras.Model(net.input, [net.output, pool.output])
        found = [batches(both, tensors(name, size, slice(None))[0]) for size in SIZES]
        np.savez(
            path,
            logits=np.stack([logits for logits, _ in found]),
            pooled=np.stack([pooled.reshape(len(pooled), -1) for _, pooled in found]),
            truth=np.array([label for _, label in labelled(name)]),
            bits=np.array([entropy_bits(read_image(file)) for file, _ in labelled(name)]),
        )
    return dict(np.load(path))


def cifar_looks(cache: Path) -> list[dict[str, np.ndarray]]:
    """Return the same of both halves of the images on which the elastic net was not trained, in four views.

    There are no pooled features.
    """
    path = cache / "looks_cifar.npz"
    if not path.exists():
        from cifar import IMAGE, cifar
        from elastic_policy_cifar import load, views

        from boardfit.converters.compress.resize import resize_batch

        held = views(cifar(cache)["held"])
        mean, std = (np.asarray(value, np.float32) for value in (IMAGE.mean, IMAGE.std))
        logits = []
        for size, net in load("elastic").items():
            pixels = np.round(np.asarray(resize_batch(held.pixels.astype(np.float32), size)))
            logits.append(net.predict((pixels - mean) / std, batch_size=500, verbose=0))
        bits = [entropy_bits(np.ascontiguousarray(image[..., ::-1])) for image in held.pixels]
        np.savez(path, logits=np.stack(logits), truth=held.labels, bits=np.array(bits))
    whole = dict(np.load(path))
    images = len(whole["truth"]) // VIEWS
    order = np.random.default_rng(0).permutation(images)
    found = []
    for half in np.array_split(order, 2):
        rows = np.concatenate([half + view * images for view in range(VIEWS)])
        pooled = np.zeros((len(SIZES), len(rows), 1))
        seen = {
            "logits": whole["logits"][:, rows],
            "truth": whole["truth"][rows],
            "bits": whole["bits"][rows],
        }
        found.append({**seen, "pooled": pooled})
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def evidence(seen: dict[str, np.ndarray], sizes: tuple[int, ...]) -> Answers:
    p = softmax(seen["logits"].astype(np.float64))
    return answers_of(sizes, bits=seen["bits"], scores=p, truth=seen["truth"])


def entropies(seen: dict[str, np.ndarray]) -> np.ndarray:
    """Return (S, N) entropies of the answers."""
    p = softmax(seen["logits"].astype(np.float64))
    return -(p * np.log2(p + 1e-30)).sum(axis=-1)


def inputs(seen: dict[str, np.ndarray], row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, F) pooled features, and (N, 3) entropy, best score and margin of a size's looks."""
    p = np.sort(softmax(seen["logits"][row]), axis=-1)
    entropy = -(p * np.log2(p + 1e-30)).sum(axis=-1)
    return seen["pooled"][row], np.stack([entropy, np.log(p[:, -1]), p[:, -1] - p[:, -2]], axis=1)


def logistic(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Return the weights of a ridge logistic regression (Newton's method); the last is the constant."""
    x = np.hstack([x, np.ones((len(x), 1))])
    penalty = np.diag([ridge] * (x.shape[1] - 1) + [1e-6])
    w = np.zeros(x.shape[1])
    for _ in range(15):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ w, -30, 30)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty
        w -= np.linalg.solve(hessian, x.T @ (p - y) + penalty @ w)
    return w


def standard(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return columns scaled to mean 0 and deviation 1, as the columns of another array would be."""
    return (x - like.mean(axis=0)) / (like.std(axis=0) + 1e-9)


def out_of_fold(x: np.ndarray, lost: np.ndarray, ridge: float) -> np.ndarray:
    """Return (N,) log odds of a lost answer, for images that each regression did not see."""
    found = np.zeros(len(lost))
    for fold in np.array_split(np.random.default_rng(2).permutation(len(lost)), FOLDS):
        rest = np.setdiff1d(np.arange(len(lost)), fold)
        w = logistic(x[rest], lost[rest], ridge)
        found[fold] = x[fold] @ w[:-1] + w[-1]
    return found


def lost_at(seen: dict[str, np.ndarray], row: int) -> np.ndarray:
    """Return (N,) whether a size is wrong where the largest is right."""
    right = seen["logits"].argmax(axis=-1) == seen["truth"]
    return ~right[row] & right[-1]


def predicted(
    fitting: dict[str, np.ndarray], scoring: dict[str, np.ndarray], row: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, float]]:
    """Return log odds for both sets, and the components and ridge that cross-validation chose."""
    pooled, sure = inputs(fitting, row)
    others, others_sure = inputs(scoring, row)
    lost = lost_at(fitting, row)
    centre = pooled.mean(axis=0)
    # Without labels, so the components may come from all that is fitted on before the folds are made.
    axes = np.linalg.eigh(np.atleast_2d(np.cov(pooled.T)))[1][:, ::-1]

    def columns(count: int) -> tuple[np.ndarray, np.ndarray]:
        mine = np.hstack([(pooled - centre) @ axes[:, :count], sure])
        theirs = np.hstack([(others - centre) @ axes[:, :count], others_sure])
        return standard(mine, mine), standard(theirs, mine)

    tried = {
        (count, ridge): out_of_fold(columns(count)[0], lost, ridge)
        for count in COMPONENTS
        if count <= pooled.shape[1]
        for ridge in RIDGES
    }
    options = max(tried, key=lambda one: area(tried[one], lost))
    mine, theirs = columns(options[0])
    w = logistic(mine, lost, options[1])
    return tried[options], theirs @ w[:-1] + w[-1], options


def judged_by(answers: Answers, signal: np.ndarray) -> Answers:
    """Return the evidence with another (S, N) signal in place of the doubt of single looks."""
    return replace(
        answers, doubt_bits={**answers.doubt_bits, **{(i,): values for i, values in enumerate(signal)}}
    )


def gains(
    fitting: Answers, scoring: Answers, goal: tuple[float | None, float | None], views: int
) -> np.ndarray:
    """Return (N,) hits of the chosen policy above the best fixed size or mix of equal time, by image."""
    sizes = scoring.sizes
    times = Times(look_s=tuple((size / sizes[-1]) ** 2 for size in sizes))
    spec = choose(fitting, times, max_drop=goal[0], max_time=goal[1], views=views)
    found = replay(spec, scoring, times)
    fixed = [replay(PolicySpec(kind="fixed", sizes=(size,)), scoring, times) for size in sizes]
    return (found.hits - best_mix(fixed, found.time_s)[1]).reshape(views, -1).mean(axis=0)


def compare(
    name: str, sizes: tuple[int, ...], pair: list[dict[str, np.ndarray]], *, goals: tuple, views: int = 1
) -> None:
    """Print both tables of a net."""
    fitting, scoring = pair
    by_doubt = [evidence(seen, sizes) for seen in pair]
    by_entropy = [judged_by(a, entropies(seen)) for a, seen in zip(by_doubt, pair, strict=True)]
    learned = [entropies(seen) for seen in pair]
    print(f"\n{name}: fitted on {by_doubt[0].count}, scored on {by_doubt[1].count}\n")
    print("| small look | entropy | doubt | predictor | components, ridge |\n|---|---|---|---|---|")
    for row, size in enumerate(sizes[:-1]):
        learned[0][row], learned[1][row], options = predicted(fitting, scoring, row)
        signals = (entropies(scoring)[row], by_doubt[1].doubt_bits[(row,)], learned[1][row])
        areas = " | ".join(f"{area(one, lost_at(scoring, row)):.3f}" for one in signals)
        print(f"| {size} | {areas} | {options} |", flush=True)
    by_predictor = [judged_by(a, signal) for a, signal in zip(by_doubt, learned, strict=True)]
    print("\n| goal | gain by doubt | entropy: change of gain | predictor: change of gain |")
    print("|---|---|---|---|", flush=True)
    for goal in goals:
        base, *others = (gains(*one, goal, views) for one in (by_doubt, by_entropy, by_predictor))
        cells = []
        for other in others:
            low, high = interval(other - base)
            cells.append(f"{100 * (other - base).mean():+.1f} ({low:+.1f} to {high:+.1f})")
        text = f"at most {goal[0]:g} points" if goal[1] is None else f"at most {goal[1]:g} of the time"
        print(f"| {text} | {100 * base.mean():+.1f} | {' | '.join(cells)} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("cache", type=Path)
    args = parser.parse_args(argv)
    print(machine_name())
    photographs = [looks(args.model, args.cache, name) for name in ("photos_fit", "photos_score")]
    compare("EfficientNet-Lite0", SIZES, photographs, goals=GOALS)
    halves = cifar_looks(args.cache)
    compare("elastic ResNet-20 on CIFAR-10", (16, 24, 32), halves, goals=CIFAR_GOALS, views=VIEWS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
