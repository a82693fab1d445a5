"""What a teacher adds to a student of a quarter of its parameters, on CIFAR-10 at 32 pixels.

    python benchmarks/evidence/distill_cifar.py WORK [--epochs 15] [--rows labels,distilled,...] [--seed 1]
    python benchmarks/evidence/distill_cifar.py WORK --table

The teacher is nets/plain-32.keras (ResNet-20, 274,042 parameters), the student the same net of half the
width, trained from scratch: with labels alone, with the teacher's softened answers beside them, and with
InfoNCE, hints and decoupling added to those, one by one. All rows have the same epochs, order and variations
of images.

Each training resumes where it stopped, is recorded in results/distill_cifar.jsonl with its answers to the
5,000 test images, and is not run again once it is recorded. --table prints what is recorded, with paired
intervals.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cifar import IMAGE, cifar, record, recorded, resnet20
from elastic_cifar import Told

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.images import Augment, ImageSet
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.policy_solve import interval
from boardfit.specs import TensorSpec
from boardfit.timing import machine_name

NETS = Path(__file__).parent / "nets"
RESULTS = Path(__file__).parent / "results" / "distill_cifar.jsonl"
SIZE = 32
_TAUGHT = {"teacher": 0.9, "temperature": 4.0, "labels": 0.1}
ROWS = {
    "labels": DistillOptions(teacher=0.0),
    "distilled": DistillOptions(**_TAUGHT),
    "contrast": DistillOptions(**_TAUGHT, contrast=0.5),
    "decoupled": DistillOptions(**_TAUGHT, decouple=1.0),
    "hints": DistillOptions(**_TAUGHT, hint=1.0),
}
"""By name: how the student of that row is taught. Shares and temperature are those of Hinton et al. 2015."""
COMPARED = {"distilled": "labels", "contrast": "distilled", "decoupled": "distilled", "hints": "distilled"}
"""Which row is compared with which."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", default=",".join(ROWS), help="which rows (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="train nothing, print what is recorded")
    args = parser.parse_args(argv)
    if not args.table:
        sets = cifar(args.work)
        for name in args.rows.split(","):
            run(args, name, sets)
    print("\n".join(table(args.epochs, args.seed)))
    return 0


def run(args: Any, name: str, sets: dict[str, ImageSet]) -> None:
    """Train one student, and record what it answers on the test images."""
    key = _key(name, args.epochs, args.seed)
    if recorded(RESULTS, key):
        return
    keras.utils.set_random_seed(args.seed)
    student = trained_model(resnet20(width=8))
    teacher = trained_model(keras.saving.load_model(NETS / "plain-32.keras", compile=False))
    training = Training(
        epochs=args.epochs,
        batch=128,
        learning_rate=0.2,
        augment=Augment(),
        seed=args.seed,
        folder=args.work / "distill" / key.replace(" ", "-"),
        resume=True,
        watch=Told(),
    )
    stage = Distill(
        size=SIZE,
        images=lambda _: sets["train"],
        labelled=True,
        training=training,
        options=ROWS[name],
        teacher=teacher,
    )
    result = run_stage(stage, student)
    done = right(result.model.net, sets["test"])
    row = {
        "name": key,
        "machine": machine_name(),
        "parameters": student.net.count_params(),
        "teacher_parameters": teacher.net.count_params(),
        "top1": round(100.0 * float(done.mean()), 2),
        "teacher_top1": round(100.0 * float(right(teacher.net, sets["test"]).mean()), 2),
        "notes": list(result.notes),
        "right": np.packbits(done).tobytes().hex(),
    }
    record(RESULTS, row)
    print({name: value for name, value in row.items() if name != "right"})


def table(epochs: int, seed: int) -> list[str]:
    """Return what is recorded, and differences with their paired 95 % intervals."""
    found = {name: recorded(RESULTS, _key(name, epochs, seed)) for name in ROWS}
    lines = [f"{name:10} {row['top1']:6.2f} % of 5,000" for name, row in found.items() if row]
    for better, base in COMPARED.items():
        rows = found[better], found[base]
        if all(rows):
            answers = [unpacked(row["right"]) for row in rows]
            gain = answers[0].astype(float) - answers[1]
            low, high = interval(gain)
            lines.append(f"{better} - {base}: {100 * gain.mean():+.2f} points, {low:+.2f} to {high:+.2f}")
    return lines


def trained_model(net: Any) -> TrainedModel:
    """Return a CIFAR net with all that is known of it."""
    return TrainedModel(
        name=net.name,
        net=net,
        outputs=(TensorSpec(name="scores", shape=(None, 10), activation="logits"),),
        image=IMAGE,
        reference=keras_reference(net),
    )


def right(net: Any, images: ImageSet) -> np.ndarray:
    """Return (N,) bool: whether each image is answered with its label."""
    mean, std = np.asarray(IMAGE.mean, np.float32), np.asarray(IMAGE.std, np.float32)
    reference = keras_reference(net)
    scores = [
        reference((images.pixels[i : i + 500].astype(np.float32) - mean) / std)[0]
        for i in range(0, images.count, 500)
    ]
    return np.concatenate(scores).argmax(1) == images.labels


def unpacked(text: str) -> np.ndarray:
    """Return (5000,) bool of what a row records."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:5000].astype(bool)


def _key(name: str, epochs: int, seed: int) -> str:
    return f"{name} epochs={epochs} seed={seed}"


if __name__ == "__main__":
    raise SystemExit(main())
