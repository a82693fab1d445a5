from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace

import cv2
import numpy as np
import pytest

from boardfit.errors import CameraError, RecipeError
from boardfit.runtime import camera
from boardfit.runtime.camera.devices.gstreamer import size_in
from boardfit.runtime.camera.devices.opencv import V4l2Device
from boardfit.runtime.camera.records import FAULTS, WatchSettings
from boardfit.runtime.camera.source import Source

FAST = WatchSettings(
    stall_s=0.1, frozen_s=0.1, patience_s=0.05, retry_s=(0.01, 0.02), stuck_s=0.4, open_s=1.0
)


def first(source: Source, count: int = 1) -> list:
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


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
def test_a_thread_that_cannot_start_is_tried_again(fault, bench, until, monkeypatch):
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
        monkeypatch.setattr("boardfit.runtime.camera.source._SLOW_OPENING_S", 0.2)
        until(lambda: source.is_lost)
        over.set()


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


def test_a_driver_that_takes_its_time_for_a_slow_camera_does_not_hang(bench):
    bench.interval_s = 0.7
    settings = replace(FAST, stuck_s=0.3)
    with camera.open(bench, settings=settings, fps=2.0) as source:
        assert [frame.index for frame in first(source, 4)] == [0, 1, 2, 3]
        assert source.counters["stuck"] == source.counters.get("stalled", 0) == 0
    with camera.open("synthetic:64x48@1", fps=1.0) as source:
        first(source, 3)
        assert set(source.counters) == {"frames", "dropped", "stuck", "live"}


def test_a_still_picture_may_be_in_order(bench):
    with camera.open(bench, settings=FAST, still=True) as source:
        bench.fault = "frozen"
        first(source, 20)
        time.sleep(0.3)
        assert source.state == "live" and len(first(source, 10)) == 10


class Selected:
    """A capture that reads as OpenCV does from V4L2, which gives up after a while."""

    def __init__(self, gap_s: float) -> None:
        self.gap_s, self.due = gap_s, time.monotonic()

    def read(self):
        self.due = self.due or time.monotonic() + self.gap_s
        wait_s = self.due - time.monotonic()
        time.sleep(max(0.0, min(0.1, wait_s)))
        if wait_s > 0.1:
            return False, None
        self.due = 0.0
        return True, "a picture"


def test_a_v4l2_camera_may_be_slow(monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.devices.opencv._SELECT_S", 0.1)
    monkeypatch.setattr("boardfit.runtime.camera.devices.pace._LEAST_S", 0.1)
    device = V4l2Device(Selected(0.25), "/dev/null", fps=None)
    assert [device.read() for _ in range(3)] == ["a picture"] * 3
    device._capture.gap_s = 9.0
    began = time.monotonic()
    with pytest.raises(CameraError, match="gave no frame"):
        device.read()
    assert 0.5 < time.monotonic() - began < 3.0


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
    done = threading.Event()

    def end(event) -> None:
        if event.kind == "live":
            source.close()
            done.set()

    source = Source(bench, name="bench", on_event=end)
    assert done.wait(5.0)
    source._thread.join(5.0)
    assert not source._thread.is_alive() and bench.closed == 1


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


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for index in range(10):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_every_frame_of_a_file(film):
    events = []
    with camera.open(film, every_frame=True, on_event=events.append) as source:
        assert [frame.index for frame in source] == list(range(10))
        assert source.counters["dropped"] == 0
    assert [event.kind for event in events] == ["live", "ended"]


def test_a_file_that_is_opened_after_a_stream_is_whole(film):
    with pytest.raises(CameraError):
        camera.open("rtsp://127.0.0.1:9/x")
    with camera.open(film, every_frame=True) as source:
        assert len(list(source)) == 10


def test_a_file_at_its_own_speed(film):
    began = time.monotonic()
    with camera.open(str(film)) as source:
        assert [frame.index for frame in source][-1] == 9
    assert time.monotonic() - began >= 0.35


def test_a_film_that_fades_to_black_does_not_begin_anew(tmp_path):
    path = tmp_path / "fade.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    noise = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    for seen in (1, 1, *[0] * 30, 1):
        writer.write(noise * seen)
    writer.release()
    with camera.open(path) as source:
        assert [frame.index for frame in source][-1] == 32
        assert source.counters.get("garbage", 0) == 0


def test_a_folder_of_damaged_images_is_read_once(tmp_path):
    for index in range(1, 7):
        (tmp_path / f"{index}.png").write_bytes(b"broken")
    for name in ("0.png", "9.png"):
        cv2.imwrite(str(tmp_path / name), np.full((20, 20, 3), 99, np.uint8))
    with camera.open(tmp_path, fps=5.0) as source:
        assert [frame.index for frame in source] == [0, 1]
        assert source.counters["garbage"] == 1 and source.counters["ended"] == 1


def test_the_images_of_a_folder(tmp_path):
    for index, side in enumerate((20, 30, 40)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((side, side, 3), 99, np.uint8))
    (tmp_path / "1b.png").write_bytes(b"broken")
    with camera.open(tmp_path, every_frame=True) as source:
        assert [frame.image.shape[0] for frame in source] == [20, 30, 40]
        assert source.counters["garbage"] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0", "/dev/video0 is not there"),
        ("/dev/video77", "/dev/video77 is not there"),
        ("no.mp4", "no.mp4 is not there: expected a video file"),
        ("rtsp://127.0.0.1:9/x", "nobody listens on port 9"),
        ("rtsp://a..b/x", "'a..b' is no name of a host"),
        ("http://a..b/x", "'a..b' is no name of a host"),
        ("rtsp://127.0.0.1:9/\udcff", "nobody listens on port 9"),
        ("http://127.0.0.1:9/\udcff", "is not in UTF-8"),
        ("http://no-such-host.invalid/x", "there is no host no-such-host.invalid"),
        ("gst:nosuchelement", "pipeline|gst-launch"),
        ("picamera", "picamera2 cannot be imported"),
    ],
)
def test_what_is_not_there_is_named(name, text):
    with pytest.raises(CameraError, match=text):
        camera.open(name)


