"""Ten times as many frames as the engine can take: the age of answers at delivery, and memory.

The bar for the age at the 99th percentile is one interval + one inference + pre- and postprocessing, each at
its own 99th percentile.

Usage: python benchmarks/evidence/camera_overload.py [--bundle BUNDLE --engine NAME --size 224] [--seconds 60]

Without a bundle the fake engine sleeps for 50 ms per run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

from boardfit.runtime import camera
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.session import load
from boardfit.timing import machine_name


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle")
    parser.add_argument("--engine")
    parser.add_argument("--size", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--times", type=float, default=10.0, help="frames that come per frame that is answered"
    )
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if asked.bundle is None:
            asked.bundle = str(Path(folder) / "fake.boardfit")
            write_fake_bundle(asked.bundle, sizes=(112,), delay_s=0.05)
        with load(asked.bundle, engine=asked.engine, size=asked.size, threads=1) as model:
            with camera.open("synthetic:320x240@30") as source:
                one = source.take(5.0)
            spans = sorted(model(one.image).timings.total_s for _ in range(40))
            fps = asked.times / spans[20]
            with camera.open(f"synthetic:320x240@{fps:.0f}") as source:
                running = camera.loop(source, model)
                threading.Timer(asked.seconds, running.stop).start()
                marks = []
                for _ in running:
                    if running.stats.results % 100 == 0:
                        marks.append(resident_mb())
    stages = running.stats.percentiles_s()
    counters = running.counters
    p99 = {stage: values[2] for stage, values in stages.items()}
    work = [p99[stage] for stage in ("preprocess", "inference", "postprocess", "entropy") if stage in p99]
    bar_s = 1.0 / fps + sum(work)
    print(f"{machine_name()}: {asked.bundle.rpartition('/')[2]}, {fps:.0f} frames/s for {asked.seconds:g} s")
    print(f"{counters['frames']} frames, {counters['dropped']} dropped, {counters['results']} answered")
    for stage, values in stages.items():
        print(
            f"{stage:>12}: "
            + "  ".join(f"p{p} {1e3 * v:.2f} ms" for p, v in zip((50, 90, 99), values, strict=True))
        )
    print(f"age p99 {1e3 * p99['age']:.1f} ms, bar {1e3 * bar_s:.1f} ms")
    tenth = len(marks) // 10
    print(f"memory after a tenth {marks[tenth]:.1f} MB, at the end {marks[-1]:.1f} MB")
    return 0 if p99["age"] <= bar_s and marks[-1] - marks[tenth] <= 2.0 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
