"""A machine that is a script: its clock moves by what calls, waits and looks at the board take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from boardfit.benchmarks.records import Case
from boardfit.boards.records import Snapshot
from boardfit.runtime.results import Timings


@dataclass
class Answer:
    size: int
    timings: Timings


@dataclass
class Machine:
    """Runs a net whose frames take ``frame_s(index, run)``, and a board that says ``board(time_s, run)``.

    Attributes:
        asked: Mean of each frame that was asked, or the means of each batch.
        opened: Sessions so far; ``closed``: of those, the ones that were closed.
    """

    frame_s: Callable[[int, int], float] = lambda index, run: 0.01
    board: Callable[[float, int], Snapshot] = lambda time_s, run: Snapshot(time_s=time_s)
    size: Callable[[int], int] = lambda index: 224
    now_s: float = 1000.0
    load_s: float = 0.25
    probe_s: float = 0.005
    asked: list = field(default_factory=list)
    looked: list = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    looks: bool = False
    index: int = 0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def probe(self) -> Snapshot:
        self.now_s += self.probe_s
        return self.board(self.now_s, self.opened - 1)

    @contextmanager
    def open(self) -> Iterator[Session]:
        self.now_s += self.load_s
        self.opened += 1
        self.index = 0
        try:
            yield Session(self)
        finally:
            self.closed += 1


class Session:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        if machine.looks:
            self.look = lambda frame, size: machine.looked.append(size)

    def __call__(self, frame):
        machine = self.machine
        frames = frame if isinstance(frame, list) else [frame]
        means = [int(one.mean()) for one in frames]
        machine.asked.append(means if isinstance(frame, list) else means[0])
        took = machine.frame_s(machine.index, machine.opened - 1)
        machine.now_s += took
        share = took / len(frames)
        stages = (0.05 * share, 0.15 * share, 0.75 * share, 0.05 * share)
        answers = [Answer(machine.size(machine.index), Timings(*stages, share)) for _ in frames]
        machine.index += 1
        return answers if isinstance(frame, list) else answers[0]


@pytest.fixture
def machine() -> type[Machine]:
    return Machine


@pytest.fixture
def case() -> Callable[..., Case]:
    def make(scenario: str = "single-stream", **changes) -> Case:
        fields = {
            "scenario": scenario,
            "engine": "fake",
            "engine_version": "",
            "precision": "fp32",
            "threads": 1,
            "affinity": (),
            "sizes": (224,),
            "policy": "fixed",
            "frame_size_wh": (64, 48),
        }
        return Case(**{**fields, **changes})

    return make


@pytest.fixture
def frames() -> list[np.ndarray]:
    """Four flat pictures whose value is their number."""
    return [np.full((48, 64, 3), value, np.uint8) for value in range(4)]
