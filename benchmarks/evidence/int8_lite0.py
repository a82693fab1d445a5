"""Int8 of EfficientNet-Lite0 as `boardfit build` makes it: three formats, three sizes, and what it costs.

    python benchmarks/evidence/int8_lite0.py lite0.keras WORK [--formats tflite onnx ncnn] [--sizes 112 224]

Fitted on photos_fit: 256 images to calibrate, 512 others, without labels, for the gate. Scored on
photos_score against the fp32 file of the same format and size: points of top-1 lost with the paired interval
of 95 %, answers that flip, mean KL of the outputs in nats. Beside it the bytes of the file, the time of one
image on one thread over fp32's (median of paired rounds), and the share of the multiplications that run in
integers.

The stage resumes from WORK; its time and memory are those of this run, and say so where something was
finished before. Memory is the peak of this process (ru_maxrss), with TensorFlow, and of its largest child.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from photos import data_folder, labelled

from boardfit.converters.frameworks import load_frameworks
from boardfit.converters.image_specs import IMAGE_SPECS
from boardfit.converters.ingest import ingest
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.converters.quantize.bench import run_exported
from boardfit.converters.quantize.gate import Answers, Limits, judge
from boardfit.converters.quantize.naming import size_bytes
from boardfit.converters.quantize.outcome import Outcome, Shelf
from boardfit.converters.quantize.photos import Picture, choose_pictures, load_tensors
from boardfit.converters.quantize.quality import output_error
from boardfit.converters.quantize.stage import Order, Tools, quantize_all, refused_table
from boardfit.converters.recipe import ParitySection, QuantizeSection
from boardfit.converters.targets import Exported
from boardfit.converters.verify import open_engine
from boardfit.timing import machine_name, time_paired

ROUNDS = 31
HEADER = (
    "| format | size | gets | drop, points | flips | mean KL | MACs in int8 | file | time | how |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("work", type=Path)
    parser.add_argument("--formats", nargs="+", default=["tflite", "onnx", "ncnn"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[112, 160, 224])
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    load_frameworks()
    order = ordered(args)
    outcomes = timed_stage(order, Shelf(args.work / "int8_lite0.partial"))
    print(refused_table(outcomes))
    pictures = [Picture(path, "", label) for path, label in labelled("photos_score")]
    labels = np.array([picture.label for picture in pictures])
    print(f"\n{len(pictures)} photographs of photos_score, {machine_name()}\n\n{HEADER}")
    for size in reversed(order.sizes):
        tensors = load_tensors(pictures, image=order.model.image, size=size)
        for outcome in outcomes:
            if outcome.size == size:
                print(scored(order.model, outcome, tensors, labels), flush=True)
    return 0


def ordered(args: argparse.Namespace) -> Order:
    """Return what a build without labels asks of the stage."""
    sizes, image = tuple(sorted(args.sizes)), IMAGE_SPECS["efficientnet-lite"]
    pictures = choose_pictures(str(data_folder() / "photos_fit"))
    print("\n".join(pictures.notes))
    return Order(
        model=ingest(SourceRequest(source=args.model, sizes=sizes, image=image)),
        formats=tuple(args.formats),
        sizes=sizes,
        schemes=("int8",),
        fp16_too=False,
        pictures=pictures,
        options=QuantizeSection(),
        parity=ParitySection(),
    )


def timed_stage(order: Order, shelf: Shelf) -> list[Outcome]:
    """Run the stage and print what it cost."""
    said: list[str] = []

    def progress(text: str) -> None:
        said.append(text)
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    before, started = cpu_seconds(), time.monotonic()
    outcomes = quantize_all(order, shelf, progress=progress)
    wall, cpu = time.monotonic() - started, cpu_seconds() - before
    peaks = [resource.getrusage(who).ru_maxrss * 1024 / 1e9 for who in WHO]
    old = sum(text.endswith("was finished before") for text in said)
    print(
        f"stage: {len(outcomes)} artifacts, {old} of them finished before, in {wall:.0f} s; {cpu:.0f} s of "
        f"processor on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; peak {peaks[0]:.2f} GB, "
        f"largest child {peaks[1]:.2f} GB; {machine_name()}"
    )
    return outcomes


WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_seconds() -> float:
    """Return the processor's seconds that this process and its children have used."""
    return sum(sum(resource.getrusage(who)[:2]) for who in WHO)


def scored(model: TrainedModel, outcome: Outcome, tensors: np.ndarray, labels: np.ndarray) -> str:
    """Return one line: the artifact on photos_score, beside its fp32 twin."""
    if outcome.exported is None:
        return f"| {outcome.format} | {outcome.size} | nothing: outside the gate | | | | | | | |"
    twin = Tools().export(model, outcome.format, outcome.size, "fp32")
    expected, actual = run_exported(twin, tensors), run_exported(outcome.exported, tensors)
    right, found = expected[0].argmax(axis=1), actual[0].argmax(axis=1)
    verdict = judge(
        found,
        Answers(fp32=right, source=right, labels=labels),
        divergence=output_error(actual, expected, twin.artifact.outputs),
        limits=Limits(),
        largest=True,
    )
    return (
        f"| {outcome.format} | {outcome.size} | {outcome.delivered} | {verdict.drop:+.1f} "
        f"({verdict.drop_low:+.1f} to {verdict.drop_high:+.1f}) | {verdict.flips:.1f} % "
        f"| {verdict.divergence:.4f} | {100.0 * outcome.share.macs:.1f} % "
        f"| {size_bytes(outcome.exported) / size_bytes(twin):.2f} x "
        f"| {time_ratio(outcome.exported, twin, tensors):.2f} x | {outcome.method} |"
    )


def time_ratio(quantized: Exported, twin: Exported, tensors: np.ndarray) -> float:
    """Return the time of one image on one thread over fp32's."""
    engines = {"int8": open_engine(quantized, threads=1), "fp32": open_engine(twin, threads=1)}
    spec = twin.artifact.inputs[0]
    image = tensors[:1].transpose(0, 3, 1, 2) if spec.layout == "NCHW" else tensors[:1]
    feed = {spec.name: np.ascontiguousarray(image)}
    try:
        times = time_paired({k: partial(each.run, feed) for k, each in engines.items()}, rounds=ROUNDS)
    finally:
        for each in engines.values():
            each.close()
    return times["int8"].ratio_to(times["fp32"])


if __name__ == "__main__":
    raise SystemExit(main())
