"""What engines' threads do between two runs, what a lead-in mends, what binding an engine costs.

Usage: python benchmarks/evidence/pools.py BUNDLE [--size S] [--rounds N]

Three tables: processor time that an idle process burns after one run (its pool spins); the time of a run by
engine, alone, in turn with the others, and in turn with a lead-in; and a call that crosses to a thread of
its own, which is what a bound engine adds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import numpy as np

from boardfit.bundle import Bundle, open_bundle
from boardfit.cli.quiet import quiet_engines
from boardfit.runtime.selftest import golden_or_grey
from boardfit.runtime.session import Session, load
from boardfit.timing import LEAD_IN_S, machine_name, time_paired

ENGINES = ("litert", "onnxruntime", "ncnn")
BURST = 6


def spin_s(session: Session, frame: np.ndarray, size: int) -> float:
    """Return the processor time of this process while it sleeps after a run."""
    found = []
    for _ in range(7):
        session.look(frame, size)
        begin = time.process_time()
        time.sleep(0.2)
        found.append(time.process_time() - begin)
    return median(found)


def in_turn(bundle: Bundle, frame: np.ndarray, size: int, rounds: int) -> list[str]:
    threads = min(2, len(os.sched_getaffinity(0)))
    sessions = {
        name: load(bundle, engine=name, threads=threads, precision="fp32", size=size) for name in ENGINES
    }
    calls = {name: partial(session.look, frame, size) for name, session in sessions.items()}
    rows = []
    spins = {name: spin_s(session, frame, size) for name, session in sessions.items()}
    alone = {name: time_paired({name: call}, rounds=rounds)[name].p50_s for name, call in calls.items()}
    taken = time_paired(calls, rounds=rounds)
    led = time_paired(calls, rounds=max(1, rounds // BURST), lead_in_s=LEAD_IN_S, burst=BURST)
    for name in ENGINES:
        ms = (spins[name], alone[name], taken[name].p50_s, led[name].p50_s)
        rows.append(f"| {name}, {threads} threads | " + " | ".join(f"{each * 1e3:.2f}" for each in ms) + " |")
    for session in sessions.values():
        session.close()
    return rows


def crossing_s(rounds: int) -> float:
    """Return what a call takes more in a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        calls = {"here": int, "there": lambda: thread.submit(int).result()}
        timed = time_paired(calls, rounds=100 * rounds)
    return timed["there"].p50_s - timed["here"].p50_s


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args(argv)
    with open_bundle(args.bundle) as bundle, quiet_engines():
        frame = golden_or_grey(bundle)
        size = args.size or bundle.manifest.sizes[-1]
        print(f"{machine_name()}; {bundle.manifest.name} at {size}, ms\n")
        print("| engine | spins after a run | run alone | in turn | in turn, led in |")
        print("|---|---|---|---|---|")
        print("\n".join(in_turn(bundle, frame, size, args.rounds)))
    print(f"\na call to a thread of its own: {crossing_s(args.rounds) * 1e6:.0f} microseconds more")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
