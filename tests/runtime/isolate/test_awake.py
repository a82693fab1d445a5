"""How an engine's process waits for the next run."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate import host, worker
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import load


class Waiting:
    """A server, the owner's end of its socket, and how often it looked for a message without sleeping."""

    def __init__(self, awake_s: float, monkeypatch) -> None:
        self.owner, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = worker._Server(self.theirs, awake_s)
        self.now_s = 0.0
        self.looks = 0
        self.comes_at_look = 0
        monkeypatch.setattr(worker, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(worker.os, "sched_yield", self._looked)

    def close(self) -> None:
        self.owner.close()
        self.theirs.close()

    def _looked(self) -> None:
        self.looks += 1
        self.now_s += 0.001
        if self.looks == self.comes_at_look:
            self.owner.send(b"late")

    def run(self, data: bytes) -> None:
        """Let the server take a message that is there already, and be told that it was a run."""
        self.owner.send(data)
        self.server._next()
        self.server._soon = self.server._came_soon

    def next_after(self, gap_s: float) -> bytes:
        """Return the next message, a run, which is sent when the server sleeps."""

        def send() -> None:
            self.now_s += gap_s
            self.owner.send(b"slept for")

        timer = threading.Timer(0.05, send)
        timer.start()
        data, _ = self.server._next()
        timer.join()
        self.server._soon = self.server._came_soon
        return data


@pytest.fixture
def waiting(monkeypatch):
    with closing(Waiting(0.02, monkeypatch)) as waiting:
        yield waiting


def test_where_one_run_came_soon_the_next_is_awaited_awake(waiting):
    waiting.run(b"first")
    assert waiting.looks == 0
    waiting.comes_at_look = 7
    assert waiting.server._next()[0] == b"late"
    assert waiting.looks == 7


def test_it_sleeps_when_the_time_is_over_and_from_then_on(waiting):
    waiting.run(b"first")
    assert waiting.next_after(1.0) == b"slept for"
    assert waiting.looks == 20
    assert waiting.next_after(1.0) == b"slept for"
    assert waiting.looks == 20
    # Frames come fast again: one is slept for, the next is not.
    assert waiting.next_after(0.001) == b"slept for"
    waiting.comes_at_look = 21
    assert waiting.server._next()[0] == b"late"


def test_what_is_no_run_keeps_nobody_awake(waiting):
    waiting.owner.send(b'{"op": "drop", "key": 0}')
    assert waiting.server.serve()
    assert waiting.next_after(0.0) == b"slept for" and waiting.looks == 0


def test_at_real_time_priority_it_sleeps(waiting, monkeypatch):
    waiting.run(b"first")
    monkeypatch.setattr(worker.os, "sched_getscheduler", lambda _: worker.os.SCHED_RR)
    assert waiting.next_after(0.0) == b"slept for" and waiting.looks == 0


def test_without_it_no_core_is_taken(monkeypatch):
    with closing(Waiting(0.0, monkeypatch)) as waiting:
        for _ in range(3):
            assert waiting.next_after(0.0) == b"slept for"
        assert waiting.looks == 0


@pytest.mark.parametrize(("cores", "expected"), [({0, 1}, 0.5), ({0}, 0.0)], ids=["two cores", "one core"])
def test_a_single_core_is_left_to_the_caller(cores, expected, tmp_path, monkeypatch):
    write_fake_bundle(tmp_path / "b")
    asked = []
    start = host.EngineProcess.__init__

    def told(self, *, awake_s):
        asked.append(awake_s)
        start(self, awake_s=awake_s)

    monkeypatch.setattr(host.EngineProcess, "__init__", told)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: cores)
    with load(tmp_path / "b", isolate=Isolation(awake_s=0.5)):
        assert asked == [expected]


def test_a_process_is_awake_between_runs_that_are_near_and_sleeps_later(tmp_path):
    write_fake_bundle(tmp_path / "b")
    frame = np.zeros((64, 64, 3), np.uint8)
    with load(tmp_path / "b", isolate=Isolation(awake_s=np.float64(0.5))) as model:
        ran = Path(f"/proc/{model.isolation.pid}/schedstat")

        def ran_s() -> float:
            return int(ran.read_text().split()[0]) / 1e9

        model(frame)
        model(frame)
        begin = ran_s()
        time.sleep(1.0)
        awake = ran_s()
        time.sleep(0.5)
        assert awake - begin > 0.1
        assert ran_s() - awake < 0.02


@pytest.mark.parametrize("bad", [-0.1, 60.0, float("nan")])
def test_a_time_that_makes_no_sense_is_refused(bad):
    with pytest.raises(RecipeError, match="awake_s"):
        Isolation(awake_s=bad)
