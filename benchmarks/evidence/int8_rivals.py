"""Int8 by others and by boardfit, side by side: the same net, the same calibration images, the same judges.

    python benchmarks/evidence/int8_rivals.py ruined WORK
    python benchmarks/evidence/int8_rivals.py lite0 WORK --model lite0.keras

``ruined`` is the net of ruined_net.py: calibrated on training images of CIFAR-10, judged on its test images,
with 1,000 held out for the gate. ``lite0`` is EfficientNet-Lite0 at 224 pixels: 128 images of photos_fit, for
the gate 512 others, then photos_score. Every row is compared with the fp32 artifact of its own format: points
of top-1 lost, answers that flip, mean KL of the outputs in nats. Rows that are recorded in
results/int8_rivals.jsonl are not measured again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from cifar import IMAGE, cifar, record, recorded
from photos import labelled
from rivals import AI_EDGE, TFLITE_RIVALS, onnx_rivals

from boardfit.converters.calibrate import ESTIMATORS
from boardfit.converters.image_specs import IMAGE_SPECS
from boardfit.converters.ingest import ingest
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.converters.quantize.bench import CHOOSING, Bench, apart, find_quantizer, run_exported
from boardfit.converters.quantize.gate import Answers, Limits, judge
from boardfit.converters.quantize.naming import named, share_of
from boardfit.converters.quantize.photos import Picture, load_tensors
from boardfit.converters.quantize.quality import output_error
from boardfit.converters.quantize.rescue import climb
from boardfit.converters.quantize.surgery import surgeries
from boardfit.converters.targets import Exported, export
from boardfit.converters.verify import run_reference, top1
from boardfit.timing import machine_name

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "int8_rivals.jsonl"
FORMATS = ("onnx", "tflite", "ncnn")
OURS = "boardfit, gate at 1 point"
GATED = 1000
"""Images for boardfit's gate, of CIFAR-10."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A net with images to calibrate, others for the gate and others to judge on, (N, S, S, 3) float32."""

    name: str
    model: TrainedModel
    size: int
    calibration: np.ndarray
    gated: np.ndarray
    gated_labels: np.ndarray
    judged: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """What a file is scored with: the fp32 twin's outputs for the judged images, and the labels."""

    judged: np.ndarray
    expected: list[np.ndarray]
    labels: np.ndarray

    def numbers(self, found: Exported) -> dict[str, Any]:
        """Return the points of top-1 lost against the twin, flips in per cent and the mean KL in nats."""
        outputs = found.artifact.outputs
        actual = run_exported(found, self.judged)
        before, after = (np.asarray(top1(each[0], outputs[0].activation)) for each in (self.expected, actual))
        verdict = judge(
            after,
            Answers(fp32=before, source=before, labels=self.labels),
            divergence=output_error(actual, self.expected, outputs),
            limits=Limits(),
            largest=True,
        )
        return {"drop": verdict.drop, "flips": verdict.flips, "kl": verdict.divergence}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", choices=("ruined", "lite0"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default=str(HERE / "nets" / "ruined.keras"))
    parser.add_argument("--formats", nargs="*", default=FORMATS, choices=FORMATS)
    parser.add_argument("--only", choices=("ours", "rivals"))
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    case = ruined(args) if args.net == "ruined" else lite0(args)
    print(f"{case.name}: {len(case.calibration)} images to calibrate, {len(case.judged)} to judge")
    print(f"{machine_name()}\n\n| format | by | drop | flips % | mean KL | s |\n|---|---|---|---|---|---|")
    for format_name in args.formats:
        bench = bench_of(case, format_name)
        scored = Judge(case.judged, run_exported(bench.twin, case.judged), case.labels)
        if args.only != "ours":
            for name, make in rivals(case, bench, args.work):
                once(case, format_name, name, partial(rival, bench, scored, make))
        if args.only != "rivals":
            once(case, format_name, OURS, partial(ours, bench, scored))
    return 0


