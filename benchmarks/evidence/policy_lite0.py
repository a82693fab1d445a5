"""The policies on a stock net: fitted on photos_fit, scored on photos_score.

    python benchmarks/evidence/policy_lite0.py lite0.boardfit [--engine onnxruntime]

For each goal: the policy that the fit chooses on photos_fit alone, its drop and time on photos_score, and its
gain over the best fixed size or mix of two of equal time, with the 95 % interval of the paired bootstrap.
One thread, timed by the processor's time, which what else runs disturbs least.
"""

from __future__ import annotations

import argparse
from time import process_time

from photos import labelled

from boardfit.bundle import open_bundle
from boardfit.converters.policy_evidence import Photo, gather
from boardfit.converters.policy_fit import describe
from boardfit.converters.policy_solve import best_mix, choose, interval, oracle, replay
from boardfit.runtime.choose import Setup
from boardfit.runtime.times import measure_times
from boardfit.specs import PolicySpec, classic_policy
from boardfit.timing import machine_name

GOALS = [(drop, None) for drop in (0.5, 1.0, 2.0, 3.0, 5.0)] + [(None, t) for t in (0.9, 0.8, 0.7)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--engine", default="onnxruntime")
    args = parser.parse_args(argv)
    with open_bundle(args.bundle) as bundle:
        times = measure_times(bundle, setup=Setup(args.engine, threads=1), clock=process_time)
        fitting, scoring = (
            gather(bundle, [Photo(*row) for row in labelled(name)], setup=Setup(args.engine))
            for name in ("photos_fit", "photos_score")
        )
    fixed = [replay(PolicySpec(kind="fixed", sizes=(size,)), scoring, times) for size in scoring.sizes]
    base = fixed[-1]
    print(f"fitted on {fitting.count}, scored on {scoring.count} photographs; {args.engine}, one thread")
    print(machine_name())
    costs = [100 * times.change_s(kind) / times.look_s[-1] for kind in ("entropy", "two-look")]
    print(f"a change of size costs {costs[0]:.1f} % of the largest look, two-look's {costs[1]:.1f} %\n")
    print("| goal | policy | time | right % | drop | gain over mix | 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    for item in fixed:
        print(f"| | {describe(item.spec)} | {item.time_s / base.time_s:.2f} | {item.score:.1f} | | | |")
    rows = [("classic", classic_policy("entropy", scoring.sizes))]
    for drop, share in GOALS:
        goal = f"at most {drop:g} points" if share is None else f"at most {share:g} of the time"
        rows.append((goal, choose(fitting, times, max_drop=drop, max_time=share)))
    for goal, spec in rows:
        found = replay(spec, scoring, times)
        score, expected = best_mix(fixed, found.time_s)
        low, high = interval(found.hits - expected)
        print(
            f"| {goal} | {describe(spec)} | {found.time_s / base.time_s:.2f} | {found.score:.1f} "
            f"| {base.score - found.score:.1f} | {found.score - score:+.1f} | {low:+.1f} to {high:+.1f} |"
        )
    score, time_s = oracle(scoring, times)
    print(f"| | oracle | {time_s / base.time_s:.2f} | {score:.1f} | | | |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
