"""uint8 times int8 on x86 without VNNI: what saturates, and what it costs that nothing does.

    python benchmarks/evidence/onnx_saturation.py lite0.keras [--size 224]

vpmaddubsw adds two products and saturates at 16 bits. A processor with VNNI never does, and so hides it.
Here the pairs of the dense layer and of every convolution of 1 x 1 are added up from the integers in the file
and the activations of 16 photographs. Three ways to round the weights: each to 8 bits, which is what a
quantizer does by itself; each to 7 bits, which is ONNX Runtime's reduce_range; and each to 8 bits where no
pair's sum may leave them, which is ours. Ranges by MSE from 256 images of photos_fit; scored on photos_score
against fp32.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from photos import data_folder, labelled

from boardfit.converters.calibrate import estimate, observe
from boardfit.converters.frameworks import load_frameworks
from boardfit.converters.image_specs import IMAGE_SPECS
from boardfit.converters.ingest import ingest
from boardfit.converters.model import SourceRequest
from boardfit.converters.quantize.bench import run_exported
from boardfit.converters.quantize.photos import Picture, choose_pictures, load_tensors
from boardfit.converters.quantize.quality import output_error
from boardfit.converters.targets import Exported, export, onnx_int8, onnx_qdq
from boardfit.converters.targets.onnx_view import known_as, read, view_of
from boardfit.timing import machine_name

IMAGE = IMAGE_SPECS["efficientnet-lite"]
SEEN = 16
WAYS = {
    "8 bits each": {"_pair_sums": lambda rows: np.zeros((len(rows), 1))},
    "7 bits each (reduce_range)": {"_pair_sums": lambda rows: np.zeros((len(rows), 1)), "LEVELS": 63},
    "8 bits, pairs within 8 (ours)": {},
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args(argv)
    load_frameworks()
    model = ingest(SourceRequest(source=args.model, sizes=(args.size,), image=IMAGE))
    twin = export(model, format_name="onnx", sizes=(args.size,), precision="fp32")
    fit = choose_pictures(str(data_folder() / "photos_fit")).calibration
    probe = onnx_int8.open_probe(twin)
    stats = observe(probe, load_tensors(fit, image=IMAGE, size=args.size))
    probe.close()
    ranges = {name: estimate(each, "mse") for name, each in stats.items()}
    pictures = [Picture(path, "", label) for path, label in labelled("photos_score")]
    scored = load_tensors(pictures, image=IMAGE, size=args.size)
    expected = run_exported(twin, scored)
    print(f"{len(pictures)} photographs of photos_score at {args.size}, {machine_name()}\n")
    print("| weights | flips | mean KL | pairs of products beyond 16 bits | largest |\n|---|---|---|---|---|")
    for name, changes in WAYS.items():
        with patch.multiple(onnx_qdq, **changes) if changes else patch.dict({}):
            quantized = onnx_int8.quantize(twin, ranges=ranges)
        actual = run_exported(quantized, scored)
        flips = 100.0 * (actual[0].argmax(1) != expected[0].argmax(1)).mean()
        beyond, count, largest = saturation(quantized, scored[:SEEN])
        divergence = output_error(actual, expected, twin.artifact.outputs)
        print(
            f"| {name} | {flips:.1f} % | {divergence:.4f} | {beyond} of {count:.3g} | {largest} |", flush=True
        )
    return 0


def saturation(quantized: Exported, images: np.ndarray) -> tuple[int, int, int]:
    """Return how many pairs leave 16 bits, among how many, and the largest magnitude of one."""
    probe = onnx_int8.open_probe(quantized)
    layers = list(pointwise(quantized))
    beyond = count = largest = 0
    for image in images:
        seen = probe.run(image[None])
        for name, scale, zero, weights in layers:
            values = seen[name]
            rows = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
            rows = np.clip(np.rint(rows / scale) + zero, 0, 255).astype(np.int32)
            for start in range(0, rows.shape[1] - 1, 2):
                a, b = rows[:, start : start + 2].T
                sums = np.abs(a[:, None] * weights[start] + b[:, None] * weights[start + 1])
                beyond += int((sums > 32767).sum())
                count += sums.size
                largest = max(largest, int(sums.max()))
    probe.close()
    return beyond, count, largest


def pointwise(quantized: Exported) -> Iterator[tuple[str, float, int, np.ndarray]]:
    """Yield input, its step and zero point, and (inputs, outputs) int32 weights of what multiplies rows."""
    view = view_of(read(quantized))
    for node in view.layers():
        weights = view.weights[node.input[1]]
        if node.op_type == "Gemm" or (weights.shape[2:] == (1, 1) and weights.shape[1] > 1):
            rounding = view.producer[node.input[0]]
            scale, zero = (view.weights[name] for name in rounding.input[1:])
            matrix = weights if node.op_type == "Gemm" else weights[:, :, 0, 0].T
            yield known_as(node.input[0]), float(scale), int(zero), matrix.astype(np.int32)


if __name__ == "__main__":
    raise SystemExit(main())
