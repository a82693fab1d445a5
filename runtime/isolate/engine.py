"""An isolated engine behind the interface of every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from boardfit.runtime.choose import Choice
from boardfit.runtime.engines import Engine
from boardfit.runtime.isolate.host import EngineHost
from boardfit.runtime.isolate.options import Isolation
from boardfit.specs import Artifact


def isolate_choice(choice: Choice, isolate: bool | Isolation) -> tuple[Choice, EngineHost]:
    """Return the same choice with its engine isolated, and the host that must be closed after the engines.

    Args:
        choice: Engine and artifacts.
        isolate: The limits, or True for the default ones.

    Raises:
        RecipeError: The engine's class cannot be imported by another process.
    """
    host = EngineHost(choice.engine, isolate if isinstance(isolate, Isolation) else Isolation())
    return replace(choice, engine=isolated_engine(choice.engine, host)), host


def isolated_engine(engine: type[Engine], host: EngineHost) -> type[Engine]:
    """Return the class of an engine whose models run in a host's process."""

    class IsolatedEngine:
        """One model in another process."""

        formats: ClassVar[tuple[str, ...]] = engine.formats
        libraries: ClassVar[tuple[str, ...]] = getattr(engine, "libraries", ())
        slow_resize: ClassVar[bool] = getattr(engine, "slow_resize", False)

        def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
            self._key = host.open(artifact, files, threads)

        def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
            """Run once; see ``Engine.run``."""
            return host.run(self._key, feeds)

        def close(self) -> None:
            """Unload the model."""
            host.release(self._key)

    return IsolatedEngine
