"""Answer very many frames and fit a line to the memory: does the loop leak?

Every piece is a process that runs for a while and appends its marks to FILE, so that a long soak may be run
in pieces; the line is fitted within them, after each one's first tenth.

Usage: python benchmarks/evidence/camera_soak.py FILE [--bundle BUNDLE --engine NAME] [--live]
           [--frames N] [--seconds S]
       python benchmarks/evidence/camera_soak.py FILE --report

Without a bundle the fake engine runs, and the size changes at every 7th frame; of a bundle the smallest size
answers, and at every 20th frame the next one. Every frame of a film is answered; with ``--live`` the frames
come from a camera that has one each 0.2 ms, and give way where that is too fast.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np

from boardfit.runtime import camera
from boardfit.runtime.camera.devices.synthetic import picture
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.session import load
from boardfit.timing import machine_name

MARK = 500
GROUND = np.random.RandomState(0).randint(0, 256, (136, 176, 3)).astype(np.uint8)


class Fast:
    """A film that has a frame whenever one is wanted, or a camera that has one after a time."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.count = 0

    def read(self) -> np.ndarray:
        """Return the next picture."""
        if self.interval_s:
            time.sleep(self.interval_s)
        self.count += 1
        return picture(GROUND, (160, 120), self.count)

    def close(self) -> None:
        """Nothing is held."""


def resident_bytes() -> int:
    # No pathlib in here: it interns each part of a path, and the interpreter's table of such strings is made
    # anew at double the size, 0.5 MB more, when it has taken enough of them. That was seen as growth.
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def held() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def run(asked: argparse.Namespace, bundle: str) -> dict:
    marks: list[tuple[int, int]] = []
    with load(bundle, engine=asked.engine, policy="fixed", threads=1) as model:
        settings = camera.WatchSettings(stall_s=None, frozen_s=None)
        sizes = model.sizes
        opener = partial(Fast, 2e-4 if asked.live else 0.0)
        source = camera.Source(opener, name="fast", settings=settings, live=asked.live)
        with source, camera.loop(source, model, sinks=[id]) as running:
            before = None
            began = time.monotonic()
            for _ in running:
                count = running.stats.results
                if asked.bundle:
                    model.size_limit = sizes[min(1, len(sizes) - 1) if count % 20 == 0 else 0]
                elif count % 7 == 0:
                    model.size_limit = sizes[(count // 7) % len(sizes)]
                if count % MARK == 0:
                    after = held()
                    before = before or after
                    marks.append((count, resident_bytes()))
                    if count >= asked.frames or time.monotonic() - began > asked.seconds:
                        break
    return {
        "bundle": Path(bundle).name + " live" * asked.live,
        "marks": marks,
        "held": [before, after],
        "by_size": running.stats.by_size,
    }


def report(pieces: list[dict]) -> int:
    """Fit one slope to all pieces, each with a height of its own; the bound is that of a 95 % interval."""
    frames = sum(piece["marks"][-1][0] for piece in pieces)
    xs, ys = [], []
    for piece in pieces:
        marks = np.array(piece["marks"][len(piece["marks"]) // 10 :], np.float64)
        xs.append(marks[:, 0] - marks[:, 0].mean())
        ys.append(marks[:, 1] - marks[:, 1].mean())
    x, y = np.concatenate(xs) / 1e6, np.concatenate(ys) / 1e6
    slope = float((x * y).sum() / (x * x).sum())
    left = y - slope * x
    # Neighbouring marks are alike: blocks of twenty count as one.
    blocks = max(2, len(x) // 20)
    deviation = float(np.sqrt((left**2).sum() / (len(x) - 1 - len(pieces)) / (x * x).sum() * len(x) / blocks))
    bound = slope + 1.96 * deviation
    even = all(tuple(piece["held"][0]) == tuple(piece["held"][1]) for piece in pieces)
    print(f"{machine_name()}: {pieces[0]['bundle']}, {frames} frames in {len(pieces)} pieces")
    print(f"growth {slope:.2f} MB per million frames, upper 95 % bound {bound:.2f} (bar 2.00)")
    print(f"threads and open files even: {even}; answers by size in the last piece: {pieces[-1]['by_size']}")
    return 0 if bound <= 2.0 and even else 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--bundle")
    parser.add_argument("--engine")
    parser.add_argument("--frames", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--live", action="store_true", help="frames of a camera, not of a film")
    parser.add_argument("--report", action="store_true")
    asked = parser.parse_args(argv)
    path = Path(asked.file)
    if not asked.report:
        with tempfile.TemporaryDirectory() as folder:
            bundle = asked.bundle or str(Path(folder) / "fake.boardfit")
            if asked.bundle is None:
                write_fake_bundle(bundle, sizes=(16, 24, 32))
            piece = run(asked, bundle)
        with path.open("a") as out:
            out.write(json.dumps(piece) + "\n")
    return report([json.loads(line) for line in path.read_text().splitlines()])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
