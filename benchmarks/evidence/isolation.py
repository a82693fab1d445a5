"""Measure what isolation costs, and what becomes of engines that crash, hang or take memory.

Cost: ``model(frame)`` at 640x480 with the engine in its own process against one in this process, in turn:
``--streak`` calls of the one, as a loop makes them, and as many of the other, without a pause or as far
apart as ``--pause`` says. Rounds alternate which comes first. Over the other side's streak the engine's
process falls asleep, which it does not in a loop: so each streak begins with ``--lead-in`` seconds of calls
that are not timed. With a streak of 1 and no lead-in, half of the isolated runs follow another one at once,
half follow two in this process.
The rounds come in blocks, since other jobs disturb both sides: the bars are held against the median block.
Where its 99 % interval has a bar within it, blocks are added up to ``--most``; who is still there then is
marked "open". ``--awake`` sets how long the engine's process does not sleep after an answer; the median in
this process is shown too, since a core that does not sleep could disturb it. ``--realtime`` gives both sides
the processor before all other jobs (root only).

Chaos: four kinds of fatal engine; how long from its detection to the next answer.

Usage: python benchmarks/evidence/isolation.py cost BUNDLE [--blocks N] [--most N] [--rounds N] [--streak N]
           [--pause S]
       python benchmarks/evidence/isolation.py chaos WORK [--times N]
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from endless import write_endless_bundle

from boardfit.bundle import open_bundle
from boardfit.errors import EngineLost
from boardfit.runtime.engines import available_engines
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import Session, load
from boardfit.timing import LEAD_IN_S, machine_name, time_paired

P50_BAR_MS, P99_BAR_MS, REPLACED_BAR_S = 0.25, 0.6, 1.0
FRAME = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype(np.uint8)


class Blocks:
    """What one figure came to, in milliseconds, in each block; its median is held against a bar."""

    def __init__(self, bar_ms: float = math.inf) -> None:
        self.bar_ms = bar_ms
        self.values: list[float] = []

    @property
    def median(self) -> float:
        """Of all blocks so far."""
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """The 99 % confidence interval of the median, from order statistics (Conover, 1999, section 3.2).

        Looked at after each block, it excludes a bar that is the truth in some 3 % of measurements, not in 1.
        Of fewer than 8 blocks no part is as sure: it is the range of them all.
        """
        ordered, count = sorted(self.values), len(self.values)
        rank, tail = 0, 1 / 2**count
        while (tail := tail + math.comb(count, rank + 1) / 2**count) <= 0.005:
            rank += 1
        return ordered[rank], ordered[-1 - rank]

    @property
    def is_open(self) -> bool:
        """Whether the interval has the bar within it."""
        low, high = self.interval
        return low <= self.bar_ms < high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.median:.3f} ({low:.3f} to {high:.3f})" + ", open" * self.is_open


def measure(here: Session, there: Session, asked: argparse.Namespace) -> tuple[Blocks, Blocks, Blocks]:
    """Return what isolation adds to the median and to the 99th percentile, and the median without it."""
    assert np.array_equal(here(FRAME).scores, there(FRAME).scores)
    calls = {"here": lambda: here(FRAME), "there": lambda: there(FRAME)}
    pattern = {"rounds": asked.rounds, "burst": asked.streak}
    pattern |= {"pause_s": asked.pause, "lead_in_s": asked.lead_in}
    p50, p99, plain = Blocks(P50_BAR_MS), Blocks(P99_BAR_MS), Blocks()
    for count in range(max(asked.blocks, asked.most)):
        if count >= asked.blocks and not (p50.is_open or p99.is_open):
            break
        times = time_paired(calls, warmup=1, **pattern)
        one, other = times["here"], times["there"]
        p50.values.append((other.p50_s - one.p50_s) * 1e3)
        p99.values.append((other.p99_s - one.p99_s) * 1e3)
        plain.values.append(one.p50_s * 1e3)
    return p50, p99, plain


def cost(asked: argparse.Namespace) -> int:
    """Print a table of every engine and size; 0 where the median blocks are within the bars."""
    how = f"{asked.blocks} to {asked.most} blocks of {asked.rounds * asked.streak} calls, "
    how += f"{asked.streak} in a row, {asked.lead_in * 1e3:g} ms of calls before them, "
    how += f"{asked.pause * 1e3:g} ms apart, awake for {asked.awake * 1e3:g} ms"
    how += ", at real-time priority" * asked.realtime
    print(f"{machine_name()}, 1 thread, 640x480, fp32, {how}\n")
    print("| engine | size | here p50 ms | extra p50 (99 % interval) | extra p99, likewise | blocks | MiB |")
    print("|---|---|---|---|---|---|---|")
    figures: list[Blocks] = []
    limits = Isolation(awake_s=asked.awake)
    with open_bundle(asked.bundle) as bundle:
        for artifact in bundle.manifest.artifacts:
            if artifact.precision != "fp32":
                continue
            for engine in available_engines(artifact.format):
                for size in artifact.sizes:
                    options = {"engine": engine, "precision": "fp32", "threads": 1, "size": size}
                    with load(bundle, **options) as here, load(bundle, isolate=limits, **options) as there:
                        p50, p99, plain = measure(here, there, asked)
                        resident = there.isolation.rss_bytes >> 20
                    row = [engine, size, f"{plain.median:.2f}", p50, p99, len(p50.values), resident]
                    print("|", " | ".join(map(str, row)), "|", flush=True)
                    figures += [p50, p99]
    good = all(figure.median <= figure.bar_ms for figure in figures)
    left = sum(figure.is_open for figure in figures)
    verdict = "met" if good else "MISSED"
    print(f"\nbars: p50 {P50_BAR_MS} ms, p99 {P99_BAR_MS} ms: {verdict}; figures left open: {left}")
    return 0 if good else 1


def fatal(work: Path) -> Iterator[tuple[str, Path, Isolation, int]]:
    """Yield a name, a bundle, limits, and the signal that the engine is sent while it runs, or 0."""
    write_fake_bundle(work / "slow", delay_s=0.15)
    yield "SIGSEGV", work / "slow", Isolation(), signal.SIGSEGV
    yield "SIGSTOP", work / "slow", Isolation(), signal.SIGSTOP
    write_endless_bundle(work / "endless")
    yield "endless .tflite", work / "endless", Isolation(first_deadline_s=1.0), 0
    write_fake_bundle(work / "eater", fault="eat", after=2)
    yield "8 GB allocation", work / "eater", Isolation(deadline_s=30.0), 0


def lose(model: Session, number: int) -> tuple[float, float]:
    """Lose the engine; return the seconds until that was noticed, and from there to the next answer."""
    timer = None
    if number:
        for _ in range(6):  # after five runs, the deadline is that of the runs
            model(FRAME)
        timer = threading.Timer(0.05, os.kill, (model.isolation.pid, number))
        timer.start()
    begin = perf_counter()
    try:
        while True:
            begin = perf_counter()
            model(FRAME)
    except EngineLost:
        noticed = perf_counter()
    if timer is not None:
        timer.join()
    while True:
        try:
            model(FRAME)
        except EngineLost:
            continue  # the endless model: its replacement is there, and as endless
        break
    return noticed - begin, perf_counter() - noticed


def replaced_s(model: Session) -> tuple[float, float]:
    """Lose an endless model: until it was noticed, and until a new process has it loaded."""
    begin = perf_counter()
    try:
        model(FRAME)
        raise AssertionError("the endless model answered")
    except EngineLost:
        noticed = perf_counter()
    host = model._host
    host._settle(host._settled())
    return noticed - begin, perf_counter() - noticed


def chaos(asked: argparse.Namespace) -> int:
    """Print a table of the four; 0 where every replacement came in time."""
    work = Path(asked.bundle)
    work.mkdir(parents=True, exist_ok=True)
    print(f"{machine_name()}, {asked.times} times each\n")
    print("| the engine's end | noticed after s, worst | replaced s after that, median | worst |")
    print("|---|---|---|---|")
    good = True
    for name, path, limits, number in fatal(work):
        with load(path, isolate=limits, threads=1) as model:
            if "endless" in name:
                found = [replaced_s(model) for _ in range(asked.times)]
            else:
                found = [lose(model, number) for _ in range(asked.times)]
        noticed, replaced = zip(*found, strict=True)
        row = [f"{max(noticed):.2f}", f"{statistics.median(replaced):.2f}", f"{max(replaced):.2f}"]
        print("|", " | ".join([name, *row]), "|", flush=True)
        good = good and max(replaced) <= REPLACED_BAR_S
    print(f"\nbar: replaced within {REPLACED_BAR_S} s: {'met' if good else 'MISSED'}")
    return 0 if good else 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("cost", "chaos"))
    parser.add_argument("bundle", metavar="BUNDLE|WORK")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--most", type=int, default=120, metavar="BLOCKS")
    parser.add_argument("--rounds", type=int, default=10, help="in a block")
    parser.add_argument("--streak", type=int, default=20, metavar="CALLS", help="of one side in a row")
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="before each call")
    parser.add_argument(
        "--lead-in", type=float, default=LEAD_IN_S, metavar="SECONDS", help="of untimed calls"
    )
    parser.add_argument("--awake", type=float, default=Isolation().awake_s, metavar="SECONDS")
    parser.add_argument("--realtime", action="store_true", help="on a busy machine: both sides go first")
    parser.add_argument("--times", type=int, default=10)
    asked = parser.parse_args(argv)
    if asked.realtime:  # inherited by the engine's process
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    return cost(asked) if asked.what == "cost" else chaos(asked)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
