"""Films, folders, devices and addresses, odd and absent ones too."""

from __future__ import annotations

import os
import time

import cv2
import numpy as np
import pytest
from watched import FAST, first

from boardfit.errors import CameraError, RecipeError
from boardfit.runtime import camera
from boardfit.runtime.camera.devices.gstreamer import size_in
from boardfit.runtime.camera.devices.opencv import V4l2Device


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
