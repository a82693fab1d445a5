"""What the training loop costs, and what computing activations twice saves.

    python benchmarks/evidence/distill_cost.py WORK pace      images/s beside a plain Keras fit
    python benchmarks/evidence/distill_cost.py WORK memory    of a step; on the backend of KERAS_BACKEND

pace: the same student (ResNet-20 of half the width) and the same teacher call (nets/plain-32.keras), trained
by the loop with variation, progress and checkpoints, and by ``keras.Model.fit`` on the arrays as they are; in
turn, medians of the rounds, the compilation left out. memory: a step of a wider ResNet-32, plain and with
activations computed twice, in a child process each: what the backend plans (JAX), the peak that the process
held, and how far the gradients differ. Both print a JSON line, and append it to results/distill_cost.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cifar import IMAGE, cifar, record, resnet20
from distill_cifar import NETS, trained_model
from keras import ops

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.losses import cross_entropy, softened_kl
from boardfit.converters.compress.nets import at_side
from boardfit.converters.compress.recompute import Recomputed
from boardfit.converters.compress.train import Moment, Training
from boardfit.timing import machine_name

RESULTS = Path(__file__).parent / "results" / "distill_cost.jsonl"
BATCH = 128
SKIPPED = 5
"""Steps at the beginning that are not timed: the first one compiles."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=("pace", "memory", "step"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--recompute", action="store_true", help="of step: what memory runs for each side")
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args(argv)
    if args.what == "step":
        print(json.dumps(step(args.recompute, args.work)))
        return 0
    row = pace(args) if args.what == "pace" else memory(args)
    row = {"name": args.what, "machine": machine_name(), "backend": keras.backend.backend(), **row}
    print(json.dumps(row))
    if not args.no_record:
        record(RESULTS, row)
    return 0


def pace(args: Any) -> dict[str, Any]:
    """Return images per second of both, and the median of the rounds' ratios."""
    whole = cifar(args.work)["train"]
    count = BATCH * args.steps
    images = ImageSet(pixels=whole.pixels[:count], labels=whole.labels[:count])
    teacher = trained_model(keras.saving.load_model(NETS / "plain-32.keras", compile=False))
    rounds = []
    for number in range(args.rounds):
        pair = {"ours": our_pace, "plain": plain_pace}
        names = list(pair) if number % 2 == 0 else list(reversed(pair))
        found = {name: pair[name](images, teacher, args.work) for name in names}
        print(json.dumps({name: round(value, 1) for name, value in found.items()}), file=sys.stderr)
        rounds.append(found)
    return {
        "images_per_s": {name: round(median(r[name] for r in rounds), 1) for name in ("ours", "plain")},
        "ratio": round(median(r["ours"] / r["plain"] for r in rounds), 3),
        "rounds": args.rounds,
    }


def our_pace(images: ImageSet, teacher: Any, work: Path) -> float:
    """Return images per second of the loop."""
    times: list[float] = []

    def watch(_: Moment) -> None:
        times.append(time.perf_counter())

    training = Training(
        epochs=1, batch=BATCH, learning_rate=0.1, folder=work / "pace", save_every_s=5.0, watch=watch
    )
    options = DistillOptions(teacher=0.9, temperature=4.0, labels=0.1)
    Distill(32, lambda _: images, True, training, options, teacher)(trained_model(resnet20(width=8)))
    return _rate(times)


class Plain(keras.Model):
    """What one would write: a student, and a teacher that is called in the loss."""

    def __init__(self, student: Any, teacher: Any) -> None:
        super().__init__()
        self.student = student
        teacher.trainable = False
        self._teach = lambda tensor: teacher(tensor, training=False)

    def call(self, images: Any, training: bool = False) -> Any:
        """Return the student's scores."""
        return self.student(_tensor(images), training=training)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, *_: Any, **__: Any) -> Any:
        """Return the same loss."""
        taught = softened_kl(self._teach(_tensor(x)), y_pred, temperature=4.0)
        return 0.9 * taught + 0.1 * cross_entropy(y_pred, y)


