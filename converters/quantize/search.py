"""Candidates: one float artifact quantized with each method's ranges, the best by output error.

The choice never looks at top-1 answers: a few hundred images cannot tell two methods apart by these, and
the gate needs them unspent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from boardfit.converters.calibrate import Range, TensorStats, estimate, observe
from boardfit.converters.quantize.bench import Bench, cores
from boardfit.converters.targets import Exported


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A quantized artifact and how it came about.

    Attributes:
        exported: The artifact.
        source: The fp32 artifact that it was made from.
        method: Estimator of its ranges; empty for a scheme that takes none.
        error: Its output error on calibration images.
        ranges: By tensor.
        keep_float: Layers left in float.
    """

    exported: Exported
    source: Exported
    method: str
    error: float
    ranges: Mapping[str, Range] = field(default_factory=dict)
    keep_float: frozenset[str] = frozenset()


def best_ranges(bench: Bench, source: Exported, *, scheme: str) -> Candidate:
    """Quantize a float artifact with each estimator's ranges and return the best by output error.

    Args:
        bench: What to make and measure with.
        source: The fp32 artifact.
        scheme: The precision; ``dynamic`` takes no ranges.
    """
    if scheme == "dynamic":
        exported = bench.quantizer.quantize(source, ranges={}, scheme=scheme)
        return Candidate(exported, source, "", bench.error(exported))
    # One thread each: on a busy machine ncnn's OpenMP threads spin for each other.
    probes = [bench.quantizer.open_probe(source) for _ in range(cores())]
    try:
        stats = observe(probes[0], bench.calibration, more=probes[1:], progress=bench.progress)
    finally:
        for probe in probes:
            probe.close()
    return min(_candidates(bench, source, stats, scheme), key=lambda candidate: candidate.error)


def _candidates(
    bench: Bench, source: Exported, stats: Mapping[str, TensorStats], scheme: str
) -> Sequence[Candidate]:
    found = []
    for method in bench.estimators:
        ranges = {name: estimate(each, method) for name, each in stats.items()}
        exported = bench.quantizer.quantize(source, ranges=ranges, scheme=scheme)
        found.append(Candidate(exported, source, method, bench.error(exported), ranges))
        bench.progress(f"{exported.artifact.name}: ranges by {method}, output error {found[-1].error:.4g}")
    return found


def with_float_layers(bench: Bench, candidate: Candidate, names: frozenset[str]) -> Candidate:
    """Return the candidate made again with some layers left in float."""
    exported = bench.quantizer.quantize(
        candidate.source,
        ranges=candidate.ranges,
        keep_float=names,
        scheme=candidate.exported.artifact.precision,
    )
    return Candidate(
        exported, candidate.source, candidate.method, bench.error(exported), candidate.ranges, names
    )
