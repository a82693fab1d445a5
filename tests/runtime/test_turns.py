import gc
import threading

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
            self.error = error


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


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine"]


def test_who_comes_alone_runs_it_himself():
    turns = Turns(hand_over=True)
    assert [turns.run(threading.get_ident) for _ in range(3)] == [threading.get_ident()] * 3
    assert engine_threads() == []


def test_who_finds_it_busy_leaves_it_to_the_engines_thread():
    turns = Turns(hand_over=True)
    first, gate = busy(turns)
    second, third = Asker(turns, threading.get_ident), Asker(turns, threading.get_ident)
    until(lambda: turns._waiting.qsize() >= 1)  # one may be taken, and waits for the first
    gate.may_end.set()
    for asker in (first, second, third):
        asker.join(WAIT_S)
    (thread,) = engine_threads()
    assert first.answer == first.ident
    assert second.answer == third.answer == thread.ident
    turns.close(lambda: None)
    assert engine_threads() == []


def test_without_a_thread_of_its_own_everybody_waits():
    turns = Turns(hand_over=False)
    first, gate = busy(turns)
    second = Asker(turns, threading.get_ident)
    gate.may_end.set()
    first.join(WAIT_S)
    second.join(WAIT_S)
    assert second.answer == second.ident
    assert engine_threads() == []


@pytest.mark.parametrize("hand_over", [True, False])
def test_one_at_a_time_and_each_gets_its_own_answer(hand_over):
    turns = Turns(hand_over=hand_over)
    inside, most, wrong = [], [], []

    def work(number: int) -> int:
        inside.append(number)
        most.append(len(inside))
        inside.remove(number)
        return number * number

    def ask(first: int) -> None:
        wrong.extend(n for n in range(first, 2000, 8) if turns.run(lambda: work(n)) != n * n)  # noqa: B023

    askers = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    turns.close(lambda: None)
    assert (max(most), len(most), wrong) == (1, 2000, [])


def test_an_error_reaches_the_one_who_asked_and_the_next_run_works():
    turns = Turns(hand_over=True)

    def fail() -> None:
        raise EngineError("it broke")

    first, gate = busy(turns)
    second = Asker(turns, fail)
    until(lambda: engine_threads() != [])
    gate.may_end.set()
    first.join(WAIT_S)
    second.join(WAIT_S)
    assert str(second.error) == "it broke"
    assert turns.run(lambda: 5) == 5
    turns.close(lambda: None)


def test_what_waits_is_done_before_the_last_and_nothing_after_it():
    turns = Turns(hand_over=True)
    order = []
    first, gate = busy(turns)
    second = Asker(turns, lambda: order.append("second"))
    until(lambda: engine_threads() != [])
    closer = threading.Thread(target=turns.close, args=(lambda: order.append("last"),))
    closer.start()
    until(lambda: turns._closing)
    late = Asker(turns, lambda: order.append("late"))
    gate.may_end.set()
    for thread in (first, second, closer, late):
        thread.join(WAIT_S)
    assert order[0] == "second"
    assert order[-1] == "last"
    assert ("late" in order) == (late.error is None)  # it may slip in before the last
    turns.close(lambda: order.append("again"))
    assert "again" not in order
    with pytest.raises(EngineError, match="the session is closed: load the bundle again"):
        turns.run(lambda: 1)


def test_turns_that_nobody_closed_take_their_thread_with_them():
    turns = Turns(hand_over=True)
    first, gate = busy(turns)
    second = Asker(turns, threading.get_ident)
    until(lambda: engine_threads() != [])
    gate.may_end.set()
    first.join(WAIT_S)
    second.join(WAIT_S)
    del turns, first, second
    gc.collect()
    until(lambda: engine_threads() == [])


def test_a_session_that_two_threads_call_answers_both_and_leaves_no_thread(tmp_path):
    write_fake_bundle(tmp_path / "fake.boardfit", sizes=(32,))
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with load(tmp_path / "fake.boardfit") as session:
        expected = session(frame).outputs[0]
        assert engine_threads() == []
        different = []

        def ask() -> None:
            different.extend(n for n in range(50) if not np.array_equal(session(frame).outputs[0], expected))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert different == []
    assert engine_threads() == []
