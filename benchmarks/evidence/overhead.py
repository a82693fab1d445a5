"""Time ``model(frame)`` against a hand-written loop of cv2 and the bare engine, paired in one run.

Usage: python benchmarks/evidence/overhead.py BUNDLE [--threads N] [--rounds N] [--precision fp32]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from boardfit.bundle import Bundle, open_bundle
from boardfit.runtime.choose import default_threads
from boardfit.runtime.engines import available_engines
from boardfit.runtime.resize import resize_square
from boardfit.runtime.session import load
from boardfit.specs import Artifact
from boardfit.timing import machine_name, time_paired

FLAGS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


def bare_litert(artifact: Artifact, files: dict[str, bytes], threads: int) -> Callable:
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_content=files[artifact.files[0]], num_threads=threads)
    source, target = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]
    shape: list[int] = []

    def run(tensor: np.ndarray) -> np.ndarray:
        if shape != list(tensor.shape):
            shape[:] = tensor.shape
            net.resize_tensor_input(source, tensor.shape)
            net.allocate_tensors()
        net.set_tensor(source, tensor)
        net.invoke()
        return net.get_tensor(target)

    return run


def bare_onnxruntime(artifact: Artifact, files: dict[str, bytes], threads: int) -> Callable:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    net = onnxruntime.InferenceSession(files[artifact.files[0]], options, providers=["CPUExecutionProvider"])
    name = net.get_inputs()[0].name
    return lambda tensor: net.run(None, {name: tensor})[0]


def bare_ncnn(artifact: Artifact, files: dict[str, bytes], threads: int) -> Callable:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if artifact.precision == "fp32":
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("a.param", "a.bin")]
        for path, name in zip(paths, artifact.files, strict=True):
            Path(path).write_bytes(files[name])
        net.load_param(paths[0])
        net.load_model(paths[1])

    def run(tensor: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input(artifact.inputs[0].name, ncnn.Mat(tensor[0]))
        return np.array(extractor.extract(artifact.outputs[0].name)[1])

    return run


BARE = {"litert": bare_litert, "onnxruntime": bare_onnxruntime, "ncnn": bare_ncnn}


def hand_written(bundle: Bundle, artifact: Artifact, run: Callable, size: int) -> Callable:
    """Return the loop that somebody writes who wants nothing but this model: best class and score."""
    image = bundle.manifest.image
    mean, std = np.float32(image.mean[0]), np.float32(image.std[0])
    if len({*image.mean}) > 1 or len({*image.std}) > 1:
        mean, std = np.float32(image.mean), np.float32(image.std)
    planar = artifact.inputs[0].layout == "NCHW"
    logits = artifact.outputs[0].activation == "logits"

    def call(frame: np.ndarray) -> tuple[int, float]:
        height, width = frame.shape[:2]
        side = int(image.crop * min(height, width) + 0.5)
        top, left = (height - side) // 2, (width - side) // 2
        crop = frame[top : top + side, left : left + side]
        if image.resize in FLAGS:
            pixels = cv2.resize(crop, (size, size), interpolation=FLAGS[image.resize])
        else:  # OpenCV has no such resize
            pixels = resize_square(crop, size, resize=image.resize)
        if image.channels == "rgb":
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        tensor = (pixels.astype(np.float32) - mean) / std
        if planar:
            tensor = np.ascontiguousarray(tensor.transpose(2, 0, 1))
        scores = run(tensor[None]).ravel()
        if logits:
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        best = int(scores.argmax())
        return best, float(scores[best])

    return call


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--precision", default="fp32")
    asked = parser.parse_args(argv)
    frame = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype(np.uint8)
    print(f"{machine_name()}, {asked.threads} threads, 640x480, {asked.rounds} rounds, {asked.precision}\n")
    print("| engine | size | hand-written p50 ms | model(frame) p50 ms | median ratio | ratio of p50 |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    with open_bundle(asked.bundle) as bundle:
        for artifact in bundle.manifest.artifacts:
            for engine in available_engines(artifact.format) if artifact.precision == asked.precision else ():
                options = {"engine": engine, "precision": asked.precision, "threads": asked.threads}
                for size in artifact.sizes if engine in BARE else ():
                    run = BARE[engine](artifact, bundle.artifact_files(artifact), asked.threads)
                    hand = hand_written(bundle, artifact, run, size)
                    with load(bundle, size=size, **options) as model:
                        assert model(frame).top(1)[0].index == hand(frame)[0]
                        calls = {"hand": lambda: hand(frame), "model": lambda: model(frame)}  # noqa: B023
                        times = time_paired(calls, rounds=asked.rounds, warmup=20)
                    mine, theirs = times["model"], times["hand"]
                    ratio = mine.p50_s / theirs.p50_s
                    worst = max(worst, ratio)
                    row = [f"{theirs.p50_s * 1e3:.3f}", f"{mine.p50_s * 1e3:.3f}"]
                    row += [f"{mine.ratio_to(theirs):.3f}", f"{ratio:.3f}"]
                    print("|", " | ".join([engine, str(size), *row]), "|", flush=True)
    print(f"\nlargest ratio of p50: {worst:.3f} (bar 1.05)")
    return 0 if 0.0 < worst <= 1.05 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
