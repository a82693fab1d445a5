"""Can this machine's camera be reached, and do its sensors speak? Neither is needed to run a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.cli.checkup import NOTE, OK, Finding, attempt

if TYPE_CHECKING:
    from boardfit.boards.detect import Board
    from boardfit.boards.records import Snapshot

_JOIN_VIDEO = "sudo usermod -aG video $USER   # then log in again"

_PICAMERA = "import picamera2; print(len(picamera2.Picamera2.global_camera_info()))"
_GSTREAMER = r"""
import re, cv2
print(re.search(r"GStreamer:\s+(\w+)", cv2.getBuildInformation()).group(1))
"""


def camera(board: Board, *, devices: Path = Path("/dev")) -> list[Finding]:
    """Look for the camera stack that this board's profile names, and for V4L2 devices.

    Args:
        board: Where we are.
        devices: Folder of the device files.
    """
    stack = board.profile.camera.stack
    if stack == "camera2":
        text = "Python reaches no camera on Android: let an app serve it as RTSP or MJPEG"
        return [Finding("camera", NOTE, text)]
    found = [_v4l2(devices)]
    if stack == "libcamera":
        found.append(_picamera(" ".join(board.profile.camera.packages)))
    elif stack == "argus":
        found.append(_argus())
    return found


def _v4l2(devices: Path) -> Finding:
    nodes = sorted(devices.glob("video[0-9]*"))
    if not nodes:
        return Finding("camera", NOTE, "no /dev/video*: films, folders and streams work without")
    closed = [node.name for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        return Finding("camera", NOTE, f"no access to {', '.join(closed)}", _JOIN_VIDEO)
    return Finding("camera", OK, ", ".join(str(node) for node in nodes))


def _picamera(packages: str) -> Finding:
    tried = attempt(_PICAMERA)
    if tried.fault:
        text = "picamera2 is not to be had here; in a virtual environment it needs --system-site-packages"
        return Finding("picamera", NOTE, text, f"sudo apt install {packages}")
    if tried.said == "0":
        return Finding("picamera", NOTE, "no camera at the ribbon connector", "rpicam-hello --list-cameras")
    return Finding("picamera", OK, f"{tried.said} at the ribbon connector")


def _argus() -> Finding:
    if attempt(_GSTREAMER).said == "YES":
        return Finding("gstreamer", OK, "this OpenCV reads 'gst:nvarguscamerasrc'")
    text = "this OpenCV has no GStreamer, which the ribbon connector needs; JetPack's own has it"
    return Finding("gstreamer", NOTE, text, "python3 -m venv --system-site-packages VENV")


def sensors(board: Board, now: Snapshot) -> list[Finding]:
    """Say which of the board's sensors are silent: budgets of heat and benchmarks look at them.

    Args:
        board: Where we are.
        now: Its probes, read once.
    """
    expected = board.profile.sensors
    found = []
    if not now.temperatures_c:
        found.append(Finding("temperature", NOTE, "no zone tells: watch --max-temp has nothing to go by"))
    if board.model.startswith("Raspberry Pi") and now.throttle_bits is None:
        found.append(Finding("throttling", NOTE, "vcgencmd does not answer", _JOIN_VIDEO))
    if expected.power != "none" and not now.power_w:
        found.append(Finding("power", NOTE, f"{expected.power} tells nothing: no energy per frame"))
    if not found:
        found.append(Finding("sensors", OK, f"{len(now.temperatures_c)} temperatures"))
    return found
