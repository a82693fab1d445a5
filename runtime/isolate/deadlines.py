"""How long a run may take, from how long such runs took."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from boardfit.runtime.isolate.options import Isolation
from boardfit.timing import percentile

FLOOR_S = 0.2
FACTOR = 5.0
FIRST_RUNS = 4
"""Precedents that a deadline needs, besides first runs."""
WINDOW = 512
_EVERY = 32
_RECENT = 16
Shape: TypeAlias = tuple[Any, ...]
"""What runs have in common that take about as long: the model's file, and the shapes of its inputs."""


@dataclass(slots=True)
class _Runs:
    """The runs of one shape."""

    last_s: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    count: int = 0
    fresh: bool = True
    p99_s: float = 0.0


class Deadlines:
    """Remembers the durations of runs by their shape."""

    def __init__(self, options: Isolation) -> None:
        self._options = options
        self._runs: dict[Shape, _Runs] = {}

    def allowed_s(self, shape: Shape) -> float:
        """Return how many seconds the next run of a shape may take."""
        runs = self._runs.get(shape)
        first_s = self._options.first_deadline_s
        if runs is None or runs.fresh or len(runs.last_s) < FIRST_RUNS:
            return max(first_s, self._options.deadline_s or 0.0)
        return self._options.deadline_s or max(FLOOR_S, FACTOR * runs.p99_s)

    def usual_s(self, shape: Shape) -> tuple[float, float] | None:
        """Return the times in which a quarter and three quarters of a shape's last 16 runs ended.

        In seconds; None with fewer runs.
        """
        runs = self._runs.get(shape)
        if runs is None or runs.fresh or len(runs.last_s) < _RECENT:
            return None
        last_s = sorted(runs.last_s[-number] for number in range(1, _RECENT + 1))
        return last_s[_RECENT // 4 - 1], last_s[-_RECENT // 4]

    def took(self, shape: Shape, seconds: float) -> None:
        """Remember a run that ended; the first one of a shape in a process counts for no percentile."""
        runs = self._runs.setdefault(shape, _Runs())
        runs.count += 1
        if runs.fresh:
            runs.fresh = False
            return
        runs.last_s.append(seconds)
        if len(runs.last_s) < _EVERY or runs.count % _EVERY == 0:
            runs.p99_s = percentile(list(runs.last_s), 99.0)

    def restarted(self, model: str | None = None) -> None:
        """Grant shapes a first run again: a new process, or a model loaded anew, has planned none of them.

        Args:
            model: Of whose shapes, by their first entry; None for all.
        """
        for shape, runs in self._runs.items():
            runs.fresh = runs.fresh or model is None or shape[0] == model
