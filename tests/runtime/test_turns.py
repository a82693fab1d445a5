from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from boardfit.errors import EngineError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.session import load
from boardfit.runtime.turns import Turns

WAIT_S = 10.0


class Gate:
    """Work that says that it has begun, and ends when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> int:
        self.begun.set()
        assert self.may_end.wait(WAIT_S)
        return threading.get_ident()


class Asker(threading.Thread):
    """Asks for one piece of work, and keeps what came of it."""

    def __init__(self, turns: Turns, work) -> None:
        super().__init__()
        self.turns, self.work = turns, work
        self.answer = self.error = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.turns.run(self.work)
        except BaseException as error:
            self.error = str(error)  # the error itself would keep what its traceback holds


def until(condition) -> None:
    for _ in range(round(WAIT_S / 0.005)):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen")


def busy(turns: Turns) -> tuple[Asker, Gate]:
    """Begin a run that ends when it is let."""
    gate = Gate()
    asker = Asker(turns, gate)
    assert gate.begun.wait(WAIT_S)
    return asker, gate


@contextmanager
def interrupts():
    """Let SIGALRM be what Ctrl-C is, and end its timer."""

    def interrupt(number, frame) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def end(gate: Gate, *askers: threading.Thread) -> None:
    """Let a run end, and wait for all who asked."""
    gate.may_end.set()
    for asker in askers:
        asker.join(WAIT_S)


@pytest.fixture
def engine_threads():
    """Return the engines' threads that were not there before."""
    before = set(threading.enumerate())
    return lambda: [t for t in threading.enumerate() if t.name == "engine" and t not in before]


def test_who_comes_alone_runs_it_himself(engine_threads):
    turns = Turns(hand_over=True)
    assert [turns.run(threading.get_ident) for _ in range(3)] == [threading.get_ident()] * 3
    assert engine_threads() == []


def test_who_finds_it_busy_leaves_it_to_the_engines_thread(engine_threads, monkeypatch):
    turns = Turns(hand_over=True)
    handed, hand_over = [], turns._handed_over

    def note(work):
        done = hand_over(work)
        handed.append(work)
        return done

    monkeypatch.setattr(turns, "_handed_over", note)
    first, gate = busy(turns)
    second = Asker(turns, threading.get_ident)
    third = Asker(turns, threading.get_ident)
    until(lambda: len(handed) == 2)
    end(gate, first, second, third)
    (thread,) = engine_threads()
    assert first.answer == first.ident
    assert second.answer == third.answer == thread.ident
    turns.close(lambda: None)
    assert engine_threads() == []


def test_who_comes_after_another_leaves_it_there_too_and_who_comes_again_does_not(engine_threads):
    turns = Turns(hand_over=True)
    turns.run(int)
    other = Asker(turns, threading.get_ident)
    other.join(WAIT_S)
    (thread,) = engine_threads()
    assert other.answer == thread.ident
    answers = [turns.run(threading.get_ident) for _ in range(3)]
    assert answers == [thread.ident, threading.get_ident(), threading.get_ident()]
    turns.close(lambda: None)


def test_without_a_thread_of_its_own_everybody_waits(engine_threads):
    turns = Turns(hand_over=False)
    first, gate = busy(turns)
    second = Asker(turns, threading.get_ident)
    end(gate, first, second)
    assert second.answer == second.ident
    assert engine_threads() == []


def test_where_no_thread_can_be_started_everybody_waits(engine_threads, monkeypatch):
    turns = Turns(hand_over=True)
    first, gate = busy(turns)
    start, refused = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "engine":
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    second = Asker(turns, threading.get_ident)
    assert refused.wait(WAIT_S)
    end(gate, first, second)
    assert second.answer == second.ident
    turns.close(lambda: None)


@pytest.mark.parametrize("hand_over", [True, False])
def test_one_at_a_time_and_each_gets_its_own_answer(hand_over):
    turns = Turns(hand_over=hand_over)
    inside, most, wrong = [], [], []

    def work(number: int) -> int:
        inside.append(number)
        time.sleep(1e-4)  # others may come in
        most.append(len(inside))
        inside.remove(number)
        return number * number

    def ask(first: int) -> None:
        wrong.extend(n for n in range(first, 400, 8) if turns.run(lambda: work(n)) != n * n)  # noqa: B023

    askers = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    turns.close(lambda: None)
    assert (max(most), len(most), wrong) == (1, 400, [])


def test_an_error_reaches_the_one_who_asked_and_the_next_run_works(engine_threads):
    turns = Turns(hand_over=True)

    class Tensor:
        """What a failed run must not keep."""

    tensor = Tensor()
    kept = weakref.ref(tensor)

    def fail(held: Tensor) -> None:
        raise EngineError("it broke")

    first, gate = busy(turns)
    second = Asker(turns, partial(fail, tensor))
    until(lambda: engine_threads() != [])
    end(gate, first, second)
    assert second.error == "it broke"
    assert turns.run(lambda: 5) == 5
    gc.disable()
    try:
        del tensor, second
        until(lambda: kept() is None)  # the thread may be about to let go of it
    finally:
        gc.enable()
    turns.close(lambda: None)


