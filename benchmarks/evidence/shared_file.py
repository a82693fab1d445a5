"""Does one file for all sizes cost anything against a file that is bound to its size?

    python benchmarks/evidence/shared_file.py model.keras

For each format and size: the largest difference of outputs, and the paired ratio of times, one thread.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

from boardfit.converters.ingest import ingest
from boardfit.converters.model import SourceRequest
from boardfit.converters.samples import synthetic_frame
from boardfit.converters.targets import export
from boardfit.converters.verify import open_engine
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import FORMATS, ImageSpec
from boardfit.timing import machine_name, time_paired


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args(argv)
    sizes = (112, 160, 224)
    model = ingest(SourceRequest(source=args.model, sizes=sizes, image=ImageSpec()))
    print(f"one file against one per size, fp32, one thread, {args.rounds} rounds, {machine_name()}\n")
    print("| format | size | max abs difference / range | time ratio shared / bound |")
    print("|---|---|---|---|")
    unequal, slowest = 0.0, 0.0
    for format_name in FORMATS:
        shared = export(model, format_name=format_name, sizes=sizes, precision="fp32")
        for size in sizes:
            bound = export(model, format_name=format_name, sizes=(size,), precision="fp32")
            spec = shared.artifact.inputs[0]
            tensor, _ = Preprocessor(ImageSpec(), spec.layout).fit(synthetic_frame(1), size)
            engines = [open_engine(item, threads=1) for item in (shared, bound)]
            names = [item.artifact.inputs[0].name for item in (shared, bound)]
            calls = {
                label: partial(engine.run, {name: tensor})
                for label, engine, name in zip(("shared", "bound"), engines, names, strict=True)
            }
            outputs = [call()[0] for call in calls.values()]
            difference = np.abs(outputs[0] - outputs[1]).max() / np.ptp(outputs[1])
            timed = time_paired(calls, rounds=args.rounds)
            ratio = timed["shared"].ratio_to(timed["bound"])
            unequal, slowest = max(unequal, float(difference)), max(slowest, ratio)
            print(f"| {format_name} | {size} | {difference:.1e} | {ratio:.3f} |", flush=True)
            for engine in engines:
                engine.close()
    print(f"\nlargest difference {unequal:.1e} (bar 0), largest ratio {slowest:.3f} (bar 1.03)")
    return 0 if unequal == 0.0 and slowest <= 1.03 else 1


if __name__ == "__main__":
    raise SystemExit(main())
