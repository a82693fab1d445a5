"""From a word to a watched camera."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from boardfit.errors import CameraError, RecipeError
from boardfit.names import without_password
from boardfit.runtime.camera.capture import Opener
from boardfit.runtime.camera.devices import Device
from boardfit.runtime.camera.records import LONGEST_S, Event, WatchSettings, require_rate
from boardfit.runtime.camera.source import Source

_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")
_SYNTHETIC = re.compile(r"^synthetic(?::(\d+)x(\d+)(?:@(\d+(?:\.\d+)?))?)?$")


def open(
    source: str | int | Path | Opener,
    *,
    size_wh: tuple[int, int] | None = None,
    fps: float | None = None,
    every_frame: bool = False,
    wait: bool = False,
    still: bool = False,
    settings: WatchSettings | None = None,
    name: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Source:
    """Open a camera, and begin to read and watch it in the background.

    Args:
        source: A V4L2 or USB camera by number or path (``0``, ``/dev/video0``); an address (``rtsp://...``,
            ``http://...`` for MJPEG); a video file; a folder of images; a GStreamer pipeline without its sink
            (``gst:nvarguscamerasrc ! nvvidconv``); ``picamera`` or ``picamera:1``; ``synthetic`` or
            ``synthetic:640x480@30``; or a function that opens a Device.
        size_wh: Width and height in pixels to ask for, where the camera lets itself be asked. Frames of
            another size then count as faulty.
        fps: Frames per second to ask for, likewise; of a folder, at which its images come. What is slower
            than one in two seconds has to be told so, else it counts as dead.
        every_frame: Of a file or folder: hand over every frame, as fast as they are taken, instead of the
            newest one at the file's own speed.
        wait: Whether to return at once and go on trying, where the camera is not there yet.
        still: Whether a picture that stays the same is in order, as of a scene that a camera encodes
            without any change.
        settings: When the camera counts as faulty, and how it is opened again.
        name: For events and answers; by default the source itself, without any password.
        on_event: Called with every change of state, from the threads of the source.

    Raises:
        CameraError: The camera cannot be opened, and ``wait`` is false. Passwords are in no message.
        RecipeError: The word means no source, or ``fps`` is less than one frame a day, or not finite.
    """
    require_rate(fps)
    word = source if isinstance(source, str) else str(getattr(source, "__name__", source))
    opener, own_pace = _find(source, size_wh=size_wh, fps=fps, every_frame=every_frame)
    if settings is None:
        settings = WatchSettings(size_wh=size_wh)
        if own_pace:
            # A file may fade to black and wait for its disk, a folder may hold images of all sizes and
            # damaged ones; neither is mended by beginning anew.
            settings = WatchSettings(
                stall_s=None, frozen_s=None, patience_s=None, stuck_s=LONGEST_S, one_size=False
            )
    if not own_pace:
        settings = settings.for_rate(fps)
    if still:
        settings = replace(settings, frozen_s=None)
    opened = Source(
        opener,
        name=(name or without_password(word)).encode("utf-8", "backslashreplace").decode(),
        settings=settings,
        live=not (own_pace and every_frame),
        on_event=on_event,
    )
    if not wait:
        try:
            opened.wait_live(settings.open_s + settings.first_frame_s)
        except BaseException:
            opened.close()
            raise
    return opened


def is_file(source: str) -> bool:
    """Return whether a word means a video file or a folder, which ends, and has its own pace."""
    return isinstance(_kind(source), Path)


def _find(
    source: str | int | Path | Opener,
    *,
    size_wh: tuple[int, int] | None,
    fps: float | None,
    every_frame: bool,
) -> tuple[Opener, bool]:
    """Return what opens the source, and whether it is a file or folder, or a pipeline that ends like one."""
    if callable(source):
        return source, False
    kind = _kind(source)
    if isinstance(kind, Path):
        from boardfit.runtime.camera.devices.folder import FolderDevice
        from boardfit.runtime.camera.devices.opencv import FileDevice

        if _is_folder(kind):
            rate = 0.0 if every_frame else (fps or 1.0)
            return lambda: FolderDevice(kind, fps=rate), True
        return lambda: FileDevice(kind, real_time=not every_frame), True
    return lambda: _open_live(kind, str(source), size_wh, fps), kind == "gstreamer" and _ends(str(source))


def _is_folder(path: Path) -> bool:
    """Return whether a path is that of a folder; what the system refuses to look at may be an address."""
    try:
        return path.is_dir()
    except OSError as error:
        name = without_password(str(path))
        raise CameraError(f"{name} cannot be opened as a file or folder: {error.strerror}") from None


def _kind(source: str | int | Path) -> str | Path:
    """Return the path of a file or folder, else the name of the kind."""
    text = str(source).strip()
    if isinstance(source, Path) and not text.startswith("/dev/"):
        return source
    if text.isdecimal() or text.startswith("/dev/"):
        return "v4l2"
    if _SYNTHETIC.match(text):
        return "synthetic"
    if _URL.match(text):  # before a pipeline: a password may hold " ! "
        return "stream"
    if text.startswith("gst:") or " ! " in text:
        return "gstreamer"
    if re.match(r"^picamera(:\d+)?$", text):
        return "picamera"
    if not text or text.startswith("synthetic:"):
        raise RecipeError(
            f"{text!r} is no source: expected a camera, an address, a file, or synthetic:640x480@30"
        )
    return Path(text)


def _ends(pipeline: str) -> bool:
    """Return whether a GStreamer pipeline comes to an end that is no fault."""
    return "filesrc" in pipeline or "num-buffers" in pipeline


def _open_live(kind: str, text: str, size_wh: tuple[int, int] | None, fps: float | None) -> Device:
    """Open what is no file; each kind's library is imported here."""
    text = text.strip()
    if kind == "synthetic":
        from boardfit.runtime.camera.devices.synthetic import SyntheticDevice

        found = _SYNTHETIC.match(text)
        assert found is not None
        width, height, rate = found.groups()
        wanted = (int(width), int(height)) if width else size_wh or (640, 480)
        if min(wanted) < 1:
            raise CameraError(f"{text}: a picture has at least one pixel")
        return SyntheticDevice(size_wh=wanted, fps=float(rate) if rate else fps or 30.0)
    if kind == "gstreamer":
        from boardfit.runtime.camera.devices.gstreamer import GStreamerDevice

        return GStreamerDevice(text.removeprefix("gst:"), ends=_ends(text), fps=fps)
    if kind == "picamera":
        from boardfit.runtime.camera.devices.picamera import PiCameraDevice

        return PiCameraDevice(int(text.partition(":")[2] or 0), size_wh=size_wh, fps=fps)
    from boardfit.runtime.camera.devices.opencv import open_stream, open_v4l2

    if kind == "stream":
        return open_stream(text, fps=fps)
    return open_v4l2(f"/dev/video{text}" if text.isdecimal() else text, size_wh=size_wh, fps=fps)
