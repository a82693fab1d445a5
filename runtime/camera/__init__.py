"""Cameras that are watched, and loops that run on them for months.

Every name below is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardfit.runtime.camera.address import open
    from boardfit.runtime.camera.pipeline import Loop, loop
    from boardfit.runtime.camera.records import Event, Frame, WatchSettings
    from boardfit.runtime.camera.source import Source, close_all

_LAZY = {
    "Event": "boardfit.runtime.camera.records",
    "Frame": "boardfit.runtime.camera.records",
    "Loop": "boardfit.runtime.camera.pipeline",
    "Source": "boardfit.runtime.camera.source",
    "WatchSettings": "boardfit.runtime.camera.records",
    "close_all": "boardfit.runtime.camera.source",
    "loop": "boardfit.runtime.camera.pipeline",
    "open": "boardfit.runtime.camera.address",
}

__all__ = ["Event", "Frame", "Loop", "Source", "WatchSettings", "close_all", "loop", "open"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'boardfit.runtime.camera' has no attribute {name!r}")
