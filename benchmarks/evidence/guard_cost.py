"""Time the child process that reads a stranger's model first, against importing the model.

Usage: python benchmarks/evidence/guard_cost.py MODEL [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from boardfit.converters.frameworks import load_frameworks
from boardfit.converters.ingest import guard, ingest
from boardfit.converters.model import SourceRequest
from boardfit.converters.recipe import IMAGE_SPECS
from boardfit.timing import machine_name


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(argv)
    begin = time.perf_counter()
    load_frameworks()
    frameworks_s = time.perf_counter() - begin
    request = SourceRequest(asked.model, (112, 160, 224), IMAGE_SPECS["efficientnet-lite"])
    kind = "onnx" if asked.model.endswith(".onnx") else "keras"
    child_s, both_s = [], []
    for _ in range(asked.rounds):
        guard._checked.clear()
        begin = time.perf_counter()
        guard.require_affordable(request, kind)
        child_s.append(time.perf_counter() - begin)
        ingest(request)  # the same file and sizes: no second child
        both_s.append(time.perf_counter() - begin)
    child, both = statistics.median(child_s), statistics.median(both_s)
    print(f"{machine_name()}, {asked.model}, sizes 112, 160, 224, median of {asked.rounds}")
    print(f"the child {child:.1f} s, the import {both - child:.1f} s, frameworks {frameworks_s:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
