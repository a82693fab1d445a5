"""What does deciding cost? Image entropy, the judgement of an answer, and the change of size.

    python benchmarks/evidence/deciding.py lite0.boardfit [--rounds 200]

In per cent of the largest size's time, one thread, each engine. The change of size is shown with one engine
for all sizes and with one per size (``max_resident_sizes=2``), with the memory that those take.
"""

from __future__ import annotations

import argparse
import gc
from functools import partial
from pathlib import Path

from boardfit.bundle import open_bundle
from boardfit.converters.policy_evidence import size_change_s
from boardfit.converters.samples import synthetic_frame
from boardfit.runtime.engines import available_engines
from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.session import load
from boardfit.timing import machine_name, time_paired


def resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args(argv)
    frame = synthetic_frame(1, height=1080, width=1920)
    with open_bundle(args.bundle) as bundle:
        formats = {artifact.format for artifact in bundle.manifest.artifacts}
        small, large = bundle.manifest.sizes[-2:]
    print(f"1920x1080 frame, one thread, {args.rounds} rounds, {machine_name()}\n")
    print(
        "| engine | largest look ms | entropy % | judging the answer % | change of size % "
        "| with an engine per size % | MiB of that |"
    )
    print("|---|---|---|---|---|---|---|")
    for engine in sorted({name for one in formats for name in available_engines(one)}):
        with load(args.bundle, engine=engine, policy="entropy", threads=1) as session:
            result = session.look(frame, large)
            timed = time_paired(
                {
                    "look": partial(session.look, frame, large),
                    "entropy": partial(entropy_bits, frame),
                    "judge": lambda result=result: result.answer_entropy_bits,
                },
                rounds=args.rounds,
            )
            shared = 1e3 * size_change_s(session, frame, (small, large), rounds=args.rounds)
        before = resident_mib()
        with load(args.bundle, engine=engine, policy="entropy", threads=1, max_resident_sizes=2) as session:
            session.look(frame, large)
            one = resident_mib()
            session.look(frame, small)
            second = resident_mib() - one
            private = 1e3 * size_change_s(session, frame, (small, large), rounds=args.rounds)
        whole = 1e3 * timed["look"].p50_s
        shares = [1e3 * timed["entropy"].p50_s, 1e3 * timed["judge"].p50_s, shared, private]
        cells = " | ".join(f"{100 * value / whole:.1f}" for value in shares)
        print(f"| {engine} | {whole:.2f} | {cells} | {one - before:.0f} + {second:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