def once(case: Case, format_name: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure and record a row unless it is recorded, and print it."""
    key = f"{case.name} {format_name} {name}"
    row = recorded(RESULTS, key)
    if row is None:
        started = time.monotonic()
        row = {"name": key, "machine": machine_name(), **measure()}
        row["seconds"] = round(time.monotonic() - started, 1)
        record(RESULTS, row)
    values = f"{row['drop']:+.2f} | {row['flips']:.1f} | {row['kl']:.4f} | {row['seconds']}"
    detail = ""
    if "called" in row:
        shares = f"{row['called']}, {100 * row['macs']:.0f} % of MACs, {row['file']:.2f} of the file"
        detail = f" ({row['detail']}: {shares})"
    print(f"| {format_name} | {name}{detail} | {values} |", flush=True)


def rivals(case: Case, bench: Bench, work: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield by name what makes a rival's file of the bench's format."""
    source = bench.twin.files[bench.twin.artifact.files[0]]
    if bench.twin.artifact.format == "onnx":
        yield from onnx_rivals(source, case.calibration, work)
    if bench.twin.artifact.format == "tflite":
        for name, make in TFLITE_RIVALS.items():
            yield name, partial(make, source if name == AI_EDGE else case.model.net, case.calibration)


def rival(bench: Bench, scored: Judge, make: Callable[[], bytes]) -> dict[str, Any]:
    """Return the numbers of a rival's file."""
    artifact = bench.twin.artifact
    return scored.numbers(Exported(artifact=artifact, files={artifact.files[0]: make()}))


def ours(bench: Bench, scored: Judge) -> dict[str, Any]:
    """Return the numbers of boardfit's own: what the int8 stage delivers with its gate at 1 point."""
    state = climb(bench, scheme="int8")
    steps = " + ".join(f"{s.name} {s.detail}".strip() for s in state.steps if s.kept)
    return {
        **scored.numbers(state.best.exported),
        **shares(bench, state.best.exported),
        "detail": steps[:200],
        "steps": [step.to_dict() for step in state.steps],
    }


def shares(bench: Bench, exported: Exported) -> dict[str, Any]:
    """Return how much of an artifact is in int8, and what it may be called."""
    share = share_of(bench.quantizer.layers(exported), exported, bench.twin)
    macs, file = round(share.macs, 4), round(share.file, 4)
    return {"called": named(exported, share).artifact.precision, "macs": macs, "file": file}


def bench_of(case: Case, format_name: str) -> Bench:
    """Return a bench as the int8 stage sets it up."""
    twin = export(case.model, format_name=format_name, sizes=(case.size,), precision="fp32")
    validated = run_exported(twin, case.gated)
    activation = twin.artifact.outputs[0].activation
    source = run_reference(case.model.reference, case.gated)

    def variant(make: Callable[[], TrainedModel]) -> Exported:
        return export(make(), format_name=format_name, sizes=(case.size,), precision="fp32")

    variants = surgeries(case.model, apart(case.calibration))
    return Bench(
        quantizer=find_quantizer(format_name),
        twin=twin,
        calibration=case.calibration,
        expected=run_exported(twin, case.calibration[:CHOOSING]),
        validation=case.gated,
        validated=validated,
        answers=Answers(
            fp32=np.asarray(top1(validated[0], activation), np.int64),
            source=np.asarray(top1(source[0], activation), np.int64),
            labels=case.gated_labels,
        ),
        limits=Limits(max_drop=1.0),
        largest=True,
        estimators=ESTIMATORS,
        variants={name: partial(variant, make) for name, make in variants.items()},
        run=run_exported,
        progress=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
    )


def ruined(args: Any) -> Case:
    """The net of ruined_net.py on CIFAR-10."""
    model = ingest(SourceRequest(source=args.model, sizes=(32,), image=IMAGE))
    sets = cifar(args.work)
    picked = np.random.default_rng(0).choice(sets["train"].count, 256, replace=False)
    gated = np.random.default_rng(0).choice(sets["held"].count, GATED, replace=False)
    return Case(
        name="ruined",
        model=model,
        size=32,
        calibration=normalized(sets["train"].pixels[picked]),
        gated=normalized(sets["held"].pixels[gated]),
        gated_labels=sets["held"].labels[gated].astype(np.int64),
        judged=normalized(sets["test"].pixels),
        labels=sets["test"].labels.astype(np.int64),
    )


def normalized(pixels: np.ndarray) -> np.ndarray:
    return ((pixels - np.float32(IMAGE.mean)) / np.float32(IMAGE.std)).astype(np.float32)


def lite0(args: Any) -> Case:
    """EfficientNet-Lite0 on photographs."""
    image = IMAGE_SPECS["efficientnet-lite"]
    model = ingest(SourceRequest(source=args.model, sizes=(224,), image=image))
    rows = {
        name: [Picture(path, str(path), label) for path, label in labelled(name, limit)]
        for name, limit in (("photos_fit", 128 + 512), ("photos_score", None))
    }
    gated = rows["photos_fit"][128:]
    return Case(
        name="lite0",
        model=model,
        size=224,
        calibration=load_tensors(rows["photos_fit"][:128], image=image, size=224),
        gated=load_tensors(gated, image=image, size=224),
        gated_labels=np.array([picture.label for picture in gated], np.int64),
        judged=load_tensors(rows["photos_score"], image=image, size=224),
        labels=np.array([picture.label for picture in rows["photos_score"]], np.int64),
    )


if __name__ == "__main__":
    raise SystemExit(main())
