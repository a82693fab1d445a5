"""Times of the artifacts on this machine, for the bundle's measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from boardfit.converters.samples import Samples
from boardfit.converters.targets import Exported
from boardfit.converters.verify import engine_name, feeds_of, open_engine
from boardfit.runtime.engines import Engine
from boardfit.specs import Artifact
from boardfit.timing import time_paired

ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Timed:
    """Inference time of one artifact at one size.

    Attributes:
        artifact: The artifact's name.
        size: Input side in pixels.
        engine: The engine that ran it.
        threads: Threads of the engine.
        p50_s: Median of one inference in seconds, engine only.
        speedup: How many times as fast as the fp32 artifact of the same format, round beside round; None
            where there is none, and for fp32 itself.
    """

    artifact: str
    size: int
    engine: str
    threads: int
    p50_s: float
    speedup: float | None = None


def time_artifacts(exported: Sequence[Exported], samples: Samples, *, threads: int = 1) -> list[Timed]:
    """Time every artifact at each of its sizes, interleaved size by size on one thread.

    Args:
        exported: The artifacts.
        samples: The images; the first one is run.
        threads: Threads of each engine.
    """
    engines = [open_engine(item, threads=threads) for item in exported]
    try:
        rows: list[Timed] = []
        for size in samples.tensors:
            calls = {
                index: _call(engine, item, samples, size)
                for index, (engine, item) in enumerate(zip(engines, exported, strict=True))
                if size in item.artifact.sizes
            }
            timed = time_paired({str(index): call for index, call in calls.items()}, rounds=ROUNDS)
            for index in calls:
                artifact = exported[index].artifact
                twin = _twin(artifact, [(str(i), exported[i].artifact) for i in calls])
                rows.append(
                    Timed(
                        artifact=artifact.name,
                        size=size,
                        engine=engine_name(artifact.format),
                        threads=threads,
                        p50_s=timed[str(index)].p50_s,
                        speedup=timed[twin].ratio_to(timed[str(index)]) if twin else None,
                    )
                )
        return rows
    finally:
        for engine in engines:
            engine.close()


def _twin(artifact: Artifact, others: Sequence[tuple[str, Artifact]]) -> str:
    """Return the key of the fp32 artifact beside one of another precision; empty where there is none."""
    if artifact.precision == "fp32":
        return ""
    same = (key for key, each in others if (each.format, each.precision) == (artifact.format, "fp32"))
    return next(same, "")


def _call(engine: Engine, item: Exported, samples: Samples, size: int) -> Callable[[], object]:
    feeds = feeds_of(item.artifact, samples.tensors[size], samples.further.get(size, ()), row=0)
    return partial(engine.run, feeds)
