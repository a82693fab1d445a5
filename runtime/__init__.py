"""The runtime: a bundle, a frame, an answer. Needs numpy, OpenCV and one engine.

Every name below is fetched when it is first used, so that importing this package costs next to
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.runtime.entropy import entropy_bits, exact_entropy_bits
    from boardfit.runtime.images import decode_image, list_images, read_image
    from boardfit.runtime.isolate.options import Isolation, IsolationReport
    from boardfit.runtime.model import Model, load
    from boardfit.runtime.preprocess import Placement, Preprocessor, as_bgr
    from boardfit.runtime.results import Prediction, Result, Timings
    from boardfit.runtime.selftest import self_test
    from boardfit.runtime.session import Session
    from boardfit.runtime.swap import SwapReport, Trial

_LAZY = {
    "Isolation": "boardfit.runtime.isolate.options",
    "IsolationReport": "boardfit.runtime.isolate.options",
    "Model": "boardfit.runtime.model",
    "Placement": "boardfit.runtime.preprocess",
    "Prediction": "boardfit.runtime.results",
    "Preprocessor": "boardfit.runtime.preprocess",
    "Result": "boardfit.runtime.results",
    "Session": "boardfit.runtime.session",
    "SwapReport": "boardfit.runtime.swap",
    "Timings": "boardfit.runtime.results",
    "Trial": "boardfit.runtime.swap",
    "as_bgr": "boardfit.runtime.preprocess",
    "decode_image": "boardfit.runtime.images",
    "entropy_bits": "boardfit.runtime.entropy",
    "exact_entropy_bits": "boardfit.runtime.entropy",
    "list_images": "boardfit.runtime.images",
    "load": "boardfit.runtime.model",
    "read_image": "boardfit.runtime.images",
    "self_test": "boardfit.runtime.selftest",
}

__all__ = [
    "Isolation",
    "IsolationReport",
    "Model",
    "Placement",
    "Prediction",
    "Preprocessor",
    "Result",
    "Session",
    "SwapReport",
    "Timings",
    "Trial",
    "as_bgr",
    "decode_image",
    "entropy_bits",
    "exact_entropy_bits",
    "list_images",
    "load",
    "read_image",
    "self_test",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'boardfit.runtime' has no attribute {name!r}")
