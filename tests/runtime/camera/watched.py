"""What tests of watched cameras share: faults count soon, and frames are taken."""

from __future__ import annotations

import cv2
import numpy as np

from boardfit.runtime.camera.records import WatchSettings
from boardfit.runtime.camera.source import Source

FAST = WatchSettings(
    stall_s=0.1, frozen_s=0.1, patience_s=0.05, retry_s=(0.01, 0.02), stuck_s=0.4, open_s=1.0
)

PICTURE = np.random.RandomState(1).randint(0, 256, (48, 64, 3)).astype(np.uint8)


def first(source: Source, count: int = 1) -> list:
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


def frames_in(path) -> int:
    """Count the pictures of a film."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count
