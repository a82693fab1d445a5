"""Measure the memory of a session that serves all sizes over one that serves the largest.

Each session runs in a fresh process. The engine's share is the growth of its own memory (PSS) from
after the imports, the engine's library among them, to after twelve frames.

Usage: python benchmarks/evidence/memory.py BUNDLE [--precision fp32] [--threads N] [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from boardfit.bundle import open_bundle
from boardfit.runtime.engines import available_engines, find_engine
from boardfit.runtime.preprocess import Preprocessor
from boardfit.runtime.session import load
from boardfit.specs import PolicySpec
from boardfit.timing import machine_name

MIB = 1 << 20
BAR = 1.6


def pss_bytes() -> int:
    """Return this process' share of memory in bytes."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not report Pss: expected Linux 4.14 or later")


def frames_for(count: int) -> list[np.ndarray]:
    """Return frames of 0, 3, 6, ... bits: one per size."""
    greys = np.random.RandomState(0).randint(0, 256, (480, 640, 1)).astype(np.uint8)
    shifts = [8 - round(8 * i / max(1, count - 1)) for i in range(count)]
    return [np.repeat(np.right_shift(greys, shift), 3, axis=2) for shift in shifts]


def grow(asked: argparse.Namespace, sizes: tuple[int, ...]) -> int:
    """Return by how many bytes a session grew this process."""
    library = next(name for name in find_engine(asked.child).libraries if find_spec(name))
    import_module("ai_edge_litert.interpreter" if library == "ai_edge_litert" else library)
    frames = frames_for(len(sizes))
    edges = tuple(8.0 * (i + 0.5) / max(1, len(sizes) - 1) for i in range(len(sizes) - 1))
    Preprocessor(open_bundle(asked.bundle).manifest.image, "NHWC").fit(frames[0], max(sizes))
    gc.collect()
    before = pss_bytes()
    policy = PolicySpec("entropy", sizes, edges)
    options = {"engine": asked.child, "precision": asked.precision, "threads": asked.threads}
    with load(asked.bundle, policy=policy, **options) as model:
        seen = {model(frame).size for _ in range(12 // len(frames)) for frame in frames}
        assert seen == set(sizes), f"the frames ran at {seen}, not at {sizes}"
        gc.collect()
        return pss_bytes() - before


def in_fresh_processes(asked: argparse.Namespace, engine: str, sizes: tuple[int, ...]) -> float:
    """Return the median growth in bytes over fresh processes."""
    command = [sys.executable, __file__, asked.bundle, "--child", engine, "--precision", asked.precision]
    command += ["--threads", str(asked.threads), "--sizes", ",".join(map(str, sizes))]
    done = [
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True) for _ in range(asked.rounds)
    ]
    return statistics.median(float(one.stdout.split()[-1]) for one in done)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.child:
        print(grow(asked, tuple(int(size) for size in asked.sizes.split(","))))
        return 0
    print(f"{machine_name()}, {asked.threads} threads, {asked.precision}, {asked.rounds} processes each\n")
    print("| engine | sizes | all sizes MiB | largest size MiB | ratio | one file serves all |")
    print("|---|---|---|---|---|---|")
    good = True
    with open_bundle(asked.bundle) as bundle:
        artifacts = [a for a in bundle.manifest.artifacts if a.precision == asked.precision]
    for format_name in dict.fromkeys(artifact.format for artifact in artifacts):
        mine = [artifact for artifact in artifacts if artifact.format == format_name]
        sizes = tuple(sorted({size for artifact in mine for size in artifact.sizes}))
        for engine in available_engines(format_name):
            many = in_fresh_processes(asked, engine, sizes)
            one = in_fresh_processes(asked, engine, sizes[-1:])
            row = [engine, ", ".join(map(str, sizes)), f"{many / MIB:.1f}", f"{one / MIB:.1f}"]
            print("|", " | ".join([*row, f"{many / one:.2f}", "yes" if len(mine) == 1 else "no"]), "|")
            good = good and (len(mine) > 1 or many <= BAR * one)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
