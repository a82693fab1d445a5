"""What OpenCV reads: network streams and video files through FFmpeg, and V4L2 cameras."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from boardfit.errors import CameraError
from boardfit.names import without_password
from boardfit.runtime.camera.devices import StreamEnded
from boardfit.runtime.camera.devices.pace import Pace
from boardfit.runtime.camera.devices.reach import require_answer, unreachable
from boardfit.runtime.camera.records import silence_s

OPEN_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 3.0
"""For a first key frame, or longer; that nothing comes is noticed long before, by the watch."""
_SELECT_S = 1.0
"""V4L2's own timeout, the same for all cameras of a process."""

# A fifth of a second to find out what the stream is, where FFmpeg takes two; and no reordering queue. Files
# that are opened later get the same: "fflags;nobuffer" would take their first frame.
_STREAM_OPTIONS = "rtsp_transport;tcp|analyzeduration;200000|max_delay;0"
_DEFAULT_FPS = 25.0
_LOOK_EVERY_S = 0.25
_ERRORS_ONLY = 2
"""OpenCV's LOG_LEVEL_ERROR."""


class CvDevice:
    """A ``cv2.VideoCapture`` that says what is wrong."""

    def __init__(self, capture: cv2.VideoCapture, name: str) -> None:
        """Take an open capture.

        Args:
            capture: Open.
            name: For messages, without any password.
        """
        self._capture = capture
        self._name = name

    def read(self) -> object:
        """Wait for the next picture; see ``Device.read``."""
        found, image = self._next()
        if not found:
            raise CameraError(f"{self._name} gave no frame: is the camera, or its server, still on?")
        return image

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()

    def _next(self) -> tuple[bool, object]:
        return self._capture.read()


class _Stream(CvDevice):
    """Read by FFmpeg, which was given its timeout when it was opened."""

    def __init__(self, capture: cv2.VideoCapture, name: str, *, timeout_s: float) -> None:
        super().__init__(capture, name)
        self._timeout_s = timeout_s

    def _next(self) -> tuple[bool, object]:
        began = time.monotonic()
        found, image = self._capture.read()
        took_s = time.monotonic() - began
        if found and took_s > 0.95 * self._timeout_s:
            # FFmpeg gave up waiting, and its decoder let go of an old picture.
            raise CameraError(f"{self._name} gave no frame for {took_s:.1f} s")
        return found, image


class V4l2Device(CvDevice):
    """A V4L2 camera. OpenCV may go on returning the last frame when it is gone."""

    def __init__(self, capture: cv2.VideoCapture, path: str, *, fps: float | None) -> None:
        """Take an open capture.

        Args:
            capture: Open.
            path: The camera's file.
            fps: Frames per second, where they are known: a slow camera is read for longer.
        """
        super().__init__(capture, path)
        self._pace = Pace(fps)
        self._looked_at = 0.0

    def _next(self) -> tuple[bool, object]:
        until = time.monotonic() + self._pace.wait_s()
        while True:
            began = time.monotonic()
            found, image = self._capture.read()
            now = time.monotonic()
            if not found or now - self._looked_at > _LOOK_EVERY_S:
                self._looked_at = now
                if not Path(self._name).exists():
                    raise CameraError(f"{self._name} is gone: plug it in again")
            if found:
                self._pace.came()
            timed_out = not found and now - began > 0.9 * _SELECT_S
            if not timed_out or now > until - 0.1 * _SELECT_S:
                return found, image


class FileDevice:
    """A video file, at its own speed or as fast as it can be read."""

    def __init__(self, path: Path, *, real_time: bool) -> None:
        """Open the file.

        Raises:
            CameraError: It is not there, may not be read, or has no frame that OpenCV can read.
        """
        name = without_password(str(path))  # an address without its scheme looks like a file
        if not path.is_file():
            raise CameraError(f"{name} is not there: expected a video file, or an address such as rtsp://...")
        if not os.access(path, os.R_OK):
            raise CameraError(f"{name} may not be read by this user: chmod +r, or run as its owner")
        self._name = name
        self._capture = capture_of(str(path))
        self._interval_s = 1.0 / _fps_of(self._capture)
        self._real_time = real_time
        self._due = time.monotonic()
        self._count = 0

    def read(self) -> object:
        """Return the next picture, when it is due; see ``Device.read``."""
        found, image = self._capture.read()
        if not found and self._count == 0:
            raise CameraError(f"{self._name} has no frame that OpenCV can read: expected a whole video file")
        if not found:
            raise StreamEnded
        self._count += 1
        if self._real_time:
            self._due = max(self._due + self._interval_s, time.monotonic() - 1.0)
            time.sleep(max(0.0, self._due - time.monotonic()))
        return image

    def close(self) -> None:
        """Release the file."""
        self._capture.release()


