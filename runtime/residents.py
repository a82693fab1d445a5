"""The engines that a session keeps: which sizes are ready, and what gives way to another size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from boardfit.runtime.choose import Choice
from boardfit.runtime.engines import Engine
from boardfit.specs import Artifact, PolicySpec

if TYPE_CHECKING:
    from boardfit.bundle import Bundle


def residents_by_default(engine: type[Engine], policy: PolicySpec) -> int:
    """Return how many sizes of one file get an engine each, where the caller does not say.

    One that is resized takes the least memory. A two-look policy changes size within a frame, which costs
    LiteRT 0.3 to 1.0 ms each time: there it gets one for each of its looks, over the same weights.

    Args:
        engine: The engine's class; ``slow_resize`` says that it pays for a change of size.
        policy: How sizes are chosen.
    """
    if policy.kind == "two-look" and getattr(engine, "slow_resize", False):
        return 1 + len(policy.look_bits)
    return 1


class Residents:
    """The loaded engines of one session, the last used ones last.

    Attributes:
        loaded: Engine by the artifact's first file and the size that it last ran at.
    """

    def __init__(
        self, bundle: Bundle, choice: Choice, *, threads: int, per_file: int, limit: int | None
    ) -> None:
        """Load nothing yet.

        Args:
            bundle: Open bundle.
            choice: Engine and artifacts.
            threads: Of each engine.
            per_file: Engines for one file at most; further sizes of it are taken by resizing.
            limit: Engines at most, over all files; None for any number.
        """
        self.loaded: dict[tuple[str, int], Engine] = {}
        self._bundle = bundle
        self._choice = choice
        self._threads = threads
        self._per_file = per_file
        self._limit = limit

    def check(self, artifacts: Sequence[Artifact]) -> None:
        """Hash the files of artifacts that are loaded later, so that damage shows now.

        Raises:
            BundleError: A file is damaged.
        """
        for artifact in artifacts:
            self._bundle.artifact_files(artifact)

    def open(self, size: int) -> Engine:
        """Return what runs a size: its own engine, another size's of the same file, or a new one.

        Args:
            size: Input side in pixels, one that the artifacts serve.

        Raises:
            BundleError: The file is damaged.
            EngineError: The engine refuses it.
        """
        artifact = self._choice.artifact_for(size)
        key = (artifact.files[0], size)
        if key not in self.loaded:
            self.loaded[key] = self._resized(key) or self._load(artifact)
        else:
            self.loaded[key] = self.loaded.pop(key)  # the dict's order is that of the last use
        return self.loaded[key]

    def close(self) -> None:
        """Free every engine."""
        for engine in self.loaded.values():
            engine.close()
        self.loaded.clear()

    def _resized(self, key: tuple[str, int]) -> Engine | None:
        """Give up the longest unused size of a file, where no further engine may be had for it."""
        mine = [other for other in self.loaded if other[0] == key[0]]
        full = self._limit is not None and len(self.loaded) >= self._limit
        if mine and (full or len(mine) >= self._per_file):
            return self.loaded.pop(mine[0])
        return None

    def _load(self, artifact: Artifact) -> Engine:
        files = self._bundle.artifact_files(artifact)
        if self._limit is not None and len(self.loaded) >= self._limit:
            self.loaded.pop(next(iter(self.loaded))).close()
        like = [engine for (file, _), engine in self.loaded.items() if file == artifact.files[0]]
        if like and hasattr(like[0], "sibling"):
            further: Engine = like[0].sibling()
            return further
        make: Callable[[Artifact, Mapping[str, bytes], int], Engine] = self._choice.engine
        if self._per_file > 1:
            make = getattr(self._choice.engine, "first_of_several", make)
        return make(artifact, files, self._threads)
