"""The one timer: calls that are compared run in turn, so that all of them see the same machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

from boardfit.errors import RecipeError

_Argument = TypeVar("_Argument")
_Answer = TypeVar("_Answer")

LEAD_IN_S = 0.04
"""The threads of ONNX Runtime spin for 23 ms after a run and those of OpenMP for 6 (measured on two x86-64
cores): so long they take a core from whatever runs next."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Durations of one call.

    Attributes:
        values_s: One duration in seconds per round, in the order of the rounds.
        warmup_s: Durations of the rounds before, which count nowhere.
    """

    values_s: tuple[float, ...]
    warmup_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.values_s:
            raise RecipeError("samples without a value: expected at least one round")

    @property
    def p50_s(self) -> float:
        """Median in seconds."""
        return percentile(self.values_s, 50.0)

    @property
    def p90_s(self) -> float:
        """90th percentile in seconds."""
        return percentile(self.values_s, 90.0)

    @property
    def p95_s(self) -> float:
        """95th percentile in seconds."""
        return percentile(self.values_s, 95.0)

    @property
    def p99_s(self) -> float:
        """99th percentile in seconds."""
        return percentile(self.values_s, 99.0)

    def ratio_to(self, other: Samples) -> float:
        """Return how many times as long this call takes: the median of the rounds' ratios.

        Args:
            other: Of the same ``time_paired`` call, so that round stands beside round.

        Raises:
            RecipeError: The numbers of rounds differ: the two were not measured together.
        """
        if len(self.values_s) != len(other.values_s):
            raise RecipeError(
                f"{len(self.values_s)} rounds against {len(other.values_s)}: expected samples that were "
                "measured together; time both in one call"
            )
        return median(mine / theirs for mine, theirs in zip(self.values_s, other.values_s, strict=True))


def time_paired(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 3,
    lead_in_s: float = 0.0,
    burst: int = 1,
    pause_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """Time calls against each other.

    Every round runs each call once; every other round runs them in the reverse order, so that neither
    heat nor a call's leavings in the caches fall on the same one each time.

    Args:
        calls: By name.
        rounds: Rounds that count, at least 1.
        warmup: Rounds before them.
        lead_in_s: Run each call untimed for so long before it is timed. Calls with threads of their own need
            ``LEAD_IN_S``, or what the one before left running is timed as well.
        burst: How often in a row a round times each call.
        pause_s: Sleep for so long before each timed call, as one who waits for a camera does.
        clock: Seconds, ascending.

    Returns:
        Samples by name, in the order of ``calls``, of ``rounds`` times ``burst`` values.

    Raises:
        RecipeError: ``rounds``, ``warmup`` or ``burst`` make no sense.
    """
    if rounds < 1 or warmup < 0 or burst < 1:
        raise RecipeError(
            f"{rounds} rounds of {burst} after {warmup} for warm-up: expected at least 1 of 1 after 0 or more"
        )
    taken: dict[str, list[float]] = {name: [] for name in calls}
    forward = list(calls.items())
    for index in range(warmup + rounds):
        for name, call in forward if index % 2 == 0 else reversed(forward):
            ready = clock() + lead_in_s
            while clock() < ready:
                call()
            for _ in range(burst):
                if pause_s > 0.0:
                    time.sleep(pause_s)
                start = clock()
                call()
                taken[name].append(clock() - start)
    first = warmup * burst
    return {
        name: Samples(values_s=tuple(values[first:]), warmup_s=tuple(values[:first]))
        for name, values in taken.items()
    }


@dataclass(slots=True)
class Timed(Generic[_Argument, _Answer]):
    """One call: what it was given, what it answered, and when it began and ended by the clock."""

    argument: _Argument
    answer: _Answer
    begin_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """How long it took; below zero where the clock went backwards meanwhile."""
        return self.end_s - self.begin_s


def time_each(
    call: Callable[[_Argument], _Answer],
    arguments: Iterable[_Argument],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Timed[_Argument, _Answer]]:
    """Time one call after the other, for as long as the caller goes on asking.

    What the caller does between two of them, and what it takes to make an argument, is not counted.

    Args:
        call: Is given one argument.
        arguments: May be endless, and may wait.
        clock: Seconds, ascending.
    """
    for argument in arguments:
        begin = clock()
        answer = call(argument)
        end = clock()
        yield Timed(argument, answer, begin, end)


def percentile(values: tuple[float, ...] | list[float], percent: float) -> float:
    """Return a percentile, linear between neighbours, as numpy's default does.

    Args:
        values: At least one number, in any order.
        percent: 0 to 100.
    """
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100.0
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def machine_name() -> str:
    """Return the processor and the number of usable cores of this machine, for people."""
    import platform

    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - light
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
        found = {key.strip(): value.strip() for key, value in fields.items()}
        model = found.get("model name") or found.get("Model") or found.get("Hardware") or ""
    except OSError:
        pass  # Not Linux, or hidden: the architecture has to do.
    return f"{model or 'unknown processor'} ({platform.machine()}, {usable_cores()} cores)"


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
