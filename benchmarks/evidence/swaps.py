"""Measure hot swaps: what a hundred of them leave in memory, and how long a bad bundle answers.

Growth: the resident memory after the swaps less that after the first ten; each swapped bundle answers ten
frames, of which five are its trial. Isolated, the engine's process counts too.

Bad: bundles that are swapped in and turn bad; from the first call that a bad bundle spoils to the first call
after which the old one answers; every call must be answered.

Usage: python benchmarks/evidence/swaps.py growth BUNDLE [--engine E] [--isolate] [--swaps 100]
       python benchmarks/evidence/swaps.py bad WORK
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from boardfit.errors import BoardfitError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.model import Model, load
from boardfit.runtime.swap import WARM_LOOKS, Trial
from boardfit.timing import machine_name

GROWTH_BAR_MB, BACK_BAR_S = 10.0, 2.0
FIRST = 10
FRAME = np.random.RandomState(0).randint(0, 256, (480, 640, 3)).astype(np.uint8)


def rss_mb(model: Model) -> float:
    """Return the resident memory in MB: this process', and the engine's where it has one."""
    own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return (own + (model.isolation.rss_bytes if model.isolation else 0)) / 1e6


def growth(asked: argparse.Namespace) -> int:
    """Print the growth over all swaps; 0 where it is within the bar."""
    seen = []
    with load(asked.bundle, engine=asked.engine, threads=1, isolate=asked.isolate) as model:
        begin = perf_counter()
        for _ in range(FIRST + asked.swaps):
            model.swap(asked.bundle, trial=Trial(frames=5, max_slowdown=None))
            for _ in range(10):
                model(FRAME)
            assert model.last_swap.outcome == "kept"
            seen.append(rss_mb(model))
        seconds = (perf_counter() - begin) / len(seen)
        files = len(list(Path("/proc/self/fd").iterdir()))
        engine = model.engine
    first, where = seen[FIRST - 1], "isolated" if asked.isolate else "here"
    grown = seen[-1] - first
    print(f"{machine_name()}; {Path(asked.bundle).name} on {engine}, {where}")
    print(f"{asked.swaps} swaps: {grown:+.1f} MB (after {FIRST}: {first:.0f}, highest {max(seen):.0f})")
    print(f"{seconds:.2f} s a swap with its ten frames; {files} open files")
    print(f"bar {GROWTH_BAR_MB} MB: {'met' if grown <= GROWTH_BAR_MB else 'MISSED'}")
    return 0 if grown <= GROWTH_BAR_MB else 1


def bad_row(model: Model, path: Path, good_frames: int) -> tuple[str, float, int]:
    """Swap a bad bundle in; return what became of it, the seconds until the old one is back, frames lost."""
    lost = 0
    back_s = 0.0
    try:
        begin = perf_counter()
        model.swap(path)
    except BoardfitError:
        return model.last_swap.outcome, 0.0, sum(not answered(model) for _ in range(20))
    for index in range(good_frames + 40):
        if index == good_frames:
            begin = perf_counter()
        lost += not answered(model)
        if model.last_swap.outcome == "rolled back":
            back_s = perf_counter() - begin
            break
    return model.last_swap.outcome, back_s, lost + sum(not answered(model) for _ in range(20))


def answered(model: Model) -> bool:
    """Return whether a frame gets an answer of numbers, as the labels have it."""
    try:
        result = model(FRAME)
    except BoardfitError:
        return False
    return bool(np.isfinite(result.scores).all()) and len(result.labels) == result.scores.size


def bad(asked: argparse.Namespace) -> int:
    """Print a row for each bad bundle; 0 where every bar is met."""
    work = Path(asked.bundle)
    work.mkdir(parents=True, exist_ok=True)
    sizes, delay_s = (32, 48, 64), 0.005
    write_fake_bundle(work / "old", sizes=sizes, delay_s=delay_s)
    tested = WARM_LOOKS * (len(sizes) + 1)
    rows = {
        "NaN from the first answer": ({"fault": "nan"}, 0),
        "NaN at frame 100": ({"fault": "nan", "after": tested + 100}, 100),
        "9 labels for 10 scores": ({"labels": 9}, 0),
        "10 x slower": ({"delay_s": 10 * delay_s}, 0),
        "10 x slower from frame 100 on": ({"fault": "slow", "after": tested + 100}, 100),
        "error at frame 100": ({"fault": "error", "after": tested + 100}, 100),
        "crash at frame 100": ({"fault": "crash", "after": tested + 100}, 100),
        "endless at frame 100": ({"fault": "hang", "after": tested + 100}, 100),
    }
    print(f"{machine_name()}; fake engine, {delay_s * 1e3:.0f} ms a frame\n")
    print("| the new bundle | engine | outcome | back on the old one s | frames lost |")
    print("|---|---|---|---|---|")
    good = True
    for isolate in (False, True):
        for name, (options, frames) in rows.items():
            if not isolate and options.get("fault") in ("crash", "hang"):
                continue  # nothing in this process can survive these
            write_fake_bundle(work / "bad", sizes=sizes, **{"delay_s": delay_s, **options})
            with load(work / "old", policy="fixed", threads=1, isolate=isolate) as model:
                outcome, back_s, lost = bad_row(model, work / "bad", frames)
            row = [name, "isolated" if isolate else "here", outcome, f"{back_s:.2f}", str(lost)]
            print("|", " | ".join(row), "|", flush=True)
            good = good and outcome in ("refused", "rolled back") and back_s <= BACK_BAR_S and lost == 0
    print(f"\nbars: {BACK_BAR_S} s, 0 frames: {'met' if good else 'MISSED'}")
    return 0 if good else 1


def main(argv: list[str]) -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("what", choices=("growth", "bad"))
    parser.add_argument("bundle", metavar="BUNDLE|WORK")
    parser.add_argument("--engine")
    parser.add_argument("--isolate", action="store_true")
    parser.add_argument("--swaps", type=int, default=100)
    asked = parser.parse_args(argv)
    return growth(asked) if asked.what == "growth" else bad(asked)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
