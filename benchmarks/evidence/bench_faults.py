"""Does the bench find what is wrong, and nothing where nothing is? On a machine that is a script.

Healthy: frames of 10 ms with 2 % of log-normal noise, every hundredth delayed by an exponential 3 ms; repeats
that differ by 0.4 %; 45 to 55 degrees C, a clock of 2.4 GHz within 1 %, 1 % of the cores taken by others.
Then one fault is put into it, with what it does to the frames: it must be found, and no other.

Usage: python benchmarks/evidence/bench_faults.py [--cases 100] [--margins]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from boardfit.benchmarks.measure import measure
from boardfit.benchmarks.records import Case, Measurement
from boardfit.benchmarks.scenario import Plan
from boardfit.boards.records import Snapshot
from boardfit.runtime.results import Timings

FRAME_S = 0.010
RUN_S = 10.0
RUNS = 5
CASE = Case("single-stream", "scripted", "", "fp32", 1, (), (224,), "fixed", (8, 8))


@dataclass(frozen=True)
class Frames:
    """The frames of one run: how far each is in it (0 to 1), and the random numbers to use."""

    far: np.ndarray
    random: np.random.RandomState
    run: int

    def chosen(self, share: float) -> np.ndarray:
        """Return which of them are among a random share."""
        return self.random.uniform(size=self.far.size) < share


Slow = Callable[[Frames], np.ndarray]
Board = Callable[[Snapshot, float], Snapshot]


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        reason: First word of the fault that must be found; empty for none.
        slow: Returns the factors of a run's frames.
        board: Returns what the probes read, given what they would, and how far the run is.
    """

    reason: str
    slow: Slow = lambda frames: np.ones_like(frames.far)
    board: Board = lambda snapshot, _far: snapshot


def late(frames: Frames) -> np.ndarray:
    return np.where(frames.far > 0.6, 1.6, 1.0)


def flag(snapshot: Snapshot, far: float) -> Snapshot:
    return replace(snapshot, throttled=far > 0.6)


def bits(snapshot: Snapshot, far: float) -> Snapshot:
    """A Pi 4's word: capped for a moment between two looks, and it remembers."""
    return replace(snapshot, throttle_bits=0x20000 if far > 0.6 else 0)


def slower_clock(snapshot: Snapshot, far: float) -> Snapshot:
    return replace(snapshot, clocks_hz={"cpu0": 1.5e9}) if far > 0.6 else snapshot


def lower_limit(snapshot: Snapshot, far: float) -> Snapshot:
    return replace(snapshot, max_clocks_hz={"cpu0": 1.5e9}) if far > 0.6 else snapshot


def ramp(total: float) -> Slow:
    return lambda frames: 1.0 + total * frames.far


def at_the_end(frames: Frames) -> np.ndarray:
    return 1.0 + 0.1 * (frames.far > 0.67)


def one_run_slower(share: float) -> Slow:
    return lambda frames: np.full_like(frames.far, 1.0 + share * (frames.run == 2))


def one_run_with_a_tail(frames: Frames) -> np.ndarray:
    return 1.0 + 0.3 * (frames.chosen(0.15) & (frames.run == 2))


def preempted(frames: Frames) -> np.ndarray:
    return 1.0 + 0.8 * frames.chosen(frames.random.uniform(0.1, 0.5))


def taken(snapshot: Snapshot, _far: float) -> Snapshot:
    return snapshot if snapshot.busy_share is None else replace(snapshot, busy_share=0.25)


FAULTS = {
    "healthy": Fault(""),
    "throttled: the flag": Fault("throttled", late, flag),
    "throttled: the bits": Fault("throttled", late, bits),
    "throttled: the clock": Fault("throttled", late, slower_clock),
    "throttled: the clock's limit": Fault("throttled", late, lower_limit),
    "drift: 12 % along the run": Fault("drift", ramp(0.12)),
    "drift: 10 % in the last third": Fault("drift", at_the_end),
    "noise: one run 4 % slower": Fault("repeats", one_run_slower(0.04)),
    "noise: one run with a tail": Fault("repeats", one_run_with_a_tail),
    "busy machine": Fault("busy", preempted, taken),
}
MARGINS = {
    **{f"drift of {percent} % along the run": ramp(percent / 100.0) for percent in (2, 4, 6, 8, 10)},
    **{f"one run {percent} % slower": one_run_slower(percent / 100.0) for percent in (1, 2, 3, 4)},
}


