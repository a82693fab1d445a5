"""A GStreamer pipeline in a child process, for cameras that only GStreamer reads (Jetson's CSI).

OpenCV's wheels have no GStreamer, and a pipeline that hangs in a driver can be killed only with its process.
The pictures come through a pipe as YUV4MPEG2, whose header tells the size. The Jetson elements themselves
(``nvarguscamerasrc``) were not run on hardware: written against NVIDIA's documentation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time

import cv2
import numpy as np

from boardfit.errors import CameraError
from boardfit.runtime.camera.devices import StreamEnded
from boardfit.runtime.camera.devices.pace import Pace

# BT.601 is what OpenCV's I420 conversion takes a picture for. The sides are those at which GStreamer pads no
# row: y4menc of GStreamer 1.22 writes the padding out. Cameras have such sides; others are scaled.
_CAPS = "video/x-raw,format=I420,colorimetry=bt601,width=[8,16384,8],height=[2,16384,2]"
_TAIL = f"videoconvert ! videoscale ! {_CAPS} ! y4menc ! fdsink fd=1 sync=false"
_MAX_HEADER = 4096
_PIPE_BYTES = 1 << 20
_FIRST_S = 5.0
_LOOK_S = 0.05
_END_S = 0.15
"""From SIGINT to SIGKILL; less than ``close_all`` gives the readers of all cameras."""


class GStreamerDevice:
    """Reads what ``gst-launch-1.0`` writes; no read takes longer than its timeout."""

    def __init__(self, pipeline: str, *, ends: bool = False, fps: float | None = None) -> None:
        """Start the pipeline.

        Args:
            pipeline: Without a sink: ``v4l2src device=/dev/video0 ! video/x-raw,width=640,height=480``.
            ends: Whether the pipeline's end is that of a file, and no fault.
            fps: Frames per second, where they are known: a slow camera is given longer.

        Raises:
            CameraError: GStreamer is not installed, or the pipeline is malformed.
        """
        if shutil.which("gst-launch-1.0") is None:
            raise CameraError("a GStreamer pipeline needs gst-launch-1.0: apt install gstreamer1.0-tools")
        self._ends = ends
        self._pace = Pace(fps)
        self._buffer = bytearray()
        self._size_wh: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._ends_by: float | None = None
        self._process, self._held_fd = _started(
            ["gst-launch-1.0", "-q", *shlex.split(f"{pipeline} ! {_TAIL}")]
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        with contextlib.suppress(OSError, AttributeError):  # a larger pipe only saves wake-ups
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def read(self) -> object:
        """Wait for the next picture; see ``Device.read``."""
        wait_s = self._pace.wait_s()
        deadline = time.monotonic() + (max(_FIRST_S, wait_s) if self._size_wh is None else wait_s)
        if self._size_wh is None:
            self._size_wh = size_in(self._line(deadline))
        if not self._line(deadline).startswith(b"FRAME"):
            raise CameraError("the pipeline's pictures are out of step")
        width, height = self._size_wh
        planes = np.frombuffer(self._bytes(width * height * 3 // 2, deadline), np.uint8)
        self._pace.came()
        return cv2.cvtColor(planes.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420)

    def interrupt(self) -> None:
        """Ask the child to end, and wait for nothing: a read under way raises soon."""
        self._ask_to_end()

    def close(self) -> None:
        """End the child: asked first, then killed."""
        ends_by = self._ask_to_end()
        while (left_s := ends_by - time.monotonic()) > 0.0 and self._process.poll() is None:
            # What it still writes is read: gst-launch that waits for room in the pipe does not end.
            ready, _, _ = select.select([self._pipe], [], [], min(left_s, _LOOK_S))
            if ready and not os.read(self._pipe, _PIPE_BYTES):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(left_s)
                break
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        _let_go(self._held_fd)
        self._held_fd = -1  # the next pipeline may get its number

    def _ask_to_end(self) -> float:
        """Send SIGINT, once, and return until when the child may take to end.

        It is gst-launch's own way to end; the first one takes its handler away, and a second one kills.
        """
        with self._lock:
            if self._ends_by is None:
                self._process.send_signal(signal.SIGINT)
                self._ends_by = time.monotonic() + _END_S
            return self._ends_by

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_HEADER:
                raise CameraError("the pipeline writes no YUV4MPEG2: leave its sink out")
            self._fill(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _bytes(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(deadline)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _fill(self, deadline: float) -> None:
        while not select.select([self._pipe], [], [], max(0.0, min(deadline - time.monotonic(), _LOOK_S)))[0]:
            if self._ends_by is not None:
                raise CameraError("the pipeline was told to end")
            if time.monotonic() >= deadline:
                raise CameraError("the pipeline gave no frame in time")
        piece = os.read(self._pipe, _PIPE_BYTES)
        if not piece:
            if self._ends and self._size_wh is not None:
                raise StreamEnded
            raise CameraError("the pipeline ended: try it with gst-launch-1.0 to see why")
        self._buffer += piece


def _started(words: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a child that the kernel kills when this process dies, however it does.

    The child has the read end of a pipe into which nobody writes; when the last writer is gone, the kernel
    sends it the signal that was asked for. PR_SET_PDEATHSIG would need Python code between fork and exec, and
    fires when the *thread* ends. An owner that dies while this function runs, a few milliseconds, leaves a
    child that is silent behind; one that gives frames ends over the broken pipe.

    Returns:
        The child, and the write end, for ``_let_go``.
    """
    lifeline_fd, held_fd = os.pipe()
    _HELD.add(held_fd)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may name a location with a password: it is kept for nobody
            start_new_session=True,  # Ctrl-C is for the loop, which closes its cameras itself
            pass_fds=(lifeline_fd,),
        )
        with contextlib.suppress(OSError, AttributeError):  # F_SETSIG is Linux'; SIGIO ends the child as well
            fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, process.pid)
            fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    except BaseException:
        _let_go(held_fd)
        raise
    finally:
        os.close(lifeline_fd)
    return process, held_fd


_HELD: set[int] = set()
"""The write ends of this process's children."""


def _let_go(held_fd: int) -> None:
    if held_fd in _HELD:
        _HELD.remove(held_fd)
        os.close(held_fd)


def _let_all_go() -> None:
    for held_fd in list(_HELD):
        _let_go(held_fd)


# A copy of this process that held the pipes would keep the children alive after their owner's death.
os.register_at_fork(after_in_child=_let_all_go)


def size_in(header: bytes) -> tuple[int, int]:
    """Return width and height from a YUV4MPEG2 header.

    Raises:
        CameraError: It is none, or of other pixels than 8-bit 4:2:0.
    """
    words = header.decode("ascii", "replace").split()
    fields = {word[0]: word[1:] for word in words[1:]}
    width, height = fields.get("W", ""), fields.get("H", "")
    if words[:1] != ["YUV4MPEG2"] or not (width.isdigit() and height.isdigit()):
        raise CameraError("the pipeline writes no YUV4MPEG2: leave its sink out")
    if not fields.get("C", "420").startswith("420") or int(width) % 8 or int(height) % 2:
        raise CameraError(
            f"the pipeline writes {header[:80]!r}: expected 8-bit 4:2:0, sides of 8 and 2 pixels"
        )
    return int(width), int(height)
