"""Which cases a benchmark measures, and how the session of each is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from boardfit.benchmarks.records import SCENARIOS, Case
from boardfit.bundle import Bundle, Manifest
from boardfit.errors import EngineMissing, RecipeError
from boardfit.runtime.affinity import check_cores
from boardfit.runtime.choose import Choice, choose_engine, choose_policy, default_threads, precisions_of
from boardfit.runtime.engines import available_engines, engine_version, find_engine, is_installed
from boardfit.runtime.inputs import input_specs
from boardfit.runtime.selftest import golden_inputs

if TYPE_CHECKING:
    from boardfit.runtime.model import Model

ALL = "all"
"""In place of engines or precisions: whatever the bundle has and this machine runs. Of sizes: each alone."""

DEFAULT_FPS = 15.0
DEFAULT_BATCH = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured: every combination of what is named here.

    Attributes:
        scenario: Of ``records.SCENARIOS``.
        engines: Names, or ALL; empty for the one that ``boardfit.load`` chooses.
        precisions: Names, or ALL; empty for the one that ``boardfit.load`` chooses.
        threads: Counts; empty for what ``boardfit.load`` chooses.
        affinity: Cores that the engine is bound to; empty for all.
        sizes: Input sides in pixels, each alone, or ALL; empty for the policy's.
        policy: How sizes are chosen, where none is named; the bundle's own if None.
        fps: Frames per second of the camera scenario.
        batch: Frames per call of the offline scenario.
    """

    scenario: str = "single-stream"
    engines: tuple[str, ...] | str = ()
    precisions: tuple[str, ...] | str = ()
    threads: tuple[int, ...] = ()
    affinity: tuple[int, ...] = ()
    sizes: tuple[int, ...] | str = ()
    policy: str | None = None
    fps: float = DEFAULT_FPS
    batch: int = DEFAULT_BATCH

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise RecipeError(f"scenario is {self.scenario!r}: expected one of {', '.join(SCENARIOS)}")
        if self.sizes and self.policy not in (None, "fixed"):
            raise RecipeError(f"sizes mean one fixed size a case: leave out either them or {self.policy!r}")
        if any(count < 1 for count in self.threads) or self.batch < 1:
            raise RecipeError(f"threads {self.threads}, batch {self.batch}: expected 1 or more of each")
        if not 0.0 < self.fps <= 1000.0:
            raise RecipeError(f"{self.fps} frames per second: expected more than 0, and at most 1000")


def cases_of(manifest: Manifest, wanted: Wanted, *, frame_size_wh: tuple[int, int]) -> tuple[Case, ...]:
    """Return every case that is wanted, each once.

    Args:
        manifest: Of the bundle.
        wanted: What is to be measured.
        frame_size_wh: Width and height in pixels of the frames.

    Raises:
        EngineMissing: An engine that is named is not known or not installed.
        RecipeError: The bundle lacks what is named, or the machine a core.
    """
    if wanted.affinity:
        check_cores(wanted.affinity)
    found: dict[Case, None] = {}
    for engine in _engines(manifest, wanted):
        for choice in _choices(manifest, engine, wanted):
            sizes = choice.sizes if wanted.sizes == ALL else wanted.sizes or (None,)
            for size, threads in product(sizes, wanted.threads or (default_threads(wanted.affinity),)):
                assert not isinstance(size, str)
                spec = choose_policy(manifest.policy, policy=wanted.policy, size=size, choice=choice)
                case = Case(
                    scenario=wanted.scenario,
                    engine=choice.name,
                    engine_version=engine_version(choice.engine),
                    precision=choice.precision,
                    threads=threads,
                    affinity=wanted.affinity,
                    sizes=spec.sizes[-1:] if spec.kind == "fixed" else spec.sizes,
                    policy=spec.kind,
                    frame_size_wh=frame_size_wh,
                    fps=wanted.fps if wanted.scenario == "camera" else None,
                    batch=wanted.batch if wanted.scenario == "offline" else 1,
                )
                found[case] = None
    return tuple(found)


def opener(
    path: str | os.PathLike[str], case: Case, inputs: Mapping[str, np.ndarray] | None = None
) -> Callable[[], AbstractContextManager[Any]]:
    """Return what opens the session of a case, by the same ``load`` that users call.

    Args:
        path: Of the bundle: opening it is a part of the cold start.
        case: What is to run.
        inputs: What the net takes besides each frame, by name.
    """

    def open_session() -> AbstractContextManager[Any]:
        from boardfit.runtime.model import load

        fixed = case.policy == "fixed"
        session = load(
            path,
            engine=case.engine,
            precision=case.precision,
            threads=case.threads,
            affinity=case.affinity,
            size=case.sizes[0] if fixed else None,
            policy=None if fixed else case.policy,
            stream=case.scenario == "camera",
        )
        return _with_inputs(session, inputs) if inputs else session

    return open_session


def given_inputs(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return what a bundle's net takes besides a frame, as its self-test gives it, by name; mostly nothing.

    Raises:
        BundleError: A golden file is damaged.
    """
    return golden_inputs(bundle, input_specs(bundle.manifest.artifacts)[1:])


@contextmanager
def _with_inputs(opened: Model, inputs: Mapping[str, np.ndarray]) -> Iterator[_Given]:
    with opened as model:
        yield _Given(model, inputs)


class _Given:
    """A session whose net takes more than a frame: always the same."""

    def __init__(self, model: Model, inputs: Mapping[str, np.ndarray]) -> None:
        self._model = model
        self._inputs = inputs

    def __call__(self, frame: Any) -> Any:
        given = [self._inputs] * len(frame) if isinstance(frame, list) else self._inputs
        return self._model(frame, inputs=given)

    def look(self, frame: np.ndarray, size: int) -> Any:
        return self._model.look(frame, size, inputs=self._inputs)


def _engines(manifest: Manifest, wanted: Wanted) -> tuple[str | None, ...]:
    formats = {artifact.format for artifact in manifest.artifacts}
    if wanted.engines == ALL:
        names = sorted({name for format in formats for name in available_engines(format)})
        return tuple(names) or (None,)
    for name in wanted.engines:
        found = find_engine(name)
        if not is_installed(found):
            libraries = " or ".join(getattr(found, "libraries", ())) or "its library"
            raise EngineMissing(
                f"engine {name!r} needs {libraries}, which is not installed: see boardfit doctor"
            )
    return tuple(wanted.engines) or (None,)


def _choices(manifest: Manifest, engine: str | None, wanted: Wanted) -> list[Choice]:
    """Return the engine's artifacts in each precision that is wanted."""
    if wanted.precisions != ALL:
        names: Sequence[str | None] = tuple(wanted.precisions) or (None,)
        return [choose_engine(manifest.artifacts, engine=engine, precision=name) for name in names]
    first = choose_engine(manifest.artifacts, engine=engine)
    ranked = precisions_of(first.engine, manifest.artifacts)
    return [choose_engine(manifest.artifacts, engine=first.name, precision=name) for name in ranked]
