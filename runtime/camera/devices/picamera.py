"""Raspberry Pi cameras through picamera2. Not run on hardware: written against its source and manual."""

from __future__ import annotations

from typing import Any

from boardfit.errors import CameraError
from boardfit.runtime.camera.devices.pace import Pace


class PiCameraDevice:
    """One camera module. picamera2 waits for ever by default: here every wait has an end."""

    def __init__(self, number: int, *, size_wh: tuple[int, int] | None, fps: float | None) -> None:
        """Configure and start the camera.

        Args:
            number: Of the camera, as ``rpicam-hello --list-cameras`` shows them.
            size_wh: Width and height in pixels; None for 640x480.
            fps: Frames per second; None for picamera2's own.

        Raises:
            CameraError: picamera2 is not installed, or there is no such camera, or it is in use.
        """
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise CameraError(
                f"picamera2 cannot be imported ({error}): apt install python3-picamera2"
            ) from error
        try:
            self._camera: Any = Picamera2(number)
        except (IndexError, RuntimeError) as error:
            raise CameraError(f"there is no free Pi camera {number} ({error}): is it in use?") from error
        self._pace = Pace(fps)
        controls = {} if fps is None else {"FrameRate": float(fps)}
        # libcamera's RGB888 lies in memory as blue, green, red (picamera2 manual, appendix A).
        main = {"format": "RGB888", "size": size_wh or (640, 480)}
        try:
            self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls))
            self._camera.start()
        except Exception:
            self._camera.close()
            raise

    def read(self) -> object:
        """Wait for the next picture; see ``Device.read``."""
        job = self._camera.capture_array("main", wait=False)
        try:
            image = self._camera.wait(job, timeout=self._pace.wait_s())
        except TimeoutError as error:
            raise CameraError("the Pi camera gave no frame: is its cable firm?") from error
        self._pace.came()
        return image

    def close(self) -> None:
        """Stop and free the camera."""
        self._camera.stop()
        self._camera.close()
