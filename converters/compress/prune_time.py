"""How long one net takes beside another on an engine of this machine, for pruning to a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import keras
import numpy as np

from boardfit.converters.model import TrainedModel
from boardfit.converters.targets import Exported, export, find_target
from boardfit.converters.verify import feeds_of
from boardfit.errors import CompressError, EngineMissing, RecipeError
from boardfit.runtime.engines import available_engines, engine_classes, find_engine, is_installed
from boardfit.timing import time_paired

MEASURED_S = 2.0
ROUNDS = (20, 400)


@dataclass(frozen=True, slots=True, eq=False)
class EngineClock:
    """Times nets on one engine, one thread, in turn.

    Attributes:
        engine: Name of an installed engine.
        side: Of the image in pixels.
    """

    engine: str
    side: int
    _known: list[tuple[object, Exported]] = field(default_factory=list)

    def require(self) -> None:
        """Raise unless the engine is installed, and what exports to it.

        Raises:
            RecipeError: No engine is called so.
            EngineMissing: Its library is not installed.
            ToolMissing: What exports to its format is not.
            CompressError: Keras runs on a backend that cannot export.
        """
        if self.engine not in engine_classes():
            raise RecipeError(
                f"prune.engine is {self.engine!r}: expected one of {', '.join(sorted(engine_classes()))}"
            )
        if keras.backend.backend() != "tensorflow":
            raise CompressError(
                f"a time is measured on exported files, which Keras makes on TensorFlow only, not on "
                f"{keras.backend.backend()}: give prune.macs, or set KERAS_BACKEND=tensorflow"
            )
        if not is_installed(engine_classes()[self.engine]):
            raise EngineMissing(
                f"prune.engine is {self.engine!r}, whose library is not installed: pip install "
                "'boardfit[convert]', or choose one of " + ", ".join(available_engines(self._format))
            )
        find_target(self._format).require_tools()

    def __call__(self, before: TrainedModel, after: TrainedModel) -> float:
        """Return how many times as long the second takes as the first: the median of rounds side by side.

        Raises:
            ExportError: One cannot be exported.
            EngineError: The engine refuses one.
        """
        kind = find_engine(self.engine)
        exported = [self._exported(before), self._export(after)]
        engines = []
        try:
            for each in exported:
                engines.append(kind(each.artifact, each.files, 1))
            noise = np.random.default_rng(0).normal(size=(1, self.side, self.side, 3)).astype(np.float32)
            calls = {
                name: partial(engine.run, feeds_of(each.artifact, noise, row=0))
                for name, engine, each in zip(("before", "after"), engines, exported, strict=True)
            }
            begun = perf_counter()
            time_paired(calls, rounds=3, warmup=1)
            rounds = int(np.clip(MEASURED_S / (perf_counter() - begun) * 4, *ROUNDS))
            timed = time_paired(calls, rounds=rounds, warmup=3)
            return timed["after"].ratio_to(timed["before"])
        finally:
            for engine in engines:
                engine.close()

    @property
    def _format(self) -> str:
        return engine_classes()[self.engine].formats[0]

    def _export(self, model: TrainedModel) -> Exported:
        return export(model, format_name=self._format, sizes=(self.side,), precision="fp32")

    def _exported(self, model: TrainedModel) -> Exported:
        """Return the export of a net that is asked for again and again."""
        if not self._known or self._known[0][0] is not model.net:
            self._known[:] = [(model.net, self._export(model))]
        return self._known[0][1]
