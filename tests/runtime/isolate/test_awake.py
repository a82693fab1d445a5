"""How an engine's process waits for the next run, and its owner for the answer."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import EngineLost, RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate import awake, host, process, worker
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import load

RUN = b'{"op": "run"}'


class Waiting:
    """A server, the owner's end of its socket, and how often it looked for a message without sleeping."""

    def __init__(self, awake_s: float, monkeypatch) -> None:
        self.owner, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = worker._Server(self.theirs, awake_s)
        self.now_s = 0.0
        self.looks = 0
        self.comes_at_look = 0
        for module in (worker, awake):
            monkeypatch.setattr(module, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(worker.os, "sched_yield", self._looked)

    def close(self) -> None:
        self.owner.close()
        self.theirs.close()

    def _looked(self) -> None:
        self.looks += 1
        self.now_s += 0.001
        if self.looks == self.comes_at_look:
            self.owner.send(RUN)

    def takes(self, message: bytes) -> None:
        """Let the server take a message that is there already."""
        self.owner.send(message)
        assert self.server.serve()

    def takes_after(self, gap_s: float) -> None:
        """Let it take a run that is sent when it sleeps."""

        def send() -> None:
            self.now_s += gap_s
            self.owner.send(RUN)

        timer = threading.Timer(0.05, send)
        timer.start()
        assert self.server.serve()
        timer.join()

    def takes_at_look(self, look: int) -> None:
        """Let it take a run that comes when it looks for the so many-th time."""
        self.comes_at_look = look
        assert self.server.serve()


@pytest.fixture
def waiting(monkeypatch):
    with closing(Waiting(0.02, monkeypatch)) as waiting:
        yield waiting


def test_where_one_run_came_soon_the_next_is_awaited_awake(waiting):
    waiting.takes(RUN)
    assert waiting.looks == 0
    waiting.takes_at_look(7)
    assert waiting.looks == 7


def test_it_sleeps_when_the_time_is_over_and_from_then_on(waiting):
    waiting.takes(RUN)
    for _ in range(2):
        waiting.takes_after(1.0)
        assert waiting.looks == 20
    # Frames come fast again: one is slept for, the next is not.
    waiting.takes_after(0.001)
    assert waiting.looks == 20
    waiting.takes_at_look(21)
    assert waiting.looks == 21


def test_what_is_no_run_keeps_nobody_awake(waiting):
    waiting.takes(b'{"op": "drop", "key": 0}')
    waiting.takes_after(0.0)
    assert waiting.looks == 0


def test_at_real_time_priority_it_sleeps(waiting, monkeypatch):
    waiting.takes(RUN)
    monkeypatch.setattr(worker.os, "sched_getscheduler", lambda _: worker.os.SCHED_RR)
    waiting.takes_after(0.0)
    assert waiting.looks == 0


def test_without_it_no_core_is_taken(monkeypatch):
    with closing(Waiting(0.0, monkeypatch)) as waiting:
        for _ in range(3):
            waiting.takes_after(0.0)
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
        later_s = ran_s()
        time.sleep(0.5)
        assert later_s - begin > 0.1
        assert ran_s() - later_s < 0.02


KNOWN = 17
"""Runs after which it is known how long they usually take; the first counts not."""


class Poll:
    """A socket to which nothing comes, and the clock: what was slept, in ms, and how often it was looked."""

    def __init__(self, monkeypatch) -> None:
        self.now_s = 100.0
        self.slept_ms = []
        self.looks = 0
        for module in (process, awake):
            monkeypatch.setattr(module, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(awake.os, "sched_yield", self.look)

    def poll(self, timeout_ms: float) -> list:
        if timeout_ms:
            self.slept_ms.append(timeout_ms)
        self.now_s += timeout_ms / 1e3
        return []

    def look(self) -> None:
        self.looks += 1
        self.now_s += 1e-4


@pytest.mark.parametrize(
    ("due_in_s", "until_in_s", "slept_ms", "over_after_s"),
    [
        ((0.0104, 0.0104), 9.0, [10], 0.0111),
        ((0.0104, 0.0114), 9.0, [10], 0.0121),
        ((0.0104, 0.0304), 9.0, [10], 0.0131),
        ((0.0002, 0.0002), 9.0, [], 0.0009),
        ((-0.0006, -0.0006), 9.0, [], 0.0001),
        ((-0.0008, -0.0008), 9.0, [50], 0.05),
        ((0.06, 0.06), 9.0, [50], 0.05),
        (None, 9.0, [50], 0.05),
        (None, 0.02, [20], 0.02),
    ],
    ids=["soon", "they differ", "much", "now", "late", "later", "not yet", "nobody knows", "the deadline"],
)
def test_the_owner_sleeps_but_about_the_time_at_which_it_is_due(
    due_in_s, until_in_s, slept_ms, over_after_s, monkeypatch
):
    poll = Poll(monkeypatch)
    owner = object.__new__(process.EngineProcess)
    owner._poll = poll
    due_s = None if due_in_s is None else (100.0 + due_in_s[0], 100.0 + due_in_s[1])
    assert not owner._has_come(100.0 + until_in_s, due_s)
    assert poll.slept_ms == pytest.approx(slept_ms)
    assert poll.now_s - 100.0 == pytest.approx(over_after_s, abs=1.1e-4)
    assert bool(poll.looks) == (slept_ms == [10] or slept_ms == [])


@pytest.mark.parametrize(
    ("awake_s", "threads", "expected"),
    [(0.005, 1, True), (0.0, 1, False), (0.005, 2, False)],
    ids=["a core is left", "not wanted", "the engine has all cores"],
)
def test_the_owner_looks_once_it_knows_how_long_a_run_takes(
    awake_s, threads, expected, tmp_path, monkeypatch
):
    write_fake_bundle(tmp_path / "b", delay_s=0.002)
    frame = np.zeros((64, 64, 3), np.uint8)
    known = []
    has_come = process.EngineProcess._has_come

    def note(owner, until_s, due_s) -> bool:
        known.append(due_s is not None)
        return has_come(owner, until_s, due_s)

    monkeypatch.setattr(process.EngineProcess, "_has_come", note)
    monkeypatch.setattr(host, "usable_cores", lambda: 2)
    with load(tmp_path / "b", isolate=Isolation(awake_s=awake_s), threads=threads) as model:
        for _ in range(KNOWN):
            model(frame)
        assert not any(known)
        model(frame)
        assert any(known) == expected


def test_an_engine_that_hangs_after_many_runs_is_replaced(tmp_path):
    write_fake_bundle(tmp_path / "b", delay_s=0.03)
    frame = np.zeros((64, 64, 3), np.uint8)
    with load(tmp_path / "b", isolate=True, threads=1) as model:
        answers = [model(frame) for _ in range(KNOWN + 1)]
        os.kill(model.isolation.pid, signal.SIGSTOP)
        with pytest.raises(EngineLost, match="gave no answer within") as caught:
            model(frame)
        assert caught.value.reason == "hung"
        assert np.array_equal(model(frame).scores, answers[0].scores)


@pytest.mark.parametrize("bad", [-0.1, 60.0, float("nan")])
def test_a_time_that_makes_no_sense_is_refused(bad):
    with pytest.raises(RecipeError, match="awake_s"):
        Isolation(awake_s=bad)
