"""Ten times as many frames as the engine can take: the age of answers at delivery, and memory.

The bar for the age at the 99th percentile is one interval + one inference + pre- and postprocessing, each at
its own 99th percentile of the same round. Other jobs on the machine disturb single rounds, so the median
round is held against it. All rounds are of one loop, and memory is that of all of them.

Usage: python benchmarks/evidence/camera_overload.py [--bundle BUNDLE --engine NAME --size 224] [--rounds N]
           [--seconds S] [--times N]

Without a bundle the fake engine sleeps for 50 ms per run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from camera_soak import resident_bytes

from boardfit.runtime import camera
from boardfit.runtime.camera.stats import Stats
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.session import Session, load
from boardfit.timing import machine_name

WORK = ("preprocess", "inference", "postprocess", "entropy")
MEMORY_BAR_MB = 2.0
MARK = 20
LEAST_MARKS = 10
LEAST_SHARE = 0.8
"""Of the frames that should come, that must: or it is no overload."""


def overloading_fps(model: Session, times: float) -> float:
    """Return the frames per second that are so many times what the model can answer."""
    with camera.open("synthetic:320x240@30") as source:
        one = source.take(5.0)
    spans = sorted(model(one.image).timings.total_s for _ in range(40))
    return times / spans[20]


def over_ms(stats: Stats, fps: float) -> float:
    """Print the stages of a round; return by how many milliseconds the age is over the bar."""
    stages = stats.percentiles_s()
    for stage, (p50, p90, p99) in stages.items():
        print(f"{stage:>12}: p50 {1e3 * p50:.2f}  p90 {1e3 * p90:.2f}  p99 {1e3 * p99:.2f} ms")
    age_s = stages["age"][2]
    bar_s = 1.0 / fps + sum(stages[stage][2] for stage in WORK if stage in stages)
    over = 1e3 * (age_s - bar_s)
    print(f"age p99 {1e3 * age_s:.2f} ms, bar {1e3 * bar_s:.2f} ms: {over:+.2f}; {stats.results} answers\n")
    sys.stdout.flush()
    return over


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle")
    parser.add_argument("--engine")
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round")
    parser.add_argument(
        "--times", type=float, default=10.0, help="frames that come per frame that is answered"
    )
    asked = parser.parse_args(argv)
    if asked.rounds < 1 or asked.seconds < 1.0:
        parser.error("expected at least one round of a second")
    overs: list[float] = []
    marks: list[float] = []
    answers = 0
    with tempfile.TemporaryDirectory() as folder:
        if asked.bundle is None:
            asked.bundle = str(Path(folder) / "fake.boardfit")
            write_fake_bundle(asked.bundle, sizes=(112,), delay_s=0.05)
        with load(asked.bundle, engine=asked.engine, size=asked.size, threads=1) as model:
            fps = overloading_fps(model, asked.times)
            name = asked.bundle.rpartition("/")[2]
            print(f"{machine_name()}: {name}, {fps:.0f} frames/s, {asked.rounds} times {asked.seconds:g} s\n")
            with camera.open(f"synthetic:320x240@{fps:.0f}") as source:
                running = camera.loop(source, model)
                began = time.monotonic()
                for _ in running:
                    answers += 1
                    if answers % MARK == 1:
                        marks.append(resident_bytes() / 1e6)
                    if time.monotonic() - began >= asked.seconds * (len(overs) + 1):
                        overs.append(over_ms(running.stats, fps))
                        running.stats = Stats()
                    if len(overs) == asked.rounds:
                        break
                counters = running.counters
    median_ms, grown_mb = statistics.median(overs), marks[-1] - marks[len(marks) // 10]
    within = sum(over <= 0.0 for over in overs)
    came = counters["frames"] / (fps * asked.rounds * asked.seconds)
    print(f"{counters['frames']} frames, {counters['dropped']} dropped, {answers} answered")
    print(f"over the bar in the median round {median_ms:+.2f} ms; within it in {within} of {asked.rounds}")
    print(f"memory grew by {grown_mb:.1f} MB after a first tenth, bar {MEMORY_BAR_MB:g} MB")
    if len(marks) < LEAST_MARKS:
        print(f"only {len(marks)} marks of memory: ask for more or longer rounds")
    if came < LEAST_SHARE:
        print(f"no overload: {came:.0%} of the frames came that were to come")
    good = median_ms <= 0.0 and grown_mb <= MEMORY_BAR_MB
    good = good and came >= LEAST_SHARE and len(marks) >= LEAST_MARKS
    print("met" if good else "MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
