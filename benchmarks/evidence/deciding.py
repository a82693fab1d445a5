"""What does deciding cost? Judging an answer, the change of size, and the image entropy, 1920x1080.

    python benchmarks/evidence/deciding.py lite0.boardfit [--rounds 200]

In per cent of the largest size's time, one thread, each engine, with the 95 % interval of the median; by the
processor's time, which what else runs on the machine disturbs least. Everything is a difference within one
session, since two sessions differ by several per cent through the place of their weights in memory alone:

* judging: a two-look frame that is certain at once, against the bare look;
* a change of size: a look after one at the other size, against a look after one at the same size, as two-look
  is loaded by default and with one engine (a frame that looks again pays one, and the next frame another);
* entropy: a still whose size the image entropy chooses, against the same session told that it need not; a
  stream pays that for every third frame, where its thresholds use it at all.

Exit status 1 if judging and a change, or a stream's share of the entropy, take more than 2 %.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np

from boardfit.bundle import open_bundle
from boardfit.converters.samples import synthetic_frame
from boardfit.runtime.engines import available_engines
from boardfit.runtime.policy.entropy import EVERY_FRAMES
from boardfit.runtime.session import Session, load
from boardfit.specs import PolicySpec
from boardfit.timing import machine_name, time_paired

BAR = 2.0
SURE = 30.0  # bits, more than any answer has: the first look stands
Spread = tuple[float, float, float]


def spread(values: np.ndarray) -> Spread:
    """Return the median of (R,) values and the 95 % bootstrap interval of it."""
    rows = np.random.default_rng(0).integers(0, len(values), (1000, len(values)))
    low, high = np.percentile(np.median(values[rows], axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def extra_s(policy: Callable[[], object], bare: Callable[[], object], rounds: int) -> np.ndarray:
    """Return (R,) seconds that a call takes longer than another."""
    timed = time_paired({"policy": policy, "bare": bare}, rounds=rounds, clock=process_time)
    return np.subtract(timed["policy"].values_s, timed["bare"].values_s)


def change_s(session: Session, frame: np.ndarray, rounds: int) -> np.ndarray:
    """Return (R,) seconds that a look takes longer after a look at the other size; half of them each way."""

    def timed(size: int) -> float:
        begin = process_time()
        session.look(frame, size)
        return process_time() - begin

    found = []
    for _ in range(rounds):
        for size, other in (session.sizes, session.sizes[::-1]):
            session.look(frame, other)
            found.append(timed(size) - timed(size))
    return np.array(found).reshape(rounds, 2).mean(axis=1)


def with_entropy(session: Session, frame: np.ndarray, *, needed: bool) -> None:
    session._policy.needs_entropy = needed
    session(frame)


def measure(bundle: str, engine: str, sizes: tuple[int, int], rounds: int) -> tuple[float, list[Spread]]:
    """Return the largest look in seconds; in per cent of it judging, a change, with one engine, entropy."""
    frame = synthetic_frame(1, height=1080, width=1920)
    two_look = PolicySpec("two-look", sizes, (9.0,), second_look_bits=SURE)
    # Without an entropy it takes the smaller size too: then the two calls differ by the entropy alone.
    by_entropy = PolicySpec("entropy", sizes, (8.0,))
    options = {"engine": engine, "threads": 1}
    with load(bundle, policy=two_look, **options) as session:
        look = partial(session.look, frame, sizes[1])
        whole_s = time_paired({"look": look}, rounds=rounds, clock=process_time)["look"].p50_s
        judging = extra_s(partial(session, frame), partial(session.look, frame, sizes[0]), rounds)
        change = change_s(session, frame, rounds)
    with load(bundle, policy=two_look, max_resident_sizes=1, **options) as session:
        resized = change_s(session, frame, rounds)
    with load(bundle, policy=by_entropy, **options) as session:
        timed = partial(with_entropy, session, frame)
        entropy = extra_s(partial(timed, needed=True), partial(timed, needed=False), rounds)
    return whole_s, [spread(100.0 * values / whole_s) for values in (judging, change, resized, entropy)]


def resident_mib() -> float:
    """Return this process's memory in MiB, with pages that it maps twice counted once."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**10


def second_size_mib(bundle: str, engine: str, sizes: tuple[int, int]) -> float:
    """Return what two-look's further size takes by default, in MiB."""
    frame = synthetic_frame(1, height=1080, width=1920)
    with load(bundle, engine=engine, threads=1, policy=PolicySpec("two-look", sizes, (9.0,))) as session:
        session.look(frame, sizes[1])
        before = resident_mib()
        session.look(frame, sizes[0])
        return resident_mib() - before


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args(argv)
    with open_bundle(args.bundle) as bundle:
        formats = {artifact.format for artifact in bundle.manifest.artifacts}
        small, large = bundle.manifest.sizes[-2:]
    print(f"{small} and {large} pixels, one thread, {args.rounds} rounds, {machine_name()}\n")
    print(
        "| engine | largest look ms | judging % | a change of size % | with one engine % | entropy % "
        "| MiB of the second size |"
    )
    print("|---|---|---|---|---|---|---|")
    good = True
    for engine in sorted({name for one in formats for name in available_engines(one)}):
        more = second_size_mib(args.bundle, engine, (small, large))
        whole_s, found = measure(args.bundle, engine, (small, large), args.rounds)
        cells = " | ".join("{:.1f} ({:.1f} to {:.1f})".format(*one) for one in found)
        print(f"| {engine} | {1e3 * whole_s:.2f} | {cells} | {more:.0f} |", flush=True)
        good = good and max(found[0][0] + found[1][0], found[3][0] / EVERY_FRAMES) <= BAR
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
