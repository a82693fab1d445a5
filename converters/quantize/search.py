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


def best_ranges(
    bench: Bench, source: Exported, *, scheme: str, trained: Mapping[str, Range] | None = None
) -> Candidate:
    """Quantize a float artifact with each estimator's ranges and return the best by output error.

    Args:
        bench: What to make and measure with.
        source: The fp32 artifact.
        scheme: The precision; ``dynamic`` takes no ranges.
        trained: Ranges by tensor that a training found: they are taken as they are.
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
    return min(
        _candidates(bench, source, stats, scheme, trained or {}), key=lambda candidate: candidate.error
    )


def _candidates(
    bench: Bench,
    source: Exported,
    stats: Mapping[str, TensorStats],
    scheme: str,
    trained: Mapping[str, Range],
) -> Sequence[Candidate]:
    found = []
    rest = {name: each for name, each in stats.items() if name not in trained}
    # With every range trained there is nothing to estimate, and one candidate.
    for estimator in bench.estimators if rest else bench.estimators[:1]:
        ranges = {**trained, **{name: estimate(each, estimator) for name, each in rest.items()}}
        method = _method(estimator, trained=len(trained), all_of_them=len(stats))
        exported = bench.quantizer.quantize(source, ranges=ranges, scheme=scheme)
        found.append(Candidate(exported, source, method, bench.error(exported), ranges))
        bench.progress(f"{exported.artifact.name}: ranges by {method}, output error {found[-1].error:.4g}")
    return found


def _method(estimator: str, *, trained: int, all_of_them: int) -> str:
    if not trained:
        return estimator
    rest = "" if trained == all_of_them else f", the others by {estimator}"
    return f"training ({trained} of {all_of_them}{rest})"


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
