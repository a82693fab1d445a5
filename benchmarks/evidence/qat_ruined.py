"""Training in simulated int8 on the net that plain int8 ruins, on CIFAR-10 (see ruined_net.py).

    python benchmarks/evidence/qat_ruined.py WORK [--epochs 2] [--rows plain qat float] [--formats onnx ...]

Three rows for each format, all without the rescue (no surgery, no layer in float): ``plain``, the source
quantized with the best of the estimated ranges; ``qat``, after training in simulated int8, with the ranges
that it learned; ``float``, after the same training without rounding, which tells how much of it is but more
training. Points of top-1 lost against the source's fp32 artifact on 5,000 test images. Trainings resume where
they stopped; they and the rows are recorded in results/qat_ruined.jsonl and not done again; the net and its
ranges are kept in WORK.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from cifar import IMAGE, cifar, record, recorded
from elastic_cifar import Told
from int8_rivals import FORMATS, Case, Judge, bench_of, ruined, shares

from boardfit.converters.calibrate import Range
from boardfit.converters.compress.images import Augment, ImageSet
from boardfit.converters.compress.qat import Qat, net_to_train
from boardfit.converters.compress.qat_net import QatNet, QatOptions
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training, train
from boardfit.converters.ingest.reference import frozen_copy, keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.bench import run_exported
from boardfit.converters.quantize.search import best_ranges
from boardfit.converters.quantize.trained import trained_ranges
from boardfit.converters.ranges import TrainedRanges
from boardfit.converters.targets import export
from boardfit.timing import machine_name

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "qat_ruined.jsonl"
ROWS = ("plain", "qat", "float")
SEED = 7


class FloatNet(QatNet):
    """The same training without any rounding."""

    def answers(self, tensor: Any, _as_ncnn: Any) -> list[Any]:
        """Return the net's outputs in float."""
        return list(keras.tree.flatten(self.net(tensor, training=False)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default=str(HERE / "nets" / "ruined.keras"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    case = ruined(args)
    nets: dict[str, Callable[[], TrainedModel]] = {
        "plain": lambda: case.model,
        "qat": partial(trained, "qat", args, case.model),
        "float": partial(trained, "float", args, case.model),
    }
    print(
        f"{machine_name()}\n\n| format | net | drop | flips % | mean KL | called |\n|---|---|---|---|---|---|"
    )
    for name in args.rows:
        for format_name in args.formats:
            print_row(format_name, name, measured(key_of(name, args), format_name, case, nets[name]))
    return 0


def key_of(name: str, args: argparse.Namespace) -> str:
    """Return what a row is recorded as: with what it was trained with, where it was."""
    return name if name == "plain" else f"{name} epochs={args.epochs} rate={args.learning_rate:g}"


def trained(name: str, args: argparse.Namespace, source: TrainedModel) -> TrainedModel:
    """Return the net after training, from WORK where it was finished before."""
    path = args.work / f"{key_of(name, args).replace(' ', '_')}.keras"
    ranges_path = path.with_suffix(".json")
    if recorded(RESULTS, f"{key_of(name, args)} training") is None or not path.is_file():
        model = _trained_and_recorded(name, args, source)
        model.net.save(path)
        if model.ranges is not None:
            ranges_path.write_text(json.dumps(model.ranges.to_dict(), indent=1) + "\n")
    net = keras.models.load_model(path)
    ranges = TrainedRanges.from_dict(json.loads(ranges_path.read_text())) if name == "qat" else None
    return replace(source, net=net, reference=keras_reference(net), ranges=ranges)


def _trained_and_recorded(name: str, args: argparse.Namespace, source: TrainedModel) -> TrainedModel:
    training = Training(
        epochs=args.epochs,
        batch=128,
        optimizer="adamw",
        learning_rate=args.learning_rate,
        weight_decay=1e-2,
        augment=Augment(flip=True, shift=0.125),
        seed=SEED,
        folder=args.work / key_of(name, args).replace(" ", "_"),
        resume=True,
        watch=Told(),
    )
    images = cifar(args.work)["train"]
    started = time.monotonic()
    model, notes = (_in_int8 if name == "qat" else _in_float)(source, images, training)
    row = {
        "name": f"{key_of(name, args)} training",
        "machine": machine_name(),
        "epochs": args.epochs,
        "learning_rate": args.learning_rate,
        "seconds_of_this_run": round(time.monotonic() - started),
        "notes": list(notes),
    }
    record(RESULTS, row)
    return model


def _in_int8(
    source: TrainedModel, images: ImageSet, training: Training
) -> tuple[TrainedModel, Sequence[str]]:
    result = run_stage(Qat(size=32, images=lambda _: images, labelled=True, training=training), source)
    return result.model, result.notes


def _in_float(
    source: TrainedModel, images: ImageSet, training: Training
) -> tuple[TrainedModel, Sequence[str]]:
    net, _ = net_to_train(source, images)
    model = FloatNet(
        net,
        {"image": Range(-3.0, 3.0)},
        image=IMAGE,
        activation="logits",
        options=QatOptions(),
        labelled=True,
        teacher=frozen_copy(source.net),
    )
    report = train(model, images, settings=training)
    net.trainable = False
    return replace(source, net=net, reference=keras_reference(net)), [report.sentence()]


def measured(name: str, format_name: str, case: Case, make: Callable[[], TrainedModel]) -> dict[str, Any]:
    """Return a row, measured unless it is recorded."""
    row = recorded(RESULTS, f"{name} {format_name}")
    if row is not None:
        return row
    model, bench = make(), bench_of(case, format_name)
    exported = export(model, format_name=format_name, sizes=(case.size,), precision="fp32")
    known = trained_ranges(model, exported, bench.quantizer, case.calibration[:1])
    best = best_ranges(bench, exported, scheme="int8", trained=known)
    judge = Judge(case.judged, run_exported(bench.twin, case.judged), case.labels)
    row = {
        "name": f"{name} {format_name}",
        "machine": machine_name(),
        **judge.numbers(best.exported),
        **shares(bench, best.exported),
        "fp32": judge.numbers(exported),
        "ranges": best.method,
    }
    record(RESULTS, row)
    return row


def print_row(format_name: str, name: str, row: dict[str, Any]) -> None:
    numbers = f"{row['drop']:+.2f} | {row['flips']:.1f} | {row['kl']:.4f}"
    detail = f"{row['called']}, ranges by {row['ranges']}; fp32 {row['fp32']['drop']:+.2f}"
    print(f"| {format_name} | {name} | {numbers} | {detail} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
