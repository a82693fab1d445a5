"""Sinks in their threads: what is slow, fails or hangs holds nobody up."""

from __future__ import annotations

import threading
import time

from boardfit.errors import SinkError
from boardfit.runtime import camera
from boardfit.runtime.camera.records import Event
from boardfit.runtime.camera.sinks import SinkThread


class Slow:
    """A sink that waits to be let on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.items: list = []
        self.closed = False

    def write(self, item) -> None:
        self.go.wait(10.0)
        self.items.append(item)

    def close(self) -> None:
        self.closed = True


def test_a_slow_sink_loses_the_oldest_answers_and_holds_nobody(answer):
    slow = Slow()
    thread = SinkThread(slow, waits=lambda: False, tell=lambda event: None)
    began = time.monotonic()
    for index in range(30):
        thread.put(answer(index))
    assert time.monotonic() - began < 5.0
    slow.go.set()
    thread.end(10.0)
    assert thread.join(10.0) and slow.closed
    indices = [item.frame.index for item in slow.items]
    assert thread.dropped == 30 - len(indices) and len(indices) <= 9
    assert indices[-8:] == list(range(22, 30))


def event(number: int = 0) -> Event:
    return Event("stalled", 0.0, "cam", str(number))


def test_answers_push_no_event_out(answer):
    slow = Slow()
    thread = SinkThread(slow, waits=lambda: False, tell=lambda event: None)
    thread.put(answer(0))
    thread.put(event())
    for index in range(30):
        thread.put(answer(index))
    slow.go.set()
    thread.end(10.0)
    assert thread.join(10.0)
    assert [item.kind for item in slow.items if isinstance(item, Event)] == ["stalled"]


def test_events_wait_for_a_sink_to_work_again(answer, monkeypatch, until):
    monkeypatch.setattr("boardfit.runtime.camera.sinks._RETRY_S", 0.2)
    fails, items, told = [True], [], []

    class Sink(Slow):
        def write(self, item):
            if fails:
                raise SinkError("the disk is full")
            items.append(item)

    thread = SinkThread(Sink(), waits=lambda: False, tell=lambda event: told.append(event.kind))
    thread.put(answer(0))
    until(lambda: thread.dropped == 1)
    for number in range(100):
        thread.put(event(number))
        thread.put(answer(number))
    assert len(thread._queue) <= 64 + 8, "it holds no more, however long it lasts"
    time.sleep(0.5)
    fails.clear()
    until(lambda: len(items) == 64)
    assert [item.detail for item in items] == [str(number) for number in range(36, 100)]
    assert told == ["sink-failed"], "a film takes every event: only an answer tells that it works"
    thread.put(answer(200))
    until(lambda: thread.written == 1 and told[1:] == ["sink-works"])
    thread.end(10.0)
    assert thread.join(10.0) and thread.dropped == 101


def test_an_event_that_a_sink_cannot_digest_is_no_end(answer, monkeypatch, until):
    monkeypatch.setattr("boardfit.runtime.camera.sinks._RETRY_S", 0.01)

    class Sink(Slow):
        def write(self, item):
            item.frame  # noqa: B018

    thread = SinkThread(Sink(), waits=lambda: False, tell=lambda event: None)
    thread.put(event())
    time.sleep(0.1)
    thread.put(answer(1))
    until(lambda: thread.written == 1)
    thread.end(10.0)
    assert thread.join(10.0)


def test_a_sink_that_leaves_its_thread_is_an_event_and_no_end(answer, until):
    events = []

    def leave(item) -> None:
        raise SystemExit

    thread = SinkThread(leave, waits=lambda: True, tell=events.append)
    for index in range(20):  # more than may wait for it
        thread.put(answer(index))
    until(lambda: events)
    assert events[0].kind == "sink-failed" and "SystemExit" in events[0].detail
    thread.end(0.0)
    assert thread.join(5.0)


def test_a_lossless_sink_makes_the_loop_wait(answer):
    items = []

    def sink(item):
        time.sleep(0.002)
        items.append(item)

    thread = SinkThread(sink, waits=lambda: True, tell=lambda event: None)
    for index in range(40):
        thread.put(answer(index))
    thread.end(10.0)
    assert thread.join(10.0)
    assert [item.frame.index for item in items] == list(range(40)) and thread.dropped == 0


def test_a_sink_that_fails_is_an_event_and_is_tried_again(bench, model, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks._RETRY_S", 0.1)
    broken, seen, events = [True], [], []

    def sink(answer):
        if broken[0]:
            raise OSError(28, "No space left on device")
        seen.append(answer)

    with (
        camera.open(bench) as source,
        camera.loop(source, model, sinks=[sink], on_event=events.append) as running,
    ):
        for _ in running:
            if running.stats.results == 10:
                broken[0] = False
            if len(seen) >= 3:
                break
        assert running.counters["sinks_dropped"] >= 1
    told = [event for event in events if event.kind.startswith("sink")]
    assert [event.kind for event in told] == ["sink-failed", "sink-works"]
    assert "No space left" in told[0].detail
