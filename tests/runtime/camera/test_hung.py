"""Drivers that do not come back, threads that cannot start, and the end beside them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from watched import FAST, PICTURE, first

from boardfit.errors import CameraError
from boardfit.runtime import camera
from boardfit.runtime.camera.devices import StreamEnded


def test_a_driver_that_hangs_is_left_behind(bench, until):
    events = []
    with camera.open(bench, settings=FAST, on_event=events.append) as source:
        first(source, 3)
        bench.fault = "stuck"
        until(lambda: source.counters["stuck"] == 3)
        time.sleep(1.0)
        assert source.counters["stuck"] == 3, "more threads are left behind than are allowed"
        source.take(0.0)
        began = time.monotonic()
        assert source.take(0.1) is None
        assert time.monotonic() - began < 5.0
        bench.fault = ""
        bench.mended.set()
        until(lambda: source.state == "live")
        assert first(source)
    until(lambda: bench.opened == bench.closed)
    assert {"stalled", "stuck"} <= {event.kind for event in events}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("where", ["as_bgr", "Capture.step"], ids=["a frame", "the thread"])
def test_what_fails_in_the_thread_is_no_end(where, bench, until, monkeypatch):
    with camera.open(bench, settings=FAST) as source:
        first(source, 3)
        failed = []

        def fail(*_):
            failed.append(True)
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(f"boardfit.runtime.camera.capture.{where}", fail)
            until(lambda: failed)
        count = source.counters["frames"]
        until(lambda: source.state == "live" and source.counters["frames"] > count + 5)
    until(lambda: bench.opened == bench.closed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", ["stuck", "unplugged"])
def test_a_thread_that_cannot_start_is_tried_again(fault, bench, until, monkeypatch, caplog):
    start, refused = threading.Thread.start, []

    def fail(thread):
        if thread.name.startswith("read"):
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    source = camera.open(bench, settings=FAST)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        bench.fault = fault
        if fault == "unplugged":
            patch.setattr("boardfit.runtime.camera.capture.Capture.step", lambda _: 1 / 0)
        until(lambda: len(refused) > 1)
        assert source.counters["stuck"] == 0
        source._join(time.monotonic())
        time.sleep(0.5)
    assert caplog.text.count("the watch failed") < 5  # not with every tick
    bench.fault = ""
    until(lambda: source.state == "live" and source.counters["stuck"] == (fault == "stuck"))
    source.close()
    bench.mended.set()


def test_a_camera_whose_opening_is_slow_is_not_lost(until, monkeypatch):
    over = threading.Event()

    def opener():
        over.wait(20.0)
        raise CameraError("no name server")

    settings = replace(FAST, open_s=0.1)
    with camera.open(opener, settings=settings, wait=True) as source:
        until(lambda: source.counters["stuck"] == 3)
        time.sleep(0.5)
        assert not source.is_lost
        monkeypatch.setattr("boardfit.runtime.camera.source._SLOW_S", 0.2)
        until(lambda: source.is_lost)
        over.set()


def test_opening_again_may_take_as_long_as_opening(until):
    times_s = [0.0, 0.6]

    class Once:
        def read(self):
            if self.given:
                raise CameraError("gone")
            self.given = True
            return PICTURE

        given = False
        close = staticmethod(lambda: None)

    def opener():
        time.sleep(times_s.pop(0) if times_s else 0.0)
        return Once()

    settings = replace(FAST, stuck_s=0.2, open_s=5.0)
    with camera.open(opener, settings=settings, still=True) as source:
        until(lambda: source.counters["frames"] >= 3)
        assert source.counters["stuck"] == 0


def test_a_camera_that_lived_is_not_lost_while_it_is_opened_again(until, monkeypatch):
    lives, over = [True], threading.Event()

    class Once:
        read = staticmethod(lambda: PICTURE if lives and lives.pop() else 1 / 0)
        close = staticmethod(lambda: None)

    def opener():
        if not lives:
            over.wait(20.0)
            raise CameraError("no name server")
        return Once()

    with camera.open(opener, settings=replace(FAST, open_s=0.1)) as source:
        until(lambda: source.counters["stuck"] == 3)
        time.sleep(0.5)
        assert not source.is_lost
        monkeypatch.setattr("boardfit.runtime.camera.source._SLOW_S", 0.2)
        until(lambda: source.is_lost)
        source.close()
        assert not source.is_lost, "nobody waits for one that was closed"
        over.set()


def test_a_camera_that_hangs_as_it_is_closed_is_lost_soon(until):
    over = threading.Event()

    class Jams:
        read = staticmethod(lambda: None)  # garbage: it is opened again
        close = staticmethod(lambda: over.wait(20.0) and None)

    settings = replace(FAST, open_s=0.1, stuck_s=0.1)
    with camera.open(Jams, settings=settings, wait=True) as source:
        until(lambda: source.is_lost)
        over.set()


def test_a_listener_that_holds_the_camera_for_good_is_no_sign_of_life(bench, until, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr("boardfit.runtime.camera.source._SLOW_S", 0.2)
    with camera.open(bench, settings=FAST, on_event=lambda event: over.wait(20.0)) as source:
        until(lambda: source.is_lost)
        over.set()
        until(lambda: not source.is_lost)


def test_a_listener_that_leaves_the_thread_ends_no_watch(bench, until):
    def leave(event) -> None:
        raise SystemExit

    with camera.open(bench, settings=FAST, on_event=leave) as source:
        for fault in ("stalled", "unplugged"):
            bench.fault = fault
            until(lambda: source.state in ("stalled", "unplugged"))
            bench.fault = ""
            until(lambda: source.state == "live")


def test_a_slow_listener_keeps_nobody_from_watching(bench, until):
    def slow(event) -> None:
        time.sleep(0.2)

    with camera.open(bench, settings=FAST, on_event=slow) as source:
        for _ in range(100):  # faster than the listener
            bench.fault = "" if bench.fault else "garbage"
            time.sleep(0.02)
        bench.fault = "stuck"
        until(lambda: source.counters["stuck"] >= 1)
        assert len(source._watch.events) < 10
        bench.mended.set()


def test_a_reader_that_was_left_behind_does_not_end_the_film_of_the_next(bench, until):
    hung = threading.Event()

    class Late:
        def read(self):
            hung.wait(20.0)
            raise StreamEnded

        close = staticmethod(lambda: None)

    late = [Late()]
    with camera.open(lambda: late.pop() if late else bench(), settings=FAST, wait=True) as source:
        until(lambda: source.state == "live")
        hung.set()
        until(lambda: not source._given_up)
        before = source.counters["frames"]
        until(lambda: source.counters["frames"] > before)
        assert source.take(1.0) is not None


def test_a_driver_that_hangs_does_not_hold_the_end(bench, until):
    source = camera.open(bench, settings=FAST)
    first(source)
    bench.fault = "stuck"
    time.sleep(0.1)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 10.0
    bench.mended.set()
    until(lambda: bench.opened == bench.closed)


def test_a_listener_that_blocks_does_not_hold_the_end(bench, until):
    told, over = [], threading.Event()

    def listener(event):
        told.append(event.kind)
        if event.kind == "stalled":  # from the thread that watches
            over.wait(20.0)

    source = camera.open(bench, settings=FAST, on_event=listener)
    bench.fault = "stuck"
    until(lambda: "stalled" in told)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 5.0
    over.set()
    bench.mended.set()


def test_the_end_waits_for_a_driver_that_was_left_behind(bench, until):
    source = camera.open(bench, settings=FAST)
    bench.fault = "stuck"
    until(lambda: source.counters["stuck"])
    left_behind = source._given_up[0]
    bench.fault = ""
    threading.Timer(0.3, bench.mended.set).start()
    camera.close_all([source], timeout_s=10.0)
    assert not left_behind.is_alive()


def test_silent_cameras_end_together(new_bench, until):
    benches = [new_bench() for _ in range(6)]
    sources = [camera.open(bench, settings=FAST, name=str(index)) for index, bench in enumerate(benches)]
    for bench in benches:
        bench.fault = "stuck"
    time.sleep(0.1)
    began = time.monotonic()
    camera.close_all(sources)
    assert time.monotonic() - began < 0.7  # 0.2 s for all of them
    for bench in benches:
        bench.mended.set()
    until(lambda: all(bench.opened == bench.closed for bench in benches))


def test_a_driver_that_takes_its_time_for_a_slow_camera_does_not_hang(bench):
    bench.interval_s = 0.7
    settings = replace(FAST, stuck_s=0.3)
    with camera.open(bench, settings=settings, fps=2.0) as source:
        assert [frame.index for frame in first(source, 4)] == [0, 1, 2, 3]
        assert source.counters["stuck"] == source.counters.get("stalled", 0) == 0
    with camera.open("synthetic:64x48@1", fps=1.0) as source:
        first(source, 3)
        assert set(source.counters) == {"frames", "dropped", "stuck", "live"}


LEFT_OPEN = """
import sys, time, types, cv2, numpy as np
from boardfit.runtime import camera
large = np.zeros((1500, 1500, 3), np.float32)
class Slow:
    def read(self):
        cv2.GaussianBlur(large, (0, 0), 15)
        return np.random.randint(0, 256, (48, 64, 3)).astype(np.uint8)
    def close(self):
        pass
class Late:
    def __del__(self, sleep=time.sleep):
        sleep(1.0)  # while the interpreter ends
sys.modules["late"] = types.ModuleType("late")
sys.modules["late"].late = Late()
source = camera.open(Slow)
assert source.take(5.0) is not None
"""


def test_a_reader_that_is_inside_opencv_at_the_end_does_no_harm():
    """Where it comes back while the interpreter ends, the process was aborted."""
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
