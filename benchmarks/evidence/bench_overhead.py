"""What does measuring cost? The bench's loop beside a bare one, at inferences of 3 ms, on the real clock.

Bare calls of the same session are put between the frames of a real ``measure`` with the real probes of this
machine, where nothing is timed: before every second frame two of them, of which the second follows a call, as
it would in a bare loop. The other frames follow what measuring does between two frames, as always. So the two
kinds stand side by side, milliseconds apart, and their ratio is what measuring adds to what it tells. Beside
it: what it does between two frames. The work is a loop of numpy of 3 ms and, with a bundle, a real net.

Usage: python benchmarks/evidence/bench_overhead.py [BUNDLE] [--seconds 60] [--inference-ms 3] [--size 112]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from boardfit.benchmarks.measure import measure
from boardfit.benchmarks.records import Case
from boardfit.benchmarks.scenario import Plan
from boardfit.boards.detect import detect
from boardfit.boards.probes import Probes
from boardfit.runtime.results import Timings
from boardfit.timing import machine_name, percentile, time_each, time_paired

BAR = 0.01
CASE = Case("single-stream", "work", "", "fp32", 1, (), (224,), "fixed", (640, 480))


@dataclass
class Answer:
    """What measuring looks at of a result."""

    size: int
    timings: Timings


def work_of(seconds: float) -> Callable[[np.ndarray], Answer]:
    """Return a call that keeps one core busy for so long."""
    values = np.random.RandomState(0).uniform(size=20_000)
    times = Timings(0.0, 0.0, seconds, 0.0, seconds)

    def call(turns: int) -> None:
        for _ in range(turns):
            np.sqrt(values)

    taken = time_paired({"call": lambda: call(100)}, rounds=50)["call"].p50_s
    turns = max(1, round(100 * seconds / taken))

    def answer(_frame: np.ndarray) -> Answer:
        call(turns)
        return Answer(224, times)

    return answer


class Between(Sequence):
    """Frames; whoever takes every second one waits for two bare calls."""

    def __init__(self, session: Callable[[np.ndarray], object], frame: np.ndarray) -> None:
        self.taken_s: list[float] = []
        self.bare_s: list[float] = []
        self._session = session
        self._frame = frame
        self._turn = 0

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        self._turn += 1
        if self._turn % 2:
            taken = [timed.duration_s for timed in time_each(self._session, [self._frame] * 2)]
            self.bare_s.append(taken[1])
            self.taken_s.append(sum(taken))
        return self._frame


def added(session: Callable, frame: np.ndarray, probes: Probes, seconds: float) -> tuple[float, ...]:
    """Return medians: of a bare call, a measured one, what that has more, and the time between frames."""
    frames = Between(session, frame)
    plan = Plan(runs=1, duration_s=seconds, min_frames=1, warmup_s=0.0)
    run = measure(CASE, lambda: nullcontext(session), frames, probe=lambda: probes.read(0.0), plan=plan).runs[
        0
    ]
    # The first frame of all, which does not count, took the first turn; and one is asked of the last round.
    measured = run.latencies_s[0::2]
    bare = frames.bare_s[1:][: len(measured)]
    measured = measured[: len(bare)]
    ratios = [mine / theirs for mine, theirs in zip(measured, bare, strict=True)]
    between = (run.duration_s - sum(run.latencies_s) - sum(frames.taken_s[1:])) / run.frames
    return percentile(bare, 50.0), percentile(measured, 50.0), percentile(ratios, 50.0) - 1.0, between


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind of work")
    parser.add_argument("--inference-ms", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=112, help="of the net")
    asked = parser.parse_args(argv)
    probes = Probes(detect().profile)
    looks = time_paired({"look": lambda: probes.read(0.0)}, rounds=100)["look"]
    print(f"{machine_name()}; a look at the board, once a second: p50 {1e3 * looks.p50_s:.2f} ms\n")
    print("| work | bare p50 ms | measured p50 ms | added to a frame | between two frames us |")
    print("|---|---|---|---|---|")
    frame = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype(np.uint8)
    kinds = {f"numpy, {asked.inference_ms} ms": work_of(1e-3 * asked.inference_ms)}
    if asked.bundle:
        from boardfit.runtime.session import load

        kinds[f"net at {asked.size}, 1 thread"] = load(asked.bundle, size=asked.size, threads=1)
    worst = 0.0
    for name, session in kinds.items():
        session(frame)
        bare, measured, more, between = added(session, frame, probes, asked.seconds)
        worst = max(worst, more)
        cells = [f"{1e3 * bare:.3f}", f"{1e3 * measured:.3f}", f"{100 * more:+.2f} %", f"{1e6 * between:.1f}"]
        print("|", " | ".join([name, *cells]), "|", flush=True)
    print(f"\nadded to p50 at most {100 * worst:.2f} % (bar {100 * BAR:.0f} %)")
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
