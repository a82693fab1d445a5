"""The frames behind the words on the command line."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boardfit.errors import CameraError, InputError

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".y4m")


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Which frame.

    Attributes:
        path: Of the file.
        index: Number of the frame in its video, from 0; None for an image.
        shown: Whether people want to see it: of a video, one frame a second.
    """

    path: Path
    index: int | None = None
    shown: bool = True

    @property
    def name(self) -> str:
        """Path, with the frame's number for a video."""
        return str(self.path) if self.index is None else f"{self.path}#{self.index:06d}"


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs, in the order in which they run: images first."""

    images: tuple[FrameRef, ...]
    videos: tuple[Path, ...]


def find_inputs(words: Sequence[str]) -> Inputs:
    """Return the images and videos behind files, folders and patterns.

    Videos are taken by name or pattern; of a folder the images are taken.

    Raises:
        InputError: A word leads to no file.
    """
    from boardfit.runtime.images import list_images

    images: dict[Path, None] = {}
    videos: dict[Path, None] = {}
    for word in words:
        found = [Path(word)]
        if not found[0].exists():
            found = [Path(match) for match in sorted(glob.glob(word, recursive=True))]  # noqa: PTH207
        films = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
        others = [path for path in found if path not in films]
        videos.update(dict.fromkeys(films))
        if others or not films:
            images.update(dict.fromkeys(list_images(others or [word])))
    return Inputs(images=tuple(FrameRef(path) for path in images), videos=tuple(videos))


def video_frames(path: Path) -> Iterator[tuple[FrameRef, np.ndarray]]:
    """Yield the frames of a video as HxWx3 uint8 BGR.

    Raises:
        InputError: OpenCV cannot read the file, or finds no frame in it.
    """
    import cv2

    from boardfit.runtime.camera.devices.opencv import capture_of

    try:
        capture = capture_of(str(path))
    except CameraError as error:
        raise InputError(str(error)) from error
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        every = max(1, round(fps)) if 0.0 < fps < 1000.0 else 25
        index = 0
        while True:
            found, frame = capture.read()
            if not found:
                break
            yield FrameRef(path, index, shown=index % every == 0), frame
            index += 1
        if index == 0:
            raise InputError(
                f"{path} has no frame that OpenCV can read: expected a whole video file. Copy it again"
            )
    finally:
        capture.release()
