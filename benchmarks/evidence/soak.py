"""Run a session for a long time, its size switching throughout, and bound the growth of its memory.

The frames are run in pieces, each in a fresh process, and every finished piece is a line in OUT: stop at any
time, the same command goes on. Of each piece the first tenth is warm-up; through the rest a line is fitted.
The pieces' slopes are independent samples, of whose mean the one-sided upper 95 % bound is given (Student's
t); samples within one piece are not independent, since memory comes and goes in steps. Memory is the resident
memory of this process and, isolated, of the engine's.

Usage: python benchmarks/evidence/soak.py OUT.jsonl [--bundle B --engine E] [--frames 1000000] [--isolate]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.session import Session, load
from boardfit.timing import machine_name

BAR_MB = 2.0
SAMPLES = 400
SWITCH_EVERY = 7
# One-sided 95 % quantiles of Student's t by degrees of freedom.
T95 = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860, 9: 1.833}


def rss_mb(session: Session) -> float:
    """Return the resident memory in MB: this process', and the engine's where it has one."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    own = pages * os.sysconf("SC_PAGE_SIZE")
    return (own + (session.isolation.rss_bytes if session.isolation else 0)) / 1e6


def piece(session: Session, frames: int) -> dict[str, float]:
    """Run a piece; return its slope in MB per million frames, and more."""
    random = np.random.RandomState(os.getpid() % 1000)
    pictures = [random.randint(0, 256, (height, 320, 3)).astype(np.uint8) for height in (240, 180, 241)]
    sizes = session.sizes
    every = max(1, frames // SAMPLES)
    at, memory = [], []
    begin = perf_counter()
    for index in range(frames):
        # Mostly the smallest size; every few frames another one.
        size = sizes[index // SWITCH_EVERY % len(sizes)] if index % SWITCH_EVERY == 0 else sizes[0]
        session.look(pictures[index % 3], size)
        if index % every == 0 and index >= frames // 10:
            at.append(index / 1e6)
            memory.append(rss_mb(session))
    slope = float(np.polyfit(at, memory, 1)[0])
    return {
        "frames": frames,
        "mb_per_million": slope,
        "growth_mb": memory[-1] - memory[0],
        "rss_mb": memory[-1],
        "seconds": perf_counter() - begin,
        "fds": len(list(Path("/proc/self/fd").iterdir())),
    }


def run_piece(asked: argparse.Namespace) -> int:
    """Print one piece as a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = asked.bundle or f"{folder}/fake.boardfit"
        if not asked.bundle:
            write_fake_bundle(bundle, sizes=(32, 48, 64))
        options = {"engine": asked.engine, "threads": 1, "isolate": asked.isolate}
        with load(bundle, policy="entropy", **options) as session:
            print(json.dumps(piece(session, asked.frames // asked.pieces)))
    return 0


def report(asked: argparse.Namespace, rows: list[dict[str, float]]) -> int:
    """Print what the pieces say; 0 where the bound is within the bar."""
    slopes = [row["mb_per_million"] for row in rows]
    mean = statistics.fmean(slopes)
    spread = statistics.stdev(slopes) / len(slopes) ** 0.5
    bound = mean + T95.get(len(slopes) - 1, 1.833) * spread
    what = Path(asked.bundle).name if asked.bundle else "a fake model"
    frames, resident = sum(int(row["frames"]) for row in rows), max(row["rss_mb"] for row in rows)
    print(f"{machine_name()}; {what}, {'isolated' if asked.isolate else 'in process'}, 1 thread")
    print(f"{frames} frames in {len(rows)} processes, size switching throughout")
    print(f"growth after the first tenth: {mean:+.2f} MB per million frames, upper 95 % bound {bound:+.2f}")
    print(f"resident at the end {resident:.0f} MB; open files {rows[-1]['fds']:.0f}")
    print(f"bar {BAR_MB} MB per million: {'met' if bound <= BAR_MB else 'MISSED'}")
    return 0 if bound <= BAR_MB else 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", help="default: a fake one")
    parser.add_argument("--engine")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--pieces", type=int, default=5)
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--lock", help="a file to hold, as flock does, while a piece runs")
    parser.add_argument("--one-piece", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.one_piece:
        return run_piece(asked)
    if not 2 <= asked.pieces <= 10:
        parser.error("--pieces: expected 2 to 10")
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    while len(rows) < asked.pieces:
        command = ["flock", asked.lock] if asked.lock else []
        command += [sys.executable, __file__, *argv, "--one-piece"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        with asked.out.open("a") as file:
            file.write(done.stdout)
        print(f"piece {len(rows)} of {asked.pieces}: {rows[-1]}", file=sys.stderr, flush=True)
    return report(asked, rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