def test_what_waits_is_done_before_the_last_and_nothing_after_it(engine_threads):
    turns = Turns(hand_over=True)
    order = []
    first, gate = busy(turns)
    second = Asker(turns, lambda: order.append("second"))
    until(lambda: engine_threads() != [])
    closer = threading.Thread(target=turns.close, args=(lambda: order.append("last"),))
    closer.start()
    until(lambda: turns._closing)
    late = Asker(turns, lambda: order.append("late"))
    end(gate, first, second, closer, late)
    assert "second" in order  # and late, where it slips in
    assert order[-1] == "last"
    assert ("late" in order) == (late.error is None)
    turns.close(lambda: order.append("again"))
    assert "again" not in order
    with pytest.raises(EngineError, match="the session is closed: load the bundle again"):
        turns.run(lambda: 1)


AT_EXIT = """\
import atexit, threading, time
later = []
atexit.register(lambda: [close() for close in later])  # after weakref's own, which came before it
from boardfit.runtime.turns import Turns
turns = Turns(hand_over=True)
turns.run(int)
threads = [threading.Thread(target=turns.run, args=(int,)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ENDING
"""


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("later.append(lambda: turns.close(lambda: print('closed')))", "closed"),
        (
            "work = lambda: [time.sleep(0.5), print('ended')]\n"
            "threading.Thread(target=turns.run, args=(work,), daemon=True).start()\n"
            "time.sleep(0.1)",
            "ended",
        ),
    ],
    ids=["closed at the end", "a run under way"],
)
def test_the_interpreter_ends_after_the_run_and_does_not_hang(ending, said):
    program = AT_EXIT.replace("ENDING", ending)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, said, "")


def test_turns_that_nobody_closed_take_their_thread_with_them(engine_threads):
    turns = Turns(hand_over=True)
    first, gate = busy(turns)
    second = Asker(turns, threading.get_ident)
    until(lambda: engine_threads() != [])
    end(gate, first, second)
    del turns, first, second
    gc.collect()
    until(lambda: engine_threads() == [])


@pytest.mark.parametrize("contended", [False, True])
def test_an_interrupt_leaves_nothing_locked(contended, engine_threads):
    turns = Turns(hand_over=True)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            turns.run(lambda: time.sleep(1e-5))

    asker = threading.Thread(target=ask, daemon=True)
    if contended:
        asker.start()
    interrupted = 0
    with interrupts():
        while interrupted < 200:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4)
                while True:
                    turns.run(int)
            except KeyboardInterrupt:
                interrupted += 1
    over.set()
    if contended:
        asker.join(WAIT_S)
    until(lambda: not turns._busy.locked())
    turns.close(lambda: None)
    until(lambda: engine_threads() == [])  # there may be two


def test_an_interrupt_over_the_threads_start_leaves_no_thread(engine_threads, monkeypatch):
    turns = Turns(hand_over=True)
    start = threading.Thread.start

    def start_and_raise(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "engine":
            monkeypatch.setattr(threading.Thread, "start", start)
            raise KeyboardInterrupt

    first, gate = busy(turns)
    monkeypatch.setattr(threading.Thread, "start", start_and_raise)
    with pytest.raises(KeyboardInterrupt):
        turns.run(int)
    second = Asker(turns, threading.get_ident)
    until(lambda: len(engine_threads()) == 2)
    end(gate, first, second)
    turns.close(lambda: None)
    until(lambda: engine_threads() == [])


def test_one_who_is_interrupted_while_he_waits_has_nothing_run(engine_threads):
    turns = Turns(hand_over=True)
    first, gate = busy(turns)
    ran = []

    with interrupts(), pytest.raises(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        turns.run(lambda: ran.append("interrupted"))
    end(gate, first)
    assert turns.run(lambda: 5) == 5
    turns.close(lambda: None)
    assert ran == []


def test_a_fork_hands_over_to_a_thread_of_its_own(engine_threads):
    turns = Turns(hand_over=True)

    def contend() -> bool:
        first, gate = busy(turns)
        second = Asker(turns, threading.get_ident)
        until(lambda: engine_threads() != [])
        end(gate, first, second)
        return second.answer not in (None, second.ident)

    assert contend()
    pid = os.fork()
    if pid == 0:
        well = False
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            well = contend() and contend()
        finally:
            os._exit(0 if well else 1)
    assert os.waitpid(pid, 0)[1] == 0
    turns.close(lambda: None)


@pytest.mark.parametrize(
    ("options", "hands_over"),
    [({}, True), ({"isolate": True}, False), ({"affinity": [min(os.sched_getaffinity(0))]}, False)],
    ids=["here", "isolated", "bound"],
)
def test_a_session_that_threads_share_answers_all_and_leaves_no_thread(
    options, hands_over, tmp_path, engine_threads
):
    write_fake_bundle(tmp_path / "fake.boardfit", sizes=(32,), delay_s=0.002)
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with load(tmp_path / "fake.boardfit", **options) as session:
        expected = session(frame).outputs[0]
        assert engine_threads() == []
        different, seen = [], []

        def ask() -> None:
            for _ in range(20):
                different.append(not np.array_equal(session(frame).outputs[0], expected))
                seen.extend(engine_threads())

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert different == [False] * 80
        assert bool(seen) == hands_over
    assert engine_threads() == []