def plain_pace(images: ImageSet, teacher: Any, _: Path) -> float:
    """Return images per second of ``keras.Model.fit``."""
    times: list[float] = []
    told = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: times.append(time.perf_counter())
    )
    model = Plain(resnet20(width=8), keras.models.clone_model(teacher.net))
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-3))
    model.fit(images.pixels, images.labels, batch_size=BATCH, epochs=1, verbose=0, callbacks=[told])
    return _rate(times)


def memory(args: Any) -> dict[str, Any]:
    """Return what a step needs with and without recomputation, and how far gradients differ."""
    found = {}
    for name, flags in (("plain", ()), ("recomputed", ("--recompute",))):
        command = [sys.executable, __file__, str(args.work / name), "step", *flags]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[name] = json.loads(output.splitlines()[-1])
    with (
        np.load(args.work / "plain" / "gradients.npz") as a,
        np.load(args.work / "recomputed" / "gradients.npz") as b,
    ):
        gaps = [float(np.abs(a[n] - b[n]).max() / max(1e-12, np.abs(a[n]).max())) for n in a.files]
    keys = [key for key in ("planned_mb", "peak_mb") if all(key in each for each in found.values())]
    ratios = {key: round(found["recomputed"][key] / found["plain"][key], 3) for key in keys}
    return {**found, "ratio": ratios, "largest_gradient_gap": max(gaps)}


def step(recompute: bool, folder: Path) -> dict[str, Any]:
    """Run one step, keep its gradients in a folder, and return what memory it took."""
    keras.utils.set_random_seed(1)
    net = at_side(resnet20(width=32, blocks=5), 32)
    run = Recomputed(net) if recompute else net
    rng = np.random.default_rng(0)
    images = rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, 10, BATCH).astype(np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    idle = _peak_mb()
    find = {"jax": _on_jax, "tensorflow": _on_tensorflow}.get(keras.backend.backend())
    if find is None:
        raise SystemExit("expected KERAS_BACKEND=tensorflow or jax")
    gradients, planned = find(net, run, images, labels)
    np.savez(folder / "gradients.npz", *map(np.asarray, gradients))
    pieces = len(run.pieces) if recompute else 1
    return {"pieces": pieces, "peak_mb": round(_peak_mb() - idle, 1), **planned}


def _on_jax(net: Any, run: Any, images: np.ndarray, labels: np.ndarray) -> tuple[Any, dict[str, float]]:
    import jax

    trained, kept = (
        [v.value for v in some] for some in (net.trainable_variables, net.non_trainable_variables)
    )
    pairs = [*zip(net.trainable_variables, range(len(trained)), strict=True)]

    def loss(weights: Any) -> Any:
        mapping = [(variable, weights[i]) for variable, i in pairs]
        mapping += list(zip(net.non_trainable_variables, kept, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return _loss(run(images, training=True), labels)

    compiled = jax.jit(jax.grad(loss)).lower(trained).compile()
    planned = compiled.memory_analysis().temp_size_in_bytes / 1e6
    return compiled(trained), {"planned_mb": round(planned, 1)}


def _on_tensorflow(
    net: Any, run: Any, images: np.ndarray, labels: np.ndarray
) -> tuple[Any, dict[str, float]]:
    import tensorflow as tf

    @tf.function(jit_compile=True)  # as Keras trains
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = _loss(run(images, training=True), labels)
        return tape.gradient(loss, [variable.value for variable in net.trainable_variables])

    return gradients(), {}


def _loss(outputs: Any, labels: Any) -> Any:
    scores = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    return cross_entropy(scores, labels)


def _tensor(images: Any) -> Any:
    mean, std = np.asarray(IMAGE.mean, np.float32), np.asarray(IMAGE.std, np.float32)
    return (ops.cast(images, "float32") - mean) / std


def _rate(times: list[float]) -> float:
    return BATCH * (len(times) - 1 - SKIPPED) / (times[-1] - times[SKIPPED])


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    raise SystemExit(main())