@dataclass
class Answer:
    """What the measuring looks at of a result."""

    size: int
    timings: Timings


class Machine:
    """Its clock moves by what frames take."""

    def __init__(self, fault: Fault, seed: int) -> None:
        self._fault = fault
        self._random = np.random.RandomState(seed)
        self._now_s = 100.0 * seed
        self._run = -1
        self._begin_s = self._now_s

    def clock(self) -> float:
        """Return the time."""
        return self._now_s

    def probe(self) -> Snapshot:
        """Look at the board."""
        self._now_s += 0.002
        far = self._far()
        share = abs(self._random.normal(0.01, 0.005))
        clock_hz = 2.4e9 * (1.0 + 0.01 * self._random.uniform(-1.0, 1.0))
        snapshot = Snapshot(
            time_s=self._now_s,
            temperatures_c={"cpu": 55.0 - 10.0 * math.exp(-3.0 * far)},
            clocks_hz={"cpu0": clock_hz, "cpu1": 0.5 * clock_hz},
            max_clocks_hz={"cpu0": 2.4e9, "cpu1": 2.4e9},
            throttled=False,
            throttle_bits=0,
            busy_share=None if self._run < 0 else share,
        )
        return self._fault.board(snapshot, far)

    @contextmanager
    def open(self) -> Iterator[Callable[[np.ndarray], Answer]]:
        """Begin a run."""
        self._run += 1
        self._now_s += 0.2
        self._begin_s = self._now_s
        random, count = self._random, int(1.5 * RUN_S / FRAME_S)
        far = np.minimum(1.0, np.arange(count) * FRAME_S / (RUN_S + 1.0))
        took = FRAME_S * np.exp(random.normal(0.0, 0.02, count)) * random.normal(1.0, 0.004)
        took += (random.uniform(size=count) < 0.01) * random.exponential(0.3 * FRAME_S, count)
        frames = iter((took * self._fault.slow(Frames(far, random, self._run))).tolist())

        def answer(_frame: np.ndarray) -> Answer:
            took_s = next(frames)
            self._now_s += took_s
            return Answer(224, Timings(0.0, 0.1 * took_s, 0.85 * took_s, 0.05 * took_s, took_s))

        yield answer

    def _far(self) -> float:
        return min(1.0, (self._now_s - self._begin_s) / (RUN_S + 1.0))


def measured(fault: Fault, seed: int) -> Measurement:
    machine = Machine(fault, seed)
    return measure(
        CASE,
        machine.open,
        [np.zeros((8, 8, 3), np.uint8)],
        probe=machine.probe,
        plan=Plan(runs=RUNS, duration_s=RUN_S),
        clock=machine.clock,
        sleep=lambda _seconds: None,
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100, help="measurements of each kind")
    parser.add_argument("--margins", action="store_true", help="also how often weaker faults are found")
    asked = parser.parse_args(argv)
    right = True
    print(f"{RUNS} runs of {RUN_S:.0f} s each\n")
    print("| put in | measurements | valid | reasons told |\n|---|---|---|---|")
    for number, (name, fault) in enumerate(FAULTS.items()):
        found = [measured(fault, seed=1000 * number + index) for index in range(asked.cases)]
        told = [frozenset(text.split(":")[0] for text in item.all_faults) for item in found]
        right &= all(reasons == ({fault.reason} if fault.reason else set()) for reasons in told)
        kinds = Counter(" and ".join(sorted(reasons)) or "none" for reasons in told)
        reasons = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
        print(f"| {name} | {len(found)} | {sum(item.valid for item in found)} | {reasons} |", flush=True)
    if asked.margins:
        print("\n| put in | found in |\n|---|---|")
        for number, (name, slow) in enumerate(MARGINS.items()):
            found = [
                measured(Fault("", slow), seed=10**6 + 1000 * number + index) for index in range(asked.cases)
            ]
            share = 100.0 * sum(not item.valid for item in found) / len(found)
            print(f"| {name} | {share:.0f} % |", flush=True)
    print("\neach told by its own reason alone" if right else "\nNOT each told by its own reason alone")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
