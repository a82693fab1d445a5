"""Time what ``load`` does to read a packed bundle of 20 MB, against reading and hashing its bytes.

The bundle's part is measured: opening, the checks of layout, names and manifest, reading and hashing the file
that is used. Beside it all of ``load`` but the engine, with one that takes the bytes and does nothing: that
adds the search for the policy among the installed packages, which grows with their number.

Usage: python benchmarks/evidence/reading.py [--rounds N]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from boardfit.bundle import open_bundle, write_bundle
from boardfit.runtime.choose import Choice
from boardfit.runtime.session import Session
from boardfit.specs import Artifact, ImageSpec, TensorSpec, classic_policy
from boardfit.timing import machine_name, time_paired

SIZES = (112, 160, 224)


class Idle:
    """An engine that keeps no byte."""

    formats: ClassVar[tuple[str, ...]] = ("onnx",)

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:  # noqa: ARG002
        assert set(files) == set(artifact.files)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Never called."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""


def write_packed(path: Path, size_bytes: int, labels: int) -> None:
    """Write what ``pack --format onnx`` leaves of an ImageNet classifier: one file for three sizes."""
    image = TensorSpec("image", (None, 3, None, None), layout="NCHW")
    scores = TensorSpec("scores", (None, labels), activation="logits")
    random = np.random.default_rng(0)
    write_bundle(
        path,
        name="packed",
        labels=[f"class number {index}" for index in range(labels)],
        image=ImageSpec(),
        policy=classic_policy("entropy", SIZES),
        artifacts=[Artifact("onnx", "fp32", SIZES, ("models/a.onnx",), (image,), (scores,))],
        files={"models/a.onnx": random.bytes(size_bytes)},
        golden_frame=random.integers(0, 256, (240, 320, 3)).astype(np.uint8),
        golden_outputs={size: [np.zeros((1, labels), np.float32)] for size in SIZES},
        measurements={"schema": 1, "machine": "none"},
    )


def read_and_hash(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return hashlib.sha256(os.pread(fd, os.fstat(fd).st_size, 0)).hexdigest()
    finally:
        os.close(fd)


def read_as_load_does(path: Path) -> None:
    with open_bundle(path) as bundle:
        for artifact in bundle.manifest.artifacts:
            bundle.artifact_files(artifact)


def load_all_but_the_engine(path: Path) -> None:
    with open_bundle(path) as bundle:
        manifest = bundle.manifest
        choice = Choice("idle", Idle, "fp32", manifest.artifacts)
        Session(bundle, choice, manifest.policy, threads=1, stream=False, owns_bundle=False).close()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.boardfit"
        write_packed(path, 20_000_000, labels=1000)
        size_bytes = path.stat().st_size
        calls = {
            "bytes": lambda: read_and_hash(path),
            "bundle": lambda: read_as_load_does(path),
            "load": lambda: load_all_but_the_engine(path),
        }
        times = time_paired(calls, rounds=asked.rounds, warmup=5)
    print(f"{machine_name()}, {size_bytes} bytes in the page cache, {asked.rounds} rounds")
    print(f"reading and hashing them: p50 {times['bytes'].p50_s * 1e3:.1f} ms")
    ratio = times["bundle"].ratio_to(times["bytes"])
    print(f"the bundle's part of load: p50 {times['bundle'].p50_s * 1e3:.1f} ms, ratio {ratio:.3f} (bar 1.2)")
    whole = times["load"].ratio_to(times["bytes"])
    print(f"load without the engine: p50 {times['load'].p50_s * 1e3:.1f} ms, ratio {whole:.3f}")
    return 0 if ratio <= 1.2 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