def capture_of(address: str, *options: Any) -> cv2.VideoCapture:
    """Return OpenCV's capture, open or not, without its lines in the log.

    Args:
        address: Of a stream, a file or a device.
        options: As ``cv2.VideoCapture`` takes them: which of its readers, and settings.

    Raises:
        CameraError: The address is not in UTF-8.
    """
    try:
        address.encode()
    except UnicodeEncodeError:  # OpenCV 5.0 takes the process down
        name = repr(without_password(address))
        raise CameraError(f"{name} is not in UTF-8, which OpenCV cannot read: give it another name") from None
    with _quiet():
        return cv2.VideoCapture(address, *options)


def video_fps(path: Path) -> float:
    """Return the frames per second of a video file; 25 where it does not tell."""
    capture = capture_of(str(path))
    fps = _fps_of(capture)
    capture.release()
    return fps


def _fps_of(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0.5 <= fps <= 1000.0 else _DEFAULT_FPS


def open_stream(url: str, *, fps: float | None = None) -> CvDevice:
    """Open RTSP, MJPEG over HTTP, or whatever else FFmpeg reads from a network.

    Args:
        url: May hold a user and a password, which no message repeats.
        fps: Frames per second, where they are known: FFmpeg waits longer for a slow camera.

    Raises:
        CameraError: The stream cannot be opened, with the reason where it can be found out.
    """
    # OpenCV takes them from the environment only, when a capture is made; never set back, for other threads.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", _STREAM_OPTIONS)
    name = without_password(url)
    if url.startswith("rtsp://"):
        require_answer(url, name)
    timeout_s = max(READ_TIMEOUT_S, silence_s(fps))
    open_s = max(OPEN_TIMEOUT_S, silence_s(fps))  # FFmpeg opens nothing before a whole picture came
    settings = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(open_s * 1e3),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(timeout_s * 1e3),
    }
    if hasattr(cv2, "CAP_PROP_N_THREADS"):  # not in OpenCV 4.6; each further one delays by a frame
        settings[cv2.CAP_PROP_N_THREADS] = 1
    capture = capture_of(url, cv2.CAP_FFMPEG, [item for pair in settings.items() for item in pair])
    if not capture.isOpened():
        capture.release()
        raise unreachable(url, name)
    return _Stream(capture, name, timeout_s=timeout_s)


def open_v4l2(path: str, *, size_wh: tuple[int, int] | None, fps: float | None) -> CvDevice:
    """Open a V4L2 camera, such as one on USB.

    Args:
        path: Such as ``/dev/video0``; better one below ``/dev/v4l/by-id``, which is the same at any port.
        size_wh: Width and height to ask for; None for the driver's choice.
        fps: Frames per second to ask for; None likewise.

    Raises:
        CameraError: It is not there, belongs to another user or program, or is no camera.
    """
    if not Path(path).exists():
        there = ", ".join(sorted(str(found) for found in Path("/dev").glob("video*"))) or "none"
        raise CameraError(f"{path} is not there (cameras: {there}): plug the camera in, or give another one")
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraError(f"{path} may not be used by this user: add it to the group video, and log in anew")
    # Read once per process; OpenCV's ten seconds would hold the camera's thread.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{_SELECT_S:g}")
    capture = capture_of(path, cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise CameraError(f"{path} is there but cannot be opened: another program has it, or it is no camera")
    for setting, value in _wishes(size_wh, fps):
        capture.set(setting, value)
    return V4l2Device(capture, path, fps=fps)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's line on every failed attempt out of the log: an outage may take days."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own lines; taken when it is first used
    logging = getattr(cv2.utils, "logging", cv2)  # OpenCV 4.6 has the two functions at its top, and no names
    before = logging.getLogLevel()
    logging.setLogLevel(_ERRORS_ONLY)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _wishes(size_wh: tuple[int, int] | None, fps: float | None) -> Sequence[tuple[int, float]]:
    wishes: list[tuple[int, float]] = [(cv2.CAP_PROP_BUFFERSIZE, 1)]
    if size_wh is not None:
        wishes += [(cv2.CAP_PROP_FRAME_WIDTH, size_wh[0]), (cv2.CAP_PROP_FRAME_HEIGHT, size_wh[1])]
    if fps is not None:
        wishes.append((cv2.CAP_PROP_FPS, fps))
    return wishes
