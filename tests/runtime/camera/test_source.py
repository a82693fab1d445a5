"""A camera that is watched: outages, events, and what is left behind."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from dataclasses import replace

import pytest
from watched import FAST, first

from boardfit.errors import CameraError
from boardfit.runtime import camera
from boardfit.runtime.camera.records import FAULTS, WatchSettings
from boardfit.runtime.camera.source import Source


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_is_an_event_and_ends(fault, bench, until):
    events = []
    settings = replace(FAST, size_wh=(64, 48))
    with camera.open(bench, settings=settings, on_event=events.append) as source:
        first(source, 3)
        bench.fault = fault
        until(lambda: source.state == fault)
        time.sleep(0.3)
        bench.fault = ""
        until(lambda: source.state == "live")
        assert first(source)[0].image.shape == (48, 64, 3)
    assert [event.kind for event in events][:2] == ["live", fault]
    assert source.counters[fault] >= 1
    assert bench.opened == bench.closed


@pytest.mark.parametrize(
    "cycles",
    [60, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(3000)])],
    ids=["short", "long"],
)
def test_outages_leave_nothing_behind(cycles, new_bench, until, held):
    bench = new_bench(interval_s=0.0005)
    settings = WatchSettings(
        stall_s=0.02, frozen_s=0.02, patience_s=0.01, retry_s=(0.001, 0.002), stuck_s=2.0, open_s=2.0
    )
    with camera.open(bench, settings=settings) as source:
        first(source)
        before = held()
        for _ in range(cycles):
            bench.fault = "unplugged"
            until(lambda: source.state == "unplugged")
            bench.fault = ""
            until(lambda: source.state == "live")
        assert held() == before
        assert source.counters["unplugged"] == cycles
        assert bench.opened - bench.closed == 1


def test_sources_leave_nothing_behind(held):
    before = held()
    for _ in range(20):
        with camera.open("synthetic:64x48@200") as source:
            first(source, 2)
    assert held() == before


def test_old_frames_give_way_to_new_ones():
    with camera.open("synthetic:64x48@200") as source:
        first(source)
        time.sleep(0.2)
        frame = source.take(1.0)
        assert frame is not None and frame.index >= 20
        assert time.monotonic() - frame.time_s < 0.1
        assert source.counters["dropped"] >= 19


def test_the_first_failure_is_raised_and_nothing_stays(bench, held):
    before = held()
    bench.fault = "unplugged"
    with pytest.raises(CameraError, match="no such camera"):
        camera.open(bench, settings=FAST)
    assert held() == before


def test_why_no_frame_is_good_enough_is_told(bench, held):
    before = held()
    settings = replace(FAST, size_wh=(640, 480), first_frame_s=0.2, open_s=0.3)
    with pytest.raises(CameraError, match="a frame of 64x48 pixels where 640x480 are due"):
        camera.open(bench, settings=settings)
    assert held() == before


def test_a_still_picture_may_be_in_order(bench):
    with camera.open(bench, settings=FAST, still=True) as source:
        bench.fault = "frozen"
        first(source, 20)
        time.sleep(0.3)
        assert source.state == "live" and len(first(source, 10)) == 10


def test_one_may_wait_for_a_camera(bench):
    bench.fault = "unplugged"
    with camera.open(bench, settings=FAST, wait=True) as source:
        assert source.take(0.05) is None
        bench.fault = ""
        assert first(source)


def test_what_a_driver_throws_is_an_outage():
    def driver():
        raise ZeroDivisionError("oh, rtsp://me:geheim@cam")

    with pytest.raises(
        CameraError, match=r"the driver failed: ZeroDivisionError: oh, rtsp://\*\*\*@cam"
    ) as failed:
        camera.open(driver, settings=FAST)
    assert "geheim" not in "".join(traceback.format_exception(failed.value))


def test_a_driver_that_fails_over_its_end_is_opened_again(bench, until):
    def opener():
        device = bench()
        device.close = lambda: 1 / 0
        return device

    with camera.open(opener, settings=FAST) as source:
        first(source)
        bench.fault = "unplugged"
        until(lambda: source.state == "unplugged")
        bench.fault = ""
        until(lambda: source.state == "live")
        assert bench.opened == 2


def test_a_listener_may_close_the_camera(bench):
    bound, done = threading.Event(), threading.Event()

    def end(event) -> None:
        if event.kind == "live" and bound.wait(5.0):
            source.close()
            done.set()

    source = Source(bench, name="bench", on_event=end)
    bound.set()
    assert done.wait(5.0)
    source._thread.join(5.0)
    assert not source._thread.is_alive() and bench.closed == 1


def test_a_slow_listener_hears_events_in_their_order(bench, until):
    heard = []

    def listen(event) -> None:
        time.sleep(0.3 if event.kind != "live" else 0.0)
        heard.append(event)

    with camera.open(bench, settings=FAST, on_event=listen) as source:
        bench.fault = "stalled"
        until(lambda: source.state == "stalled")
        bench.fault = ""
        until(lambda: source.state == "live")
        until(lambda: len(heard) >= 3)
    assert [event.kind for event in heard[:3]] == ["live", "stalled", "live"]
    assert [event.time_s for event in heard] == sorted(event.time_s for event in heard)


def test_a_listener_that_fails_harms_nobody(caplog, bench):
    def listener(event):
        raise ZeroDivisionError

    with camera.open(bench, settings=FAST, on_event=listener) as source:
        assert first(source, 3)
    assert "a listener to camera events failed" in caplog.text


def test_events_are_logged(caplog, bench, until):
    with caplog.at_level(logging.INFO, "boardfit"), camera.open(bench, settings=FAST) as source:
        first(source)
        bench.fault = "unplugged"
        until(lambda: source.state == "unplugged")
    assert "unplugged, gone" in caplog.text