def test_dev_null_is_no_camera():
    with pytest.raises(CameraError, match="/dev/null is there but cannot be opened"):
        camera.open("/dev/null")


def test_a_device_of_somebody_else(monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(CameraError, match="add it to the group video"):
        camera.open("/dev/null")


def test_a_film_whose_name_is_not_utf_8(film):
    path = film.rename(film.with_name(os.fsdecode(b"fil\xff.avi")))
    for word in (path, str(path)):
        with pytest.raises(CameraError, match=r"fil\\udcff.avi' is not in UTF-8"):
            camera.open(word)


@pytest.mark.parametrize("content", [b"", b"no film"], ids=["empty", "text"])
def test_a_file_that_is_no_video(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(CameraError, match="has no frame that OpenCV can read"):
        camera.open(tmp_path / "x.mp4")


@pytest.mark.parametrize("word", ["", " ", "synthetic:", "synthetic:axb"])
def test_what_is_no_source(word):
    with pytest.raises(RecipeError, match="is no source"):
        camera.open(word)


@pytest.mark.parametrize("size", ["1x1", "17x31", "3x480"])
def test_odd_sizes(size):
    with camera.open(f"synthetic:{size}@100") as source:
        width, height = map(int, size.split("x"))
        assert first(source)[0].image.shape == (height, width, 3)


def test_a_grey_camera_gives_three_channels():
    class Grey:
        def read(self):
            time.sleep(0.01)
            return np.random.randint(0, 256, (31, 17)).astype(np.uint8)

        def close(self):
            pass

    with camera.open(Grey, settings=FAST) as source:
        assert first(source)[0].image.shape == (31, 17, 3)


@pytest.mark.parametrize("word", ["me:geheim@192.168.1.20/x", "me:ge heim@cam/x", "cam/x?pas=geheim"])
def test_an_address_without_its_scheme_shows_no_password(word, caplog):
    with pytest.raises(CameraError, match=r"\*\*\*.* is not there") as failed:
        camera.open(word)
    assert "heim" not in str(failed.value) + caplog.text


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"YUV4MPEG2 C420 W320 H240 Ip F30:1 A1:1", (320, 240)),
        (b"YUV4MPEG2 W8 H2", (8, 2)),
        (b"YUV4MPEG2 W321 H240", None),
        (b"YUV4MPEG2 C444 W320 H240", None),
        (b"YUV4MPEG2 H240", None),
        (b"", None),
        (b"\xff\x00", None),
    ],
)
def test_the_header_of_a_pipeline(header, size):
    if size is None:
        with pytest.raises(CameraError):
            size_in(header)
    else:
        assert size_in(header) == size
