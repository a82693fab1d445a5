"""What pruning costs and saves on CIFAR-10: accuracy with paired intervals, and time per engine.

    python benchmarks/evidence/prune_cifar.py WORK [--epochs 10] [--rows prune-40,...] [--seed 1]
    python benchmarks/evidence/prune_cifar.py WORK --table

The source is nets/plain-32.keras (ResNet-20, 40.8 million multiplications). Rows ``prune-40`` and
``prune-60`` lose 40 and 60 % of them and learn from the source; ``labels-40`` is the same pruned net trained
on labels alone, ``contrast-40`` with InfoNCE beside the answers (the share of distill_cifar.py);
``random-40`` loses 40 % in channels chosen by chance and learns from the source.
``wide-40`` keeps widths in multiples of 16, which engines with 512-bit vectors compute at once, and learns
as a build does that says nothing else, from the source and from labels alike; ``wide-labels-40`` and
``wide-random-40`` are its rivals. ``fast-74`` is pruned until 0.74 of the time on LiteRT remains.
``time-ENGINE`` prune until 0.70 of the time on that engine remains, and train nothing. ``mobile-base``
trains a small MobileNetV2 with squeeze-excite from scratch, on labels and plain-32's answers alike;
``mobile-40`` prunes that, and ``mobile-labels-40`` and ``mobile-random-40`` are its rivals.

Each row resumes where it stopped, is recorded in results/prune_cifar.jsonl with its answers to the 5,000
test images, and is not run again once it is recorded. --table prints what is recorded; rows are compared over
all seeds that both were run with.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cifar import cifar, record, recorded
from distill_cifar import right, trained_model, unpacked
from elastic_cifar import Told

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.images import Augment, ImageSet
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.prune_time import EngineClock
from boardfit.converters.compress.stage import StageResult, run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.ingest.survey import layer_rows
from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_solve import interval
from boardfit.converters.recipe_prune import PruneSection
from boardfit.converters.targets import export
from boardfit.timing import machine_name

NETS = Path(__file__).parent / "nets"
RESULTS = Path(__file__).parent / "results" / "prune_cifar.jsonl"
SIZE = 32
ENGINES = {"litert": "tflite", "onnxruntime": "onnx", "ncnn": "ncnn"}
TIME = 0.70
SEEDS = range(1, 10)
TAUGHT = DistillOptions(teacher=0.9, temperature=4.0, labels=0.1)
CONTRASTED = replace(TAUGHT, contrast=0.5)
LABELS = DistillOptions(teacher=0.0, labels=1.0)
BUILDS = DistillOptions()
WIDE = PruneSection(macs=0.4, criterion="taylor", multiple=16)


@dataclass(frozen=True)
class Row:
    """What one row does: prune the source, and train what is left."""

    prune: PruneSection
    taught: DistillOptions = TAUGHT
    source: str = "plain"


ROWS = {
    "prune-40": Row(PruneSection(macs=0.4, criterion="taylor")),
    "contrast-40": Row(PruneSection(macs=0.4, criterion="taylor"), CONTRASTED),
    "labels-40": Row(PruneSection(macs=0.4, criterion="taylor"), LABELS),
    "random-40": Row(PruneSection(macs=0.4, criterion="random")),
    "prune-60": Row(PruneSection(macs=0.6, criterion="taylor")),
    "wide-40": Row(WIDE, BUILDS),
    "wide-labels-40": Row(WIDE, LABELS),
    "wide-random-40": Row(replace(WIDE, criterion="random"), BUILDS),
    "fast-74": Row(PruneSection(time=0.74, engine="litert", criterion="taylor")),
    "mobile-40": Row(PruneSection(macs=0.4, criterion="taylor"), source="mobile"),
    "mobile-labels-40": Row(PruneSection(macs=0.4, criterion="taylor"), LABELS, source="mobile"),
    "mobile-random-40": Row(PruneSection(macs=0.4, criterion="random"), source="mobile"),
}
TIMED = {f"time-{engine}": PruneSection(time=TIME, engine=engine, criterion="taylor") for engine in ENGINES}
COMPARED = (
    ("prune-40", "labels-40"),
    ("prune-40", "random-40"),
    ("contrast-40", "prune-40"),
    ("wide-40", "wide-labels-40"),
    ("wide-40", "wide-random-40"),
    ("mobile-40", "mobile-labels-40"),
    ("mobile-40", "mobile-random-40"),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", help="which rows, by comma (default: all but those of mobile)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="train nothing, print what is recorded")
    args = parser.parse_args(argv)
    known = [*TIMED, *ROWS, "mobile-base"]
    rows = args.rows.split(",") if args.rows else [name for name in known if "mobile" not in name]
    unknown = sorted(set(rows) - set(known))
    if unknown:
        parser.error(f"no row is called {unknown[0]!r}: expected some of {', '.join(known)}")
    if not args.table:
        sets = cifar(args.work)
        for name in rows:
            if name == "mobile-base":
                train_mobile(args, sets)
            elif name in TIMED:
                run_timed(args, name, sets)
            else:
                run(args, name, sets)
    print("\n".join(table(args)))
    return 0


def run(args: Any, name: str, sets: dict[str, ImageSet]) -> None:
    """Prune and train one net, and record what it answers and how long it takes."""
    key = _key(name, args.epochs, args.seed)
    if recorded(RESULTS, key):
        return
    row, folder = ROWS[name], args.work / "prune" / key.replace(" ", "-")
    source = source_model(row.source)
    # Which channels chance takes is another matter for each seed.
    pruned, notes = prune_once(folder, replace(row.prune, seed=args.seed - 1), source, sets["train"])
    before = right(pruned.net, sets["test"])
    stage = Distill(
        size=SIZE,
        images=lambda _: sets["train"],
        labelled=True,
        training=training(args, folder, learning_rate=0.05),
        options=row.taught,
        teacher=source,
    )
    result = run_stage(stage, pruned)
    result.model.net.save(folder / "net.keras")
    done = right(result.model.net, sets["test"])
    found = {
        "name": key,
        "machine": machine_name(),
        **costs(source, result.model),
        "source_top1": percent(right(source.net, sets["test"])),
        "pruned_top1": percent(before),
        "top1": percent(done),
        "notes": [*notes, *result.notes],
        "source_right": packed(right(source.net, sets["test"])),
        "right": packed(done),
    }
    tell(found)


def _key(name: str, epochs: int, seed: int) -> str:
    """Return what a row is recorded as; rows that do not say "repaired" are older than the repair."""
    return f"{name} repaired epochs={epochs} seed={seed}"


def run_timed(args: Any, name: str, sets: dict[str, ImageSet]) -> None:
    """Prune to a time on one engine, and record the times on all, measured again."""
    key = f"{name} target={TIME} seed={args.seed}"
    if recorded(RESULTS, key):
        return
    source = source_model("plain")
    options = TIMED[name]
    stage = Prune(options, SIZE, images=lambda _: sets["train"], clock=EngineClock(options.engine, SIZE))
    result = run_stage(stage, source)
    tell({"name": key, "machine": machine_name(), **costs(source, result.model), "notes": list(result.notes)})


def train_mobile(args: Any, sets: dict[str, ImageSet]) -> None:
    """Train the MobileNet-like source from scratch."""
    key = f"mobile-base seed={args.seed}"
    if recorded(RESULTS, key):
        return
    keras.utils.set_random_seed(args.seed)
    model = trained_model(mobile())
    folder = args.work / "prune" / "mobile-base"
    stage = Distill(
        size=SIZE,
        images=lambda _: sets["train"],
        labelled=True,
        training=training(args, folder, learning_rate=0.2, epochs=18),
        options=DistillOptions(teacher=0.5, temperature=4.0, labels=0.5),
        teacher=source_model("plain"),
    )
    result = run_stage(stage, model)
    result.model.net.save(NETS / "mobile-32.keras")
    top1 = percent(right(result.model.net, sets["test"]))
    tell({"name": key, "machine": machine_name(), "top1": top1, "notes": list(result.notes)})


def prune_once(
    folder: Path, options: PruneSection, source: TrainedModel, images: ImageSet
) -> tuple[TrainedModel, tuple[str, ...]]:
    """Return the pruned model: that of an earlier, interrupted run where there is one."""
    path = folder / "pruned.keras"
    if path.is_file():
        return trained_model(keras.saving.load_model(path, compile=False)), ("pruned in an earlier run",)
    clock = EngineClock(options.engine, SIZE) if options.time else None
    result: StageResult = run_stage(Prune(options, SIZE, images=lambda _: images, clock=clock), source)
    folder.mkdir(parents=True, exist_ok=True)
    result.model.net.save(path)
    return result.model, result.notes


def training(args: Any, folder: Path, *, learning_rate: float, epochs: int | None = None) -> Training:
    """Return how all rows are trained."""
    return Training(
        epochs=epochs or args.epochs,
        batch=128,
        learning_rate=learning_rate,
        augment=Augment(),
        seed=args.seed,
        folder=folder / "training",
        resume=True,
        watch=Told(),
    )


def source_model(name: str) -> TrainedModel:
    """Return what is pruned."""
    path = NETS / f"{name}-32.keras"
    if not path.is_file():
        raise SystemExit(f"{path} is absent: run the row {name}-base first")
    return trained_model(keras.saving.load_model(path, compile=False))


def costs(before: TrainedModel, after: TrainedModel) -> dict[str, Any]:
    """Return multiplications, parameters, bytes of each format, and time of each engine as shares."""
    found: dict[str, Any] = {}
    for label, model in (("source", before), ("pruned", after)):
        found[label] = {
            "macs": sum(row.macs for row in layer_rows(model.net, SIZE)),
            "parameters": model.net.count_params(),
            "widths": [layer.filters for layer in model.net.layers if hasattr(layer, "filters")],
            "bytes": {format_name: size_of(model, format_name) for format_name in ENGINES.values()},
        }
    found["time"] = {engine: round(EngineClock(engine, SIZE)(before, after), 3) for engine in ENGINES}
    return found


def size_of(model: TrainedModel, format_name: str) -> int:
    """Return the bytes of the fp32 files of a format."""
    exported = export(model, format_name=format_name, sizes=(SIZE,), precision="fp32")
    return sum(len(data) for data in exported.files.values())


def mobile() -> Any:
    """Return a small MobileNetV2 with squeeze-excite (https://arxiv.org/abs/1905.02244) for 32 pixels."""
    from keras import layers

    def normed(x: Any, layer: Any, *, relu: bool = True) -> Any:
        x = layers.BatchNormalization(momentum=0.95)(layer(x))
        return layers.ReLU(6.0)(x) if relu else x

    image = x = keras.Input((None, None, 3), name="image")
    x = normed(x, layers.Conv2D(16, 3, padding="same", use_bias=False))
    for filters, repeats, stride in ((32, 2, 2), (64, 3, 2), (96, 1, 1)):
        for repeat in range(repeats):
            step, wide = stride if repeat == 0 else 1, 4 * x.shape[-1]
            y = normed(x, layers.Conv2D(wide, 1, use_bias=False))
            y = normed(y, layers.DepthwiseConv2D(3, step, padding="same", use_bias=False))
            gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
            gate = layers.Conv2D(max(8, wide // 16 * 4 // 8 * 8), 1, activation="relu")(gate)
            gate = layers.Conv2D(wide, 1, activation="hard_sigmoid")(gate)
            y = layers.Multiply()([y, gate])
            y = normed(y, layers.Conv2D(filters, 1, use_bias=False), relu=False)
            x = layers.Add()([x, y]) if x.shape[-1] == filters and step == 1 else y
    x = normed(x, layers.Conv2D(256, 1, use_bias=False))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="scores")(x), name="mobile-se")


def table(args: Any) -> list[str]:
    """Return what is recorded: drops and differences, with paired 95 % intervals over the images."""
    lines = []
    found = {name: recorded(RESULTS, _key(name, args.epochs, args.seed)) for name in ROWS}
    for name, row in found.items():
        if row:
            drop = unpacked(row["source_right"]).astype(float) - unpacked(row["right"])
            low, high = interval(drop)
            lines.append(
                f"{name:16} top-1 {row['source_top1']:.2f} -> {row['pruned_top1']:.2f} pruned -> "
                f"{row['top1']:.2f}, drop {100 * drop.mean():+.2f} ({low:+.2f} to {high:+.2f}); {_saved(row)}"
            )
    for better, base in COMPARED:
        gains = [gain for seed in SEEDS if (gain := _gain(better, base, args.epochs, seed)) is not None]
        if gains:
            mean = np.mean(gains, axis=0)
            low, high = interval(mean)
            each = ", ".join(f"{100 * gain.mean():+.2f}" for gain in gains)
            all_seeds = f"{100 * mean.mean():+.2f} points, {low:+.2f} to {high:+.2f}"
            lines.append(f"{better} - {base}: {all_seeds} over the images; by seed: {each}")
    for name in TIMED:
        row = recorded(RESULTS, f"{name} target={TIME} seed={args.seed}")
        if row:
            lines.append(f"{name:16} {_saved(row)}; {row['notes'][-1]}")
    return lines


def _gain(better: str, base: str, epochs: int, seed: int) -> np.ndarray | None:
    """Return (N,) by how much a row is more right than another on each image; None where one is lacking."""
    rows = [recorded(RESULTS, _key(name, epochs, seed)) for name in (better, base)]
    if not all(rows):
        return None
    answers = [unpacked(row["right"]).astype(float) for row in rows if row]
    return answers[0] - answers[1]


def _saved(row: dict[str, Any]) -> str:
    macs, numbers = (row["pruned"][name] / row["source"][name] for name in ("macs", "parameters"))
    times = ", ".join(f"{engine} {ratio:.2f}" for engine, ratio in row["time"].items())
    return f"macs {macs:.2f}, parameters {numbers:.2f}, time {times}"


def percent(answers: np.ndarray) -> float:
    """Return how many are right, in per cent."""
    return round(100.0 * float(answers.mean()), 2)


def packed(answers: np.ndarray) -> str:
    """Return (N,) bool as text."""
    return np.packbits(answers).tobytes().hex()


def tell(row: dict[str, Any]) -> None:
    """Record a row and print it."""
    record(RESULTS, row)
    print({name: value for name, value in row.items() if not name.endswith("right")}, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
