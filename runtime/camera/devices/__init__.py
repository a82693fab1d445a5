"""What is read from: one file per kind, each a small class with ``read`` and ``close``."""

from __future__ import annotations

from typing import Protocol

from boardfit.errors import CameraError


class LoginRefused(CameraError):
    """The server does not take the user and password: asked again soon, it may lock them out."""


class StreamEnded(Exception):
    """Raised by ``read`` at the end of a file or folder."""


class Device(Protocol):
    """An open camera, stream or file. Made by a function without arguments, which may raise CameraError.

    One whose ``read`` takes long may have an ``interrupt`` too: without arguments, called from another thread
    before the end, after which ``read`` raises soon.
    """

    def read(self) -> object:
        """Wait for the next picture.

        Returns:
            HxWx3 uint8 BGR or HxW grey, in memory of its own. Whatever else comes is taken for garbage.

        Raises:
            CameraError: Nothing came, or nothing ever will.
            StreamEnded: A file is over.
        """
        ...

    def close(self) -> None:
        """Let go of the camera."""
        ...
