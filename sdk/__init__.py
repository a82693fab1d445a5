"""boardfit takes a trained vision model to an edge board.

``import boardfit`` is light: every name below is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boardfit._version import __version__

if TYPE_CHECKING:
    from boardfit.converters.build import build
    from boardfit.errors import EngineLost
    from boardfit.loading import load
    from boardfit.runtime.model import Model
    from boardfit.runtime.session import Session

_LAZY = {
    "EngineLost": "boardfit.errors",
    "build": "boardfit.converters.build",
    "Model": "boardfit.runtime.model",
    "load": "boardfit.loading",
    "Session": "boardfit.runtime.session",
}

__all__ = ["EngineLost", "Model", "Session", "__version__", "build", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'boardfit' has no attribute {name!r}")
