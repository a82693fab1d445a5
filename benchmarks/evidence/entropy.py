"""Time ``entropy_bits`` on one thread, and compare it with the value over all pixels.

Usage: python benchmarks/evidence/entropy.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from photos import data_folder
from preprocess import photographs, versions

from boardfit.runtime.entropy import entropy_bits, exact_entropy_bits
from boardfit.timing import machine_name, time_paired


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield every frame of a video."""
    video = cv2.VideoCapture(str(path))
    while True:
        ok, frame = video.read()
        if not ok:
            return
        yield frame


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    cv2.setNumThreads(1)
    photos = photographs(500)
    print(f"{machine_name()}, {versions()}, one thread\n")
    sets = {
        "photos_score, 299x299": iter(photos),
        "photos_score enlarged to 1920x1080": (cv2.resize(photo, (1920, 1080)) for photo in photos),
        "vtest.avi, 768x576": video_frames(data_folder() / "video" / "vtest.avi"),
    }
    print("| frames | count | error p50 bits | p99 | largest | bar for p99 |")
    print("|---|---|---|---|---|---|")
    good = bool(photos)
    for name, frames in sets.items():
        errors = [abs(entropy_bits(frame) - exact_entropy_bits(frame)) for frame in frames]
        p50, p99 = np.quantile(errors, [0.5, 0.99])
        good = good and p99 <= 0.05
        print(f"| {name} | {len(errors)} | {p50:.4f} | {p99:.4f} | {max(errors):.4f} | 0.05 |")
    print("\n| frame | p50 us | p99 us | over all pixels, p50 us |")
    print("|---|---|---|---|")
    for width, height in ((640, 480), (1920, 1080)):
        frame = cv2.resize(photos[0], (width, height))
        # Timed apart: the pass over all pixels would leave the grid's caches cold.
        grid = time_paired({"grid": lambda: entropy_bits(frame)}, rounds=500, warmup=20)["grid"]  # noqa: B023
        whole = time_paired({"all": lambda: exact_entropy_bits(frame)}, rounds=50)["all"]  # noqa: B023
        micros = [f"{value * 1e6:.0f}" for value in (grid.p50_s, grid.p99_s, whole.p50_s)]
        print("|", " | ".join([f"{width}x{height}", *micros]), "|")
        good = good and grid.p50_s <= 150e-6
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
