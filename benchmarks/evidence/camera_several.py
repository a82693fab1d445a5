"""Several cameras on one engine: frames a second together, one by one against batches.

Usage: python benchmarks/evidence/camera_several.py BUNDLE [--cameras 4] [--seconds 10] [--size 224]
"""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import ExitStack

from boardfit.bundle import open_bundle
from boardfit.runtime import camera
from boardfit.runtime.engines import available_engines
from boardfit.runtime.session import load
from boardfit.timing import machine_name


def watched(model, cameras: int, seconds: float, batch: bool | None) -> tuple[float, float, bool | None]:
    """Return frames a second together, the age at the 99th percentile, and whether batches were taken."""
    with ExitStack() as stack:
        words = [f"synthetic:{320 + 16 * number}x240@100" for number in range(cameras)]
        sources = [stack.enter_context(camera.open(word)) for word in words]
        running = camera.loop(sources, model, batch=batch)
        threading.Timer(seconds, running.stop).start()
        for _ in running:
            pass
    return running.stats.results / seconds, running.stats.percentiles_s()["age"][2], running._batch


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=int, default=224)
    asked = parser.parse_args(argv)
    print(f"{machine_name()}, 1 engine thread, {asked.cameras} cameras\n")
    print("| engine | one by one: frames/s, age p99 ms | batches | left to the loop: frames/s, batches |")
    print("|---|---|---|---|")
    with open_bundle(asked.bundle) as bundle:
        for artifact in bundle.manifest.artifacts:
            for engine in available_engines(artifact.format) if artifact.precision == "fp32" else ():
                with load(bundle, engine=engine, size=asked.size, threads=1) as model:
                    cells = []
                    for batch in (False, True, None):
                        rate, age_s, used = watched(model, asked.cameras, asked.seconds, batch)
                        cells.append(f"{rate:.1f}, {used if batch is None else round(age_s * 1e3)}")
                print("|", " | ".join([engine, *cells]), "|", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
