"""An engine on cores of its own.

Linux gives a new thread the cores of the one that starts it. So the engine lives in a thread that is bound
before it is loaded, and every pool that it starts, then or in its first run, is bound as well; OpenMP's,
which ncnn uses, belongs to the calling thread and would otherwise be the one that the caller's earlier
engines left (seen: an engine that was loaded while its caller was bound ran on all cores). The caller's own
threads are never touched. A call takes 12 microseconds more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np

from boardfit.errors import EngineError, RecipeError
from boardfit.runtime.choose import Choice
from boardfit.runtime.engines import Engine
from boardfit.specs import Artifact


def bound_choice(choice: Choice, cores: Sequence[int], *, isolated: bool = False) -> Choice:
    """Return the same choice with its engine bound to some cores.

    Args:
        choice: Engine and artifacts.
        cores: Numbers, as in ``/proc/cpuinfo``.
        isolated: Whether the engine is to run in another process.

    Raises:
        RecipeError: The cores are not there, the system cannot bind a thread, or the engine is isolated.
    """
    if isolated:
        raise RecipeError(
            "affinity binds an engine of this process, and isolate takes it into another: leave out one of "
            "them, or start the whole program on some cores with taskset"
        )
    check_cores(cores)
    return replace(choice, engine=_bound_engine(choice.engine, frozenset(cores)), cores=tuple(cores))


def check_cores(cores: Sequence[int]) -> None:
    """Refuse cores that this process cannot have.

    Raises:
        RecipeError: One is named twice, or is not among the usable ones, or nothing can be bound here.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise RecipeError("this system cannot bind threads to cores: leave out affinity")
    usable = os.sched_getaffinity(0)
    wrong = sorted(set(cores) - usable) if len(set(cores)) == len(cores) > 0 else list(cores)
    if wrong or not cores:
        shown = f"{wrong[:4]}{' and more' if len(wrong) > 4 else ''}"
        raise RecipeError(
            f"affinity names {shown}: expected distinct ones among the usable cores {sorted(usable)}"
        )


class _Bound:
    """One engine in a thread of its own."""

    def __init__(self, name: str, cores: frozenset[int], make: Callable[[], Engine]) -> None:
        self._closed = False
        self._name = name
        self._thread = ThreadPoolExecutor(1, "boardfit-bound", os.sched_setaffinity, (0, cores))
        try:
            self._engine = self._thread.submit(make).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        further: Callable[[], Engine] | None = getattr(self._engine, "sibling", None)
        if further is not None:
            self.sibling = partial(_Bound, name, cores, further)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        if self._closed:
            raise EngineError(f"{self._name} is closed: load it again")
        return self._thread.submit(self._engine.run, feeds).result()

    def close(self) -> None:
        """Free the engine, and end its thread."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._engine.close).result()
            self._thread.shutdown()


def _bound_engine(engine: type[Engine], cores: frozenset[int]) -> type[Engine]:
    class BoundEngine(_Bound):
        formats: ClassVar[tuple[str, ...]] = engine.formats
        libraries: ClassVar[tuple[str, ...]] = getattr(engine, "libraries", ())
        slow_resize: ClassVar[bool] = getattr(engine, "slow_resize", False)

        def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
            super().__init__(artifact.name, cores, partial(engine, artifact, files, threads))

    if not hasattr(engine, "first_of_several"):
        return BoundEngine
    several: Callable[[Artifact, Mapping[str, bytes], int], Engine] = engine.first_of_several

    class SharingBoundEngine(BoundEngine):
        @classmethod
        def first_of_several(cls, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> _Bound:
            """Return the first of several engines of one file that share what they can."""
            return _Bound(artifact.name, cores, partial(several, artifact, files, threads))

    return SharingBoundEngine
