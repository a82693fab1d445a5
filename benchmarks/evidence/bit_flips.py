"""Flip every single bit of a signed bundle of about 20 KB: how many do verify and the reader not see?

The reader is asked for what a session on the first artifact and its self-test use; elsewhere it need not
see a flip.

Usage: python benchmarks/evidence/bit_flips.py [--bytes 20000] [--part 1/8]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from boardfit.bundle import open_bundle, verify_bundle, write_bundle, write_tree
from boardfit.bundle.keys import read_private, write_key_pair
from boardfit.bundle.signing import sign
from boardfit.bundle.store import ZipStore
from boardfit.errors import BundleError
from boardfit.specs import Artifact, ImageSpec, TensorSpec, classic_policy
from boardfit.timing import machine_name


def artifact(format_name: str, *files: str) -> Artifact:
    image = TensorSpec("image", (None, None, None, 3), layout="NHWC")
    scores = TensorSpec("scores", (None, 3), activation="softmax")
    return Artifact(format_name, "fp32", (32, 48), files, (image,), (scores,))


def write_small(path: Path, size_bytes: int) -> None:
    """Write a signed bundle of about so many bytes."""
    random = np.random.default_rng(0)
    rest = (size_bytes - 5800) // 2
    manifest = write_bundle(
        path,
        name="flips",
        labels=("cat", "dog", "bird"),
        image=ImageSpec(),
        policy=classic_policy("entropy", (32, 48)),
        artifacts=(artifact("tflite", "a.tflite"), artifact("ncnn", "a.param", "a.bin")),
        files={"a.tflite": random.bytes(rest), "a.param": b"7767517\n0 0\n", "a.bin": random.bytes(rest)},
        golden_frame=random.integers(0, 256, (8, 8, 3)).astype(np.uint8),
        golden_outputs={32: [np.zeros((1, 3), np.float32)], 48: [np.ones((1, 3), np.float32)]},
        measurements={"schema": 1, "machine": "none"},
    )
    key = path.with_name("key")
    write_key_pair(key)
    with open_bundle(path) as bundle:
        contents = {entry.path: bundle.read(entry.path) for entry in manifest.files}
        signature = sign(read_private(key, bytes), bundle.content_id)
        write_tree(
            path, manifest, contents=contents, measurements=bundle.measurements, signatures=[signature]
        )


def read_used(path: Path) -> None:
    with open_bundle(path) as bundle:
        bundle.artifact_files(bundle.manifest.artifacts[0])
        bundle.golden_frame()
        for size in bundle.manifest.sizes:
            bundle.golden_outputs(size)


def used_bytes(path: Path) -> np.ndarray:
    """Return for each byte of the file whether the reader uses it: all but two files, and one unread list."""
    store = ZipStore(path)
    used = np.ones(store.zip_bytes, bool)
    for entry in store.entries:
        if entry.path in ("a.bin", "a.param", "measurements.json", "signatures.json"):
            used[entry.data_offset : entry.data_offset + entry.size_bytes] = False
    # Of the files outside the manifest, the checksum list is the only witness.
    unread = next(entry for entry in store.entries if entry.path == "SHA256SUMS")
    text, at = store.read("SHA256SUMS"), 0
    for line in text.splitlines(keepends=True):
        if line.endswith((b"  measurements.json\n", b"  signatures.json\n")):
            used[unread.data_offset + at : unread.data_offset + at + 64] = False
        at += len(line)
    store.close()
    return used


def accepts(check: Callable[[Path], None], path: Path) -> bool:
    try:
        check(path)
    except BundleError:
        return False
    return True


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--part", default="1/1", metavar="K/N", help="every N-th byte, from the K-th on")
    asked = parser.parse_args(argv)
    part, parts = (int(word) for word in asked.part.split("/"))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flips.boardfit"
        write_small(path, asked.bytes)
        verify_bundle(path)
        read_used(path)
        data, used = path.read_bytes(), used_bytes(path)
        unseen_by_verify = unseen_by_reader = tried = tried_by_reader = 0
        with path.open("r+b", buffering=0) as stream:
            for offset in range(part - 1, len(data), parts):
                byte = data[offset]
                tried += 8
                for bit in range(8):
                    os.pwrite(stream.fileno(), bytes([byte ^ (1 << bit)]), offset)
                    unseen_by_verify += accepts(verify_bundle, path)
                    if used[offset]:
                        tried_by_reader += 1
                        unseen_by_reader += accepts(read_used, path)
                os.pwrite(stream.fileno(), bytes([byte]), offset)
        verify_bundle(path)
    print(f"{machine_name()}, a signed bundle of {len(data)} bytes, {time.perf_counter() - begin:.0f} s")
    print(f"verify: {unseen_by_verify} of {tried} flipped bits not seen")
    print(f"reader, in what it uses: {unseen_by_reader} of {tried_by_reader} flipped bits not seen")
    return 1 if unseen_by_verify or unseen_by_reader else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
