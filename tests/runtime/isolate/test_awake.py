"""How an engine's process waits for the next run."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import pytest

from boardfit.errors import RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate import host, worker
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import load


class Waiting:
    """A server, the owner's end of its socket, and how often it looked for a message without sleeping."""

    def __init__(self, awake_s: float, monkeypatch) -> None:
        self.owner, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.server = worker._Server(theirs, awake_s)
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

    def next_after(self, gap_s: float) -> bytes:
        """Return the next message, which is sent when the server sleeps."""

        def send() -> None:
            self.now_s += gap_s
            self.owner.send(b"slept for")

        timer = threading.Timer(0.05, send)
        timer.start()
        data, _ = self.server._next()
        timer.join()
        return data


@pytest.fixture
def waiting(monkeypatch):
    with closing(Waiting(0.02, monkeypatch)) as waiting:
        yield waiting


def test_where_one_run_came_soon_the_next_is_awaited_awake(waiting):
    waiting.owner.send(b"first")
    assert waiting.server._next()[0] == b"first" and waiting.looks == 0
    waiting.comes_at_look = 7
    assert waiting.server._next()[0] == b"late"
    assert waiting.looks == 7


def test_it_sleeps_when_the_time_is_over_and_from_then_on(waiting):
    waiting.owner.send(b"first")
    waiting.server._next()
    assert waiting.next_after(1.0) == b"slept for"
    assert waiting.looks == 20
    assert waiting.next_after(1.0) == b"slept for"
    assert waiting.looks == 20
    # Frames come fast again: one is slept for, the next is not.
    assert waiting.next_after(0.001) == b"slept for"
    waiting.comes_at_look = 21
    assert waiting.server._next()[0] == b"late"


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


@pytest.mark.parametrize("bad", [-0.1, 60.0, float("nan")])
def test_a_time_that_makes_no_sense_is_refused(bad):
    with pytest.raises(RecipeError, match="awake_s"):
        Isolation(awake_s=bad)
