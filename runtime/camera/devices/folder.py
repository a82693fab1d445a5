"""The images of a folder, as if a camera had taken them."""

from __future__ import annotations

import time
from pathlib import Path

from boardfit.errors import CameraError, InputError
from boardfit.runtime.camera.devices import StreamEnded
from boardfit.runtime.images import list_images, read_image


class FolderDevice:
    """Image files in the order of their names."""

    def __init__(self, folder: Path, *, fps: float) -> None:
        """List the files.

        Args:
            folder: Searched with its subfolders.
            fps: Images per second; 0 for as many as are taken.

        Raises:
            CameraError: There is no image.
        """
        try:
            self._paths = list_images([folder])
        except InputError as error:
            raise CameraError(str(error)) from error
        self._interval_s = 1.0 / fps if fps > 0.0 else 0.0
        self._due = time.monotonic()
        self._count = 0

    def read(self) -> object:
        """Return the next image, when it is due; a damaged file reads as None, which is garbage."""
        if self._count == len(self._paths):
            raise StreamEnded
        path = self._paths[self._count]
        self._count += 1
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due, time.monotonic() - 1.0) + self._interval_s
        try:
            return read_image(path)
        except InputError:
            return None

    def close(self) -> None:
        """Nothing is held."""
