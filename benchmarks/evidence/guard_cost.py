"""Measure the child process that reads a stranger's model first, against importing the model.

In seconds of the processor, which another job on the machine does not change much.

Usage: python benchmarks/evidence/guard_cost.py MODEL [--rounds N]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time

from boardfit.converters.frameworks import load_frameworks
from boardfit.converters.image_specs import IMAGE_SPECS
from boardfit.converters.ingest import guard, ingest
from boardfit.converters.model import SourceRequest
from boardfit.timing import machine_name


def children_s() -> float:
    """Processor seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(argv)
    load_frameworks()
    frameworks_s = time.process_time()
    request = SourceRequest(asked.model, (112, 160, 224), IMAGE_SPECS["efficientnet-lite"])
    kind = "onnx" if asked.model.endswith(".onnx") else "keras"
    child, imported = [], []
    for _ in range(asked.rounds):
        guard._checked.clear()
        before = children_s()
        guard.require_affordable(request, kind)
        child.append(children_s() - before)
        begin = time.process_time()
        ingest(request)  # the same file and sizes: no second child
        imported.append(time.process_time() - begin)
    print(f"{machine_name()}, {kind}, sizes 112, 160, 224, processor seconds, median of {asked.rounds}")
    print(f"the child {statistics.median(child):.1f}, the import {statistics.median(imported):.1f}, ", end="")
    print(f"the frameworks before it {frameworks_s:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
