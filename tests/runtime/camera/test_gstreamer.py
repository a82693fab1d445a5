"""GStreamer pipelines: a child process that is asked to end, and does not outlive its owner."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boardfit.errors import CameraError
from boardfit.runtime import camera
from boardfit.runtime.camera.devices.gstreamer import GStreamerDevice


def running_pipelines() -> list[int]:
    """Return the process ids of this process's children that run GStreamer."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            number, _, rest = stat.read_text().partition(" ")
            name, _, fields = rest.rpartition(") ")
            if name.startswith("(gst-launch") and fields.split()[1] == str(os.getpid()):
                found.append(int(number))
    return found


@pytest.fixture
def stand_in_gst(tmp_path, monkeypatch):
    """Makes a program that stands in for gst-launch-1.0: it writes one picture, and does as it is told."""

    def write(then: str, *, first: str = "") -> None:
        program = tmp_path / "gst-launch-1.0"
        header, picture = r"YUV4MPEG2 C420 W8 H2\n", r"FRAME\nabcdefghijklmnopqrstuvwx"
        program.write_text(f"#!/bin/sh\n{first}\npicture='{picture}'\nprintf '{header}{picture}'\n{then}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return write


def test_a_pipeline_may_be_slow(stand_in_gst):
    stand_in_gst('for _ in 1 2; do sleep 1.3; printf "$picture"; done; exec sleep 60')
    device = GStreamerDevice("nvarguscamerasrc")
    try:
        assert [device.read().shape for _ in range(3)] == [(2, 8, 3)] * 3
    finally:
        device.close()


STAND_IN = """#!{python}
import os, signal, sys, time
ends_at = float("inf")
def end(*_):
    global ends_at
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ends_at = time.monotonic() + 0.04
signal.signal(signal.SIGINT, end)
picture = b"FRAME\\n" + bytes({width} * {height} * 3 // 2)
to_write = b"YUV4MPEG2 C420 W{width} H{height}\\n" + picture
while time.monotonic() < ends_at:
    while to_write:
        to_write = to_write[os.write(1, to_write):]
    {then}
os._exit(7)
"""
FLOW = "to_write = picture; time.sleep(0.01)"
SILENT = "time.sleep(0.01)"


@pytest.fixture
def orderly_gst(tmp_path, monkeypatch):
    """Makes a program that ends as gst-launch-1.0 does: a little after a SIGINT, once its picture is written.

    A second SIGINT kills it.
    """

    def write(then: str, size_wh: tuple[int, int] = (8, 2)) -> None:
        program = tmp_path / "gst-launch-1.0"
        width, height = size_wh
        program.write_text(STAND_IN.format(python=sys.executable, width=width, height=height, then=then))
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return write


class Opener:
    """Opens devices, and keeps them."""

    def __init__(self, pipeline: str = "nvarguscamerasrc") -> None:
        self.pipeline = pipeline
        self.devices: list[GStreamerDevice] = []

    def __call__(self) -> GStreamerDevice:
        self.devices.append(GStreamerDevice(self.pipeline))
        return self.devices[-1]

    def ends(self) -> list[int | None]:
        return [device._process.poll() for device in self.devices]


@pytest.mark.parametrize("size_wh", [(8, 2), (1920, 1080)], ids=["small", "larger than the pipe"])
@pytest.mark.parametrize("then", [FLOW, SILENT], ids=["frames flow", "silent"])
def test_a_pipeline_ends_in_its_own_way(then, size_wh, orderly_gst, until, held, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.devices.gstreamer._END_S", 2.0)  # for a busy machine
    orderly_gst(then, size_wh)
    before = held()
    opener = Opener()
    camera.open(opener).close()
    until(lambda: None not in opener.ends())
    assert opener.ends() == [7]
    until(lambda: held() == before)


def test_a_pipeline_that_is_not_interrupted_ends_in_its_own_way(orderly_gst, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.devices.gstreamer._END_S", 2.0)
    orderly_gst(FLOW)
    device = GStreamerDevice("nvarguscamerasrc")
    device.read()
    device.close()
    assert device._process.poll() == 7
    other = GStreamerDevice("nvarguscamerasrc")
    device.close()
    other.read()
    other.close()
    assert other._process.poll() == 7


def test_interrupting_waits_for_nothing_and_wakes_the_reader(stand_in_gst):
    stand_in_gst("exec sleep 60", first="trap '' INT TERM")
    device = GStreamerDevice("nvarguscamerasrc")
    device.read()
    began = time.monotonic()
    device.interrupt()
    assert time.monotonic() - began < 0.1  # less than the child is given to end
    with pytest.raises(CameraError, match="was told to end"):
        device.read()
    device.close()
    assert time.monotonic() - began < 0.6  # instead of the second for which a read may wait
    assert device._process.poll() == -signal.SIGKILL


def test_pipelines_end_together(stand_in_gst, until):
    stand_in_gst("exec sleep 60", first="trap '' INT TERM")
    openers = [Opener() for _ in range(6)]
    sources = [camera.open(opener, name=str(index)) for index, opener in enumerate(openers)]
    began = time.monotonic()
    camera.close_all(sources)
    assert time.monotonic() - began < 0.5  # 0.15 s for all of them; one after another, 0.9 s
    until(lambda: all(opener.ends() == [-signal.SIGKILL] for opener in openers))


def test_no_pipeline_is_left_behind_where_a_camera_is_silent(stand_in_gst, until):
    stand_in_gst("exec sleep 60", first="trap '' INT TERM")
    opener, events = Opener(), []
    source = camera.open(opener, on_event=events.append)
    time.sleep(0.3)
    source.close()
    until(lambda: opener.ends() == [-signal.SIGKILL], 1.0)
    assert [event.kind for event in events] == ["live"], "the end is no outage"


OWNER = """
import os, sys, threading, time
from boardfit.runtime.camera.devices.gstreamer import GStreamerDevice
devices = []
def start():
    devices.append(GStreamerDevice("nvarguscamerasrc"))
    devices[0].read()
starter = threading.Thread(target=start)
starter.start()
starter.join()
assert devices[0]._process.poll() is None, "it ended with the thread that started it"
copy = os.fork() if sys.argv[1] == "forked" else 0
if copy or sys.argv[1] == "alone":
    print(devices[0]._process.pid, copy, flush=True)
time.sleep(60.0)
"""


@pytest.mark.parametrize("how", ["alone", "forked"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_no_pipeline_outlives_its_owner(number, how, stand_in_gst, until):
    """One that is silent, and so meets no broken pipe."""
    stand_in_gst("exec sleep 60", first="trap '' INT TERM HUP PIPE IO")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child, copy = map(int, owner.stdout.readline().split())
    try:
        assert runs(child)
        owner.send_signal(number)
        owner.wait()
        until(lambda: not runs(child), 2.0)
    finally:
        owner.stdout.close()
        for left in filter(None, (child, copy)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="GStreamer is not installed")
class TestGStreamer:
    PIPELINE = "gst:videotestsrc is-live=true pattern=ball ! video/x-raw,width={},height={},framerate=30/1"

    @pytest.mark.parametrize("size_wh", [(320, 240), (328, 242)], ids=str)
    def test_frames_come(self, size_wh):
        with camera.open(self.PIPELINE.format(*size_wh)) as source:
            frame = source.take(5.0)
            assert frame is not None and frame.image.shape == (size_wh[1], size_wh[0], 3)

    @pytest.mark.parametrize("size_wh", [(320, 240), (1920, 1080)], ids=str)
    def test_it_ends_in_its_own_way(self, size_wh, until):
        opener = Opener(self.PIPELINE.format(*size_wh).removeprefix("gst:"))
        camera.open(opener).close()
        until(lambda: None not in opener.ends())
        assert opener.ends() == [0]

    def test_colours(self):
        pipeline = "gst:videotestsrc is-live=true pattern=solid-color foreground-color=0xff2040c0"
        with camera.open(f"{pipeline} ! video/x-raw,width=64,height=48,framerate=30/1") as source:
            frame = source.take(5.0)
            assert frame is not None
            blue, green, red = frame.image[24, 32].tolist()
            assert abs(blue - 0xC0) < 6 and abs(green - 0x40) < 6 and abs(red - 0x20) < 6

    def test_a_pipeline_that_dies_is_started_again(self, until, held):
        with camera.open(self.PIPELINE.format(64, 48)) as source:
            until(lambda: source.counters["frames"] > 2)
            before = held()
            pipelines = running_pipelines()
            assert len(pipelines) == 1
            os.kill(pipelines[0], signal.SIGKILL)
            until(lambda: source.counters.get("unplugged") == 1 and source.state == "live")
            assert held() == before
        assert running_pipelines() == []

    def test_a_pipeline_that_hangs_is_a_stall(self, until):
        with camera.open(self.PIPELINE.format(64, 48)) as source:
            until(lambda: source.counters["frames"] > 2)
            os.kill(running_pipelines()[0], signal.SIGSTOP)
            until(lambda: source.counters.get("stalled") == 1)
            until(lambda: source.state == "live")
        assert running_pipelines() == []

    def test_a_pipeline_that_ends(self):
        with camera.open("gst:videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48") as source:
            until_s = time.monotonic() + 10.0
            while not source.ended:
                source.take(0.1)
                assert time.monotonic() < until_s
            assert source.counters["frames"] == 5

    def test_still_pictures_of_a_pipeline_that_ends_are_no_fault(self):
        """Of a film, that is: it was taken for a frozen camera, and begun anew."""
        still = "videotestsrc is-live=true num-buffers=50 pattern=smpte75 ! video/x-raw,width=64,height=48"
        with camera.open(f"gst:{still},framerate=25/1", every_frame=True) as source:
            assert [frame.index for frame in source] == list(range(50))
            assert set(source.counters) <= {"frames", "dropped", "stuck", "live", "ended"}
