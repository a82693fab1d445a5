"""boardfit takes a trained vision model to an edge board.

``import boardfit`` is light: every name below is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boardfit._version import __version__

if TYPE_CHECKING:
    from boardfit.boards.detect import detect as detect_board
    from boardfit.converters.build import build
    from boardfit.errors import EngineLost
    from boardfit.loading import load
    from boardfit.runtime.model import Model
    from boardfit.runtime.session import Session

_LAZY = {
    "EngineLost": "boardfit.errors:EngineLost",
    "detect_board": "boardfit.boards.detect:detect",
    "build": "boardfit.converters.build:build",
    "Model": "boardfit.runtime.model:Model",
    "load": "boardfit.loading:load",
    "Session": "boardfit.runtime.session:Session",
}

__all__ = ["EngineLost", "Model", "Session", "__version__", "build", "detect_board", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, _, attribute = _LAZY[name].partition(":")
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'boardfit' has no attribute {name!r}")
