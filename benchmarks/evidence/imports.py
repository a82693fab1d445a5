"""Measure what ``import boardfit.runtime`` costs over ``import numpy, cv2``, in fresh processes.

Usage: python benchmarks/evidence/imports.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from boardfit.timing import machine_name

TIMED = """
import numpy, cv2
from time import perf_counter
begin = perf_counter()
{statement}
print(perf_counter() - begin)
"""
STATEMENTS = {
    "import boardfit.runtime": "import boardfit.runtime",
    "boardfit.load (all that a session needs, without an engine)": "import boardfit; boardfit.load; "
    "import boardfit.bundle, boardfit.runtime.model",
    "the same, and its look for a tuning": "import boardfit; boardfit.load; "
    "import boardfit.bundle, boardfit.runtime.model, boardfit.benchmarks.tuning",
}


def seconds(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement=statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args(argv)
    print(f"{machine_name()}, {asked.rounds} fresh processes each, after import numpy, cv2\n")
    print("| statement | p50 ms | largest ms |")
    print("|---|---|---|")
    first = None
    for name, statement in STATEMENTS.items():
        times = [seconds(statement) for _ in range(asked.rounds)]
        first = first or statistics.median(times)
        print(f"| `{name}` | {statistics.median(times) * 1e3:.2f} | {max(times) * 1e3:.2f} |")
    return 0 if first is not None and first <= 0.010 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
