"""How often ``boardfit compare`` is right: 3 % found, equal runs not told apart.

Usage: python benchmarks/evidence/compare_power.py scripted
       python benchmarks/evidence/compare_power.py real [BUNDLE] [--runs 10] [--seconds 2] [--sides apart]

``scripted``: 1,000 pairs of reports whose runs are drawn, for each of several spreads between runs; one run
in fifty meets a neighbour and is 3 % slower.

``real``: sessions of the bundle's smallest size, or of some 8 ms of fixed work, measured by ``measure`` in
three reports: as it is, as it is again, and with 3 % of every frame's own time spun away after it. The runs
of the three take turns, so that all see the same machine; with ``--sides apart`` each report is measured in
one go, as calls of ``boardfit bench`` are. ``--clock processor`` counts the process's own time, for a machine
that is not idle.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np

from boardfit.benchmarks.compare import compare
from boardfit.benchmarks.measure import measure
from boardfit.benchmarks.records import Case, Environment, Measurement, Report, Run
from boardfit.benchmarks.scenario import Plan
from boardfit.benchmarks.validity import measurement_faults
from boardfit.boards.records import MemoryUse, Snapshot
from boardfit.cli.compare import people_text
from boardfit.runtime.session import load
from boardfit.timing import machine_name

Clock = Callable[[], float]
SLOWDOWN = 0.03
CASE = Case("single-stream", "any", "", "fp32", 1, (), (112,), "fixed", (640, 480))


def report_of(runs: list[Run], faults: tuple[str, ...] = ()) -> Report:
    where = Environment(
        *("here", machine_name(), False, machine_name(), 1, None, "", "", "", sys.version.split()[0]),
        *({}, None, None, tuple(sys.argv), ""),
    )
    return Report(where, "bundle", "0" * 64, (Measurement(CASE, tuple(runs), faults=faults),))


def scripted_runs(rng: np.random.Generator, count: int, spread: float, factor: float) -> list[Run]:
    runs = []
    for _ in range(count):
        luck = np.exp(rng.normal(0.0, spread)) * (1.03 if rng.random() < 0.02 else 1.0)
        latencies = 0.008 * factor * luck * (1.0 + 0.01 * rng.gamma(2.0, 2.0, 300))
        shot = Snapshot(0.0, memory=MemoryUse(peak_bytes=int(1e8 * np.exp(rng.normal(0.0, 0.003)))))
        load, first = 0.2 * np.exp(rng.normal(0.0, 0.05)), 0.03 * np.exp(rng.normal(0.0, 0.05))
        total = float(latencies.sum())
        runs.append(Run(load, first, (), tuple(latencies.tolist()), {}, (112,) * 300, total, 300, shot, shot))
    return runs


def scripted(pairs: int) -> int:
    """Print, per spread and number of runs, how often equal reports were told apart and 3 % found."""
    print(f"{pairs} pairs each; a slow-down of {100 * SLOWDOWN:g} %\n")
    print("| spread between runs | runs a side | equal: any line told apart | p50 called slower |")
    print("|---|---|---|---|")
    worst = 0.0
    for spread in (0.002, 0.005, 0.01, 0.02):
        for count in (5, 10, 20):
            rng = np.random.default_rng(round(1e6 * spread) + count)
            apart = found = 0
            for _ in range(pairs):
                base, again, slow = (
                    report_of(scripted_runs(rng, count, spread, factor))
                    for factor in (1.0, 1.0, 1.0 + SLOWDOWN)
                )
                apart += any(line.outcome != "same" for line in compare(base, again).lines)
                found += compare(base, slow).lines[0].verdict == "slower"
            worst = max(worst, apart / pairs)
            row = (
                f"{100 * spread:g} %",
                count,
                f"{100 * apart / pairs:.1f} %",
                f"{100 * found / pairs:.1f} %",
            )
            print("|", " | ".join(map(str, row)), "|", flush=True)
    print(f"\nequal reports told apart, worst: {100 * worst:.1f} % (bar: 5 %)")
    return 0 if worst <= 0.05 else 1


def workload(clock: Clock) -> Callable[[np.ndarray], SimpleNamespace]:
    """Return some 8 ms of fixed work in one thread, without a model."""
    cv2.setNumThreads(1)
    kernel = np.random.default_rng(0).random((640, 640)).astype(np.float32)

    def call(_: np.ndarray) -> SimpleNamespace:
        begin = clock()
        cv2.gemm(kernel, kernel, 1.0, None, 0.0)
        taken = clock() - begin
        timings = SimpleNamespace(entropy_s=0.0, preprocess_s=0.0, inference_s=taken, postprocess_s=0.0)
        return SimpleNamespace(size=112, timings=timings)

    return call


def opener(bundle: str | None, slowdown: float, clock: Clock) -> Callable:
    """Return what opens a session that takes its time, and ``slowdown`` of it more."""
    smallest = 0
    if bundle is not None:
        with load(bundle, threads=1) as session:
            smallest = min(session.sizes)

    @contextmanager
    def open_session() -> Iterator[Callable]:
        if bundle is None:
            yield slowed(workload(clock), slowdown, clock)
            return
        with load(bundle, threads=1, size=smallest) as session:
            yield slowed(session, slowdown, clock)

    return open_session


def slowed(call: Callable, slowdown: float, clock: Clock) -> Callable:
    def slow(frame: np.ndarray) -> object:
        begin = clock()
        answer = call(frame)
        end = clock()
        until = end + slowdown * (end - begin)
        while clock() < until:
            pass
        return answer

    return slow


def real(bundle: str | None, *, runs: int, seconds: float, apart: bool, clock: Clock) -> int:
    """Measure the three reports and print both comparisons."""
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    plan = Plan(runs=1, duration_s=seconds, warmup_s=0.5)
    slowdowns = {"base": 0.0, "again": 0.0, "slow": SLOWDOWN}
    openers = {name: opener(bundle, slowdown, clock) for name, slowdown in slowdowns.items()}
    taken: dict[str, list[Run]] = {name: [] for name in openers}
    names = list(openers)
    order = [name for name in names for _ in range(runs)]
    if not apart:
        order = [name for i in range(runs) for name in (names[i % 3 :] + names[: i % 3])]
    for name in order:
        probe = lambda: Snapshot(time.monotonic())  # noqa: E731
        done = measure(CASE, openers[name], [frame], probe=probe, plan=plan, clock=clock)
        taken[name] += done.runs
    sides = "one side after the other" if apart else "in turn"
    print(f"{machine_name()}; {runs} runs of {seconds:g} s a side, {sides}; {clock.__name__}")
    reports = {name: report_of([replace(run, faults=()) for run in found]) for name, found in taken.items()}
    for name, found in taken.items():
        told = [fault for run in found for fault in run.faults] + list(measurement_faults(found))
        print(f"{name}: {'; '.join(dict.fromkeys(told)) or 'valid'}")
    equal, slower = compare(reports["base"], reports["again"]), compare(reports["base"], reports["slow"])
    for title, each in (("as it is, twice", equal), (f"{100 * SLOWDOWN:g} % spun away", slower)):
        print(f"\n{title}\n{people_text(each)}")
    found = slower.lines[0].verdict == "slower"
    same = all(line.outcome == "same" for line in equal.lines if line.decides)
    print(f"\n3 % found: {found}; equal runs told equal: {same}")
    return 0 if found and same else 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("scripted", "real"))
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--sides", choices=("in-turn", "apart"), default="in-turn")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    asked = parser.parse_args(argv)
    if asked.what == "scripted":
        return scripted(asked.pairs)
    clock = time.process_time if asked.clock == "processor" else time.perf_counter
    apart = asked.sides == "apart"
    return real(asked.bundle, runs=asked.runs, seconds=asked.seconds, apart=apart, clock=clock)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
