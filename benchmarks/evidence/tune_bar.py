"""Hold boardfit tune against an exhaustive search: is its pick as good, and what does it save?

Both search the same candidates with the same timer, one after the other, in each of some repeats; loading the
engines counts, and so does what was timed again since other processes disturbed it. Then what either
picked is timed in turn, longer than both did, and judges them.

Usage: python benchmarks/evidence/tune_bar.py BUNDLE [--engines A,B] [--precisions A,B] [--threads 1,2]
       [--repeats N] [--judge-rounds N] [--disturb BUSY_S,PERIOD_S]

With --disturb another process takes a core for BUSY_S of every PERIOD_S seconds while they search; the judge
is left alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from boardfit.benchmarks.candidates import Field, Wish, candidates
from boardfit.benchmarks.halving import Runs
from boardfit.benchmarks.trial_bench import TrialBench
from boardfit.benchmarks.tune import Plan, tune
from boardfit.benchmarks.tuning import Key, Tuning, key_here
from boardfit.boards.probes.load import BusyShare
from boardfit.bundle import Bundle, open_bundle
from boardfit.cli.quiet import quiet_engines
from boardfit.runtime.choose import Setup
from boardfit.timing import Samples, machine_name

LOSS = 1.03
SHARE = 1 / 3


def search(bundle: Bundle, field: Field, key: Key, *, exhaustive: bool) -> tuple[float, Tuning]:
    begin = time.perf_counter()
    share = BusyShare(Path("/"), time.process_time).read
    found = tune(bundle, field, key=key, board="", plan=Plan(exhaustive=exhaustive), busy_share=share)
    return time.perf_counter() - begin, found


@contextmanager
def disturbed(times: str) -> Iterator[None]:
    """Let another process take a core now and then; never, where the text is empty."""
    if not times:
        yield
        return
    busy_s, period_s = map(float, times.split(","))
    code = (
        "import time\n"
        "while True:\n"
        f"    until = time.monotonic() + {busy_s}\n"
        "    while time.monotonic() < until: pass\n"
        f"    time.sleep({period_s - busy_s})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.kill()


def judge(bundle: Bundle, size: int, setups: list[Setup], rounds: int) -> dict[Setup, Runs]:
    sizes = bundle.manifest.sizes
    with TrialBench(bundle, sizes, at_once=len(setups), meter=None, clock=time.perf_counter) as bench:
        return bench.measure(size, setups, rounds)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--engines", default="litert,onnxruntime,ncnn")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--judge-rounds", type=int, default=40)
    parser.add_argument("--disturb", default="", metavar="BUSY_S,PERIOD_S")
    args = parser.parse_args(argv)
    wish = Wish(
        engines=tuple(args.engines.split(",")),
        precisions=tuple(args.precisions.split(",")),
        threads=tuple(map(int, args.threads.split(","))),
        affinities=((),),
    )
    shares, losses = [], []
    with open_bundle(args.bundle) as bundle, quiet_engines():
        field = candidates(bundle, wish, cores=max(wish.threads or (1,)))
        key = key_here(bundle.manifest, [str(setup.engine) for setup in field.setups])
        print(f"{machine_name()}; {bundle.manifest.name}, {len(field.setups)} setups, {args.repeats} repeats")
        print("| repeat | size | halving picks | exhaustive picks | p95 ms | p95 ms | ratio | p50 ratio |")
        print("|---|---|---|---|---|---|---|---|")
        for repeat in range(1, args.repeats + 1):
            order = (False, True) if repeat % 2 else (True, False)
            with disturbed(args.disturb):
                found = {each: search(bundle, field, key, exhaustive=each) for each in order}
            shares.append(found[False][0] / found[True][0])
            for size in field.by_size:
                mine, best = (found[each][1].best(size).setup for each in (False, True))
                runs = judge(bundle, size, list(dict.fromkeys((mine, best))), args.judge_rounds)
                mine_s, best_s = (Samples(values_s=runs[setup].values_s) for setup in (mine, best))
                losses.append(mine_s.p95_s / best_s.p95_s)
                print(
                    f"| {repeat} | {size} | {mine.text} | {best.text} | {mine_s.p95_s * 1e3:.2f} "
                    f"| {best_s.p95_s * 1e3:.2f} | {losses[-1]:.3f} | {mine_s.p50_s / best_s.p50_s:.3f} |",
                    flush=True,
                )
            for name, each in (("halving", False), ("exhaustive", True)):
                print(
                    "".join(f"|  |  | {name}, disturbed: {what} |\n" for what in found[each][1].disturbed),
                    end="",
                )
            print(f"|  |  | {found[False][0]:.1f} s | {found[True][0]:.1f} s |  |  | {shares[-1]:.3f} |  |")
    print(f"\nmedian ratio of p95 {median(losses):.3f}, largest {max(losses):.3f} (bar {LOSS})")
    print(f"share of the exhaustive search's time: median {median(shares):.3f} (bar {SHARE:.3f})")
    return 0 if max(losses) <= LOSS and median(shares) <= SHARE else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
