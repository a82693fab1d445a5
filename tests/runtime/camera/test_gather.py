from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from boardfit.runtime.camera.gather import Gather
from boardfit.runtime.camera.records import Frame
from boardfit.runtime.camera.slot import Slot


@pytest.fixture
def sources():
    """Three cameras with a frame each, and another one due in a moment that never comes."""
    made = []
    for name in ("left", "middle", "right"):
        slot = Slot()
        now = time.monotonic()
        for time_s in (now - 1.0, now):
            slot.put(Frame(np.zeros((4, 4, 3), np.uint8), time_s, 0, name))
        made.append(SimpleNamespace(slot=slot, take=slot.take, ended=False))
    return made


def test_all_cameras_together_are_waited_for_once(sources):
    allowed_s = []

    def wait(within_s: float) -> None:
        allowed_s.append(within_s)
        time.sleep(0.05)

    for source in sources:
        source.slot.await_newer = wait
    frames = Gather(sources).take(3, 0.0, newer_within_s=0.08)
    assert [frame.source for frame in frames] == ["left", "middle", "right"]
    first, second, third = allowed_s
    assert first <= 0.08 and second <= 0.03 and third == 0.0


def test_they_take_turns(sources):
    gather = Gather(sources)
    took = [gather.take(1, 0.0)[0].source for _ in range(3)]
    assert took == ["left", "middle", "right"]
    assert gather.take(1, 0.0) == []


def test_only_those_that_are_taken_are_waited_for(sources):
    waited = []
    for number, source in enumerate(sources):
        source.slot.await_newer = lambda within_s, number=number: waited.append(number)
    sources[0].slot.take(0.0)
    Gather(sources).take(1, 0.0, newer_within_s=1.0)
    assert waited == [1]
