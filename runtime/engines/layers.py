"""What each layer of an artifact takes, as its engine's own profiler tells it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boardfit.errors import EngineError
from boardfit.timing import percentile


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer as the engine runs it: often several of the file's, fused.

    Attributes:
        name: The engine's, distinct within a profile.
        kind: Such as ``Conv``.
        times_s: Seconds, one for each run.
    """

    name: str
    kind: str
    times_s: tuple[float, ...]

    @property
    def p50_s(self) -> float:
        """Median in seconds."""
        return percentile(self.times_s, 50.0)


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """Some runs of an artifact, layer by layer.

    Attributes:
        layers: In the order in which they run.
        whole_s: Seconds of each whole run, profiled.
    """

    layers: tuple[LayerTime, ...]
    whole_s: tuple[float, ...]

    def __post_init__(self) -> None:
        runs = len(self.whole_s)
        if not self.layers or not runs or any(len(layer.times_s) != runs for layer in self.layers):
            raise EngineError(
                f"the engine's profile has {len(self.layers)} layers and {runs} whole runs, and not the same "
                "layers in each run: it cannot be read"
            )

    @property
    def sum_s(self) -> float:
        """Median over the runs of all layers together, in seconds."""
        return percentile(
            [sum(times) for times in zip(*(each.times_s for each in self.layers), strict=True)], 50.0
        )

    @property
    def p50_s(self) -> float:
        """Median of the whole runs in seconds."""
        return percentile(self.whole_s, 50.0)


def profile_of(runs: Sequence[tuple[float, Iterable[tuple[str, str, float]]]]) -> LayerProfile:
    """Put the layers of several runs together.

    Args:
        runs: Of each its seconds, and the name, kind and seconds of its layers.

    Raises:
        EngineError: Their layers differ, or there are none.
    """
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for _, layers in runs:
        for name, kind, seconds in layers:
            times.setdefault(name, []).append(seconds)
            kinds[name] = kind
    found = tuple(LayerTime(name, kinds[name], tuple(each)) for name, each in times.items())
    return LayerProfile(found, tuple(seconds for seconds, _ in runs))
