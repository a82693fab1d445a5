"""Do the frames of several cameras take less time in one call of the model than one by one?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, overload

import numpy as np

from boardfit.errors import EngineLost
from boardfit.runtime.results import Result
from boardfit.timing import time_paired

_MOST_MEASURED_S = 0.5
"""Where a frame of each camera takes longer one by one, no batch is tried: that takes twelve times it."""
_BATCH_GAIN = 0.85
"""A batch is used where it takes less than this share of the time one by one: its first frame waits."""


class Model(Protocol):
    """What answers frames: a Session, or anything like it."""

    @overload
    def __call__(self, frame: np.ndarray) -> Result: ...
    @overload
    def __call__(self, frame: Sequence[np.ndarray]) -> list[Result]: ...


def gains_by_batches(model: Model, images: list[np.ndarray]) -> bool:
    """Measure whether frames as one batch take less time than one by one.

    False without a measurement where one by one they take more than half a second.

    Args:
        model: Takes a frame or a list of frames.
        images: HxWx3 uint8 BGR.

    Raises:
        EngineLost: An isolated engine is being replaced.
    """
    calls = {"together": lambda: model(images), "alone": lambda: [model(image) for image in images]}
    try:
        one = time_paired({"one": lambda: model(images[0])}, rounds=1, warmup=1)["one"]
        if one.p50_s * len(images) > _MOST_MEASURED_S:
            return False
        times = time_paired(calls, rounds=5, warmup=1)
    except EngineLost:
        raise
    except Exception:
        return False  # it takes no lists
    return times["together"].ratio_to(times["alone"]) < _BATCH_GAIN
