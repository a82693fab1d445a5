"""Do a temperature per size, or a learned predictor on the first look, serve two-look better?

    python benchmarks/evidence/cheap_signals.py lite0.keras CACHE

The temperature of a size minimises the log loss on photos_fit. The predictor is a logistic regression, ridge
by cross-validation on photos_fit, on the first look's pooled features (their principal components) and its
certainty; thresholds are fitted on its out-of-fold predictions. Printed: the area under the curve for "the
small look answers unlike the largest" on photos_score; then, for each goal, the gain over the best fixed size
or mix of equal time there, plain and with each, and the 95 % interval of the difference. Time is taken as
proportional to the pixels. CACHE keeps the looks.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from cheap_statistics import SIZES, batches, tensors
from signals import area

from boardfit.converters.ingest.keras_file import load_keras_file
from boardfit.converters.policy_solve import Answers, Times, best_mix, choose, interval, replay
from boardfit.runtime.entropy import entropy_bits
from boardfit.specs import PolicySpec
from boardfit.timing import machine_name

TIMES = Times(look_s=tuple((size / SIZES[-1]) ** 2 for size in SIZES))
GOALS = ((2.0, None), (5.0, None), (None, 0.8), (None, 0.7))
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


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature of least log loss, on a grid from 0.5 to 2.5."""
    grid = np.linspace(0.5, 2.5, 81)
    rows = np.arange(len(truth))
    return float(min(grid, key=lambda t: -np.log(softmax(logits / t)[rows, truth] + 1e-12).mean()))


def answers_of(seen: dict[str, np.ndarray], temperatures: tuple[float, ...]) -> Answers:
    """Return the evidence of a set when every size's logits are divided by its temperature."""
    p = softmax(seen["logits"] / np.array(temperatures)[:, None, None])
    count = len(SIZES)
    averaged = np.zeros((count, count, p.shape[1]), np.int64)
    for i in range(count):
        for j in range(i + 1, count):
            averaged[i, j] = (p[i] + p[j]).argmax(axis=-1)
    return Answers(
        sizes=SIZES,
        bits=seen["bits"],
        top1=p.argmax(axis=-1),
        certainty_bits=-(p * np.log2(p + 1e-30)).sum(axis=-1),
        averaged=averaged,
        truth=seen["truth"],
    )


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


def predicted(
    fitting: dict[str, np.ndarray], scoring: dict[str, np.ndarray], row: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, float]]:
    """Return log odds for both sets, and the components and ridge that cross-validation chose."""
    pooled, sure = inputs(fitting, row)
    others, others_sure = inputs(scoring, row)
    top1 = fitting["logits"].argmax(axis=-1)
    lost = top1[row] != top1[-1]
    centre = pooled.mean(axis=0)
    # Without labels, so the components may come from all of photos_fit before the folds are made.
    axes = np.linalg.eigh(np.cov(pooled.T))[1][:, ::-1]

    def columns(count: int) -> tuple[np.ndarray, np.ndarray]:
        mine = np.hstack([(pooled - centre) @ axes[:, :count], sure])
        theirs = np.hstack([(others - centre) @ axes[:, :count], others_sure])
        return standard(mine, mine), standard(theirs, mine)

    tried = {
        (count, ridge): out_of_fold(columns(count)[0], lost, ridge)
        for count in COMPONENTS
        for ridge in RIDGES
    }
    options = max(tried, key=lambda one: area(tried[one], lost))
    mine, theirs = columns(options[0])
    w = logistic(mine, lost, options[1])
    return tried[options], theirs @ w[:-1] + w[-1], options


def gains(fitting: Answers, scoring: Answers, goal: tuple[float | None, float | None]) -> np.ndarray:
    """Return (N,) hits of the chosen policy above the best fixed size or mix of equal time."""
    found = replay(choose(fitting, TIMES, max_drop=goal[0], max_time=goal[1]), scoring, TIMES)
    fixed = [replay(PolicySpec(kind="fixed", sizes=(size,)), scoring, TIMES) for size in SIZES]
    return found.hits - best_mix(fixed, found.time_s)[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("cache", type=Path)
    args = parser.parse_args(argv)
    fitting, scoring = (looks(args.model, args.cache, name) for name in ("photos_fit", "photos_score"))
    fitted = tuple(temperature(logits, fitting["truth"]) for logits in fitting["logits"])
    plain, tempered = (
        (answers_of(fitting, temperatures), answers_of(scoring, temperatures))
        for temperatures in ((1.0, 1.0, 1.0), fitted)
    )
    print(f"{machine_name()}; temperatures at {SIZES}: {', '.join(f'{one:.2f}' for one in fitted)}\n")
    print("| small look | entropy | with temperature | predictor | components, ridge |")
    print("|---|---|---|---|---|")
    learned = [np.array(one.certainty_bits) for one in plain]
    for row, size in enumerate(SIZES[:-1]):
        learned[0][row], learned[1][row], options = predicted(fitting, scoring, row)
        lost = plain[1].top1[row] != plain[1].top1[-1]
        signals = (plain[1].certainty_bits[row], tempered[1].certainty_bits[row], learned[1][row])
        print(
            f"| {size} | {' | '.join(f'{area(one, lost):.3f}' for one in signals)} | {options} |", flush=True
        )
    by_predictor = [replace(one, certainty_bits=bits) for one, bits in zip(plain, learned, strict=True)]
    print("\n| goal | plain gain | temperature: change of gain | predictor: change of gain |")
    print("|---|---|---|---|", flush=True)
    for goal in GOALS:
        base, *others = (gains(*pair, goal) for pair in (plain, tempered, by_predictor))
        cells = []
        for other in others:
            low, high = interval(other - base)
            cells.append(f"{100 * (other - base).mean():+.1f} ({low:+.1f} to {high:+.1f})")
        text = f"at most {goal[0]:g} points" if goal[1] is None else f"at most {goal[1]:g} of the time"
        print(f"| {text} | {100 * base.mean():+.1f} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
