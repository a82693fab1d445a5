"""The engines of one session, in a process that is replaced when it is lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from boardfit.errors import BoardfitError, EngineError, EngineLost, EngineMissing, RecipeError
from boardfit.runtime.engines import Engine
from boardfit.runtime.isolate.deadlines import Deadlines
from boardfit.runtime.isolate.options import REASONS, Isolation, IsolationReport
from boardfit.runtime.isolate.process import EngineProcess
from boardfit.runtime.isolate.shared import SharedBlock, SharedFeeds, aligned
from boardfit.specs import Artifact
from boardfit.timing import usable_cores


class EngineHost:
    """Runs engines of one class elsewhere. It serves one call at a time: the session's turns see to that.

    The models' bytes stay in shared memory for as long as they are open, so that a replacement needs no disk.
    """

    def __init__(self, engine: type[Engine], options: Isolation) -> None:
        """Start nothing yet.

        Args:
            engine: What runs in the process; its module is imported there.
            options: Limits.

        Raises:
            RecipeError: The class cannot be imported by another process.
        """
        if engine.__module__ == "__main__" or "<locals>" in engine.__qualname__:
            raise RecipeError(
                f"the engine class {engine.__qualname__} of {engine.__module__} cannot be imported by "
                "another process: move it into a module, or load without isolate"
            )
        self._engine = engine
        self._options = options
        self._cores = usable_cores()
        self._deadlines = Deadlines(options)
        self._models: dict[int, _Model] = {}
        self._next_key = 0
        self._process: EngineProcess | None = None
        self._spare: EngineProcess | None = None
        self._lost = dict.fromkeys(REASONS, 0)
        self._load_s = 0.0
        self._owner = os.getpid()
        self._closed = False

    def open(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> int:
        """Load a model.

        Args:
            artifact: What the files are.
            files: Contents by path.
            threads: For one run.

        Returns:
            The key to run it by.

        Raises:
            EngineMissing, EngineError: As the engine's constructor; EngineLost among them, where the engine
                crashed, hung or took too much memory over the file.
        """
        self._check()
        begin = perf_counter()
        process = self._settled()  # before the model is known: a replacement loads all that are
        key = self._next_key
        self._next_key += 1
        self._models[key] = _Model.of(artifact, files, threads)
        try:
            if process is not None:
                self._load(process, key)
                if self._spare is not None:
                    with suppress(EngineLost):  # it is found dead, and replaced, by the next run
                        self._load(self._spare, key)
            else:
                process = self._started()
            self._settle(process)
            _raise_if_error(process.failed.get(key, {}))
        except BoardfitError as error:
            if isinstance(error, EngineLost):
                self._discard(error)
            self._models.pop(key).block.close()
            raise
        self._load_s = max(self._load_s, perf_counter() - begin)
        self._deadlines.restarted(artifact.files[0])
        return key

    def run(self, key: int, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run a model; see ``Engine.run``.

        Raises:
            EngineError: The engine failed; it is still there.
            EngineLost: It was killed. A new process is already starting.
        """
        self._check()
        if key not in self._models:
            raise EngineError("the isolated engine is closed: load it again")
        process = self._settled() or self._started()
        try:
            self._settle(process)
            _raise_if_error(process.failed.get(key, {}))
            outputs = self._run(process, key, feeds)
        except EngineLost as error:
            self._replace(error)
            raise EngineLost(
                f"{error}: it was killed and is being replaced, the next frame will be answered", error.reason
            ) from error
        if self._options.spare and self._spare is None:
            try:
                self._spare = self._started(spare=True)
            except EngineError as failure:  # the answer is there; the next run tries again
                logging.getLogger("boardfit").warning("no spare yet: %s", failure)
        return outputs

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a float32 array to make an input in: shared with the process where it has room.

        May be called from any thread, also during a run.
        """
        process = self._process
        shared = None if process is None else process.feeds
        lent = None if shared is None else shared.lend(shape)
        return np.empty(shape, np.float32) if lent is None else lent

    def release(self, key: int) -> None:
        """Unload a model. Twice does no harm."""
        model = self._models.pop(key, None)
        if model is None:
            return
        model.block.close()
        for process in (self._process, self._spare):
            if process is not None:
                with suppress(EngineLost):  # it is found dead, and replaced, by the next run
                    process.tell({"op": "drop", "key": key})

    def close(self) -> None:
        """End the processes. Twice does no harm."""
        self._closed = True
        for process in (self._process, self._spare):
            if process is not None:
                process.close()
        self._process = self._spare = None
        for model in self._models.values():
            model.block.close()
        self._models.clear()

    def report(self) -> IsolationReport:
        """Return what became of the processes so far."""
        process, spare = self._process, self._spare
        return IsolationReport(
            pid=None if process is None else process.pid,
            spare_pid=None if spare is None else spare.pid,
            rss_bytes=0 if process is None else process.rss_bytes(),
            memory_limit_bytes=self._limit_bytes(),
            **self._lost,
        )

    def _run(self, process: EngineProcess, key: int, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        model = self._models[key]
        # By its file: a model that is unloaded and loaded again has another key each time.
        shape = (model.artifact.files[0], *(array.shape for array in feeds.values()))
        within_s = self._deadlines.allowed_s(shape)
        begin = perf_counter()
        shared = process.share(sum(aligned(array.nbytes) for array in feeds.values()))
        message = {"op": "run", "key": key, "inputs": _placed(feeds, shared)}
        process.request(message, within_s=within_s)  # what can wait comes after it, while the engine runs
        limit_bytes = self._limit_bytes()
        # Where the engine's threads take every core, one that looks would be in their way.
        looks = model.threads < self._cores
        answer = process.reply(limit_bytes, usual_s=self._deadlines.usual_s(shape) if looks else None)
        try:
            if "grow" in answer:
                shared = process.grow(int(answer["grow"]), within_s)
                answer = process.reply(limit_bytes)
            _raise_if_error(answer)
            outputs = [np.array(shared.block.array(*place)) for place in answer["outputs"]]
        except (ValueError, TypeError, KeyError) as error:
            raise EngineLost(f"the isolated engine's process answered nonsense ({error})") from error
        self._deadlines.took(shape, perf_counter() - begin)
        return outputs

    def _check(self) -> None:
        if self._closed:
            raise EngineError("the isolated engine is closed: load the bundle again")
        if os.getpid() != self._owner:
            raise EngineError(
                "the isolated engine belongs to the process that loaded it, and this is a fork of that: "
                "load the bundle in this process"
            )

    def _settled(self) -> EngineProcess | None:
        """Return the process if it lives, with nothing of an interrupted call to come; else None.

        One that died between two frames has cost no frame, and raises nothing.
        """
        if self._spare is not None and self._spare.exited():
            self._spare.close()
            self._spare = None
        process = self._process
        if process is not None and process.exited():
            self._replace(EngineLost("the isolated engine's process ended between two frames"))
        return self._process

    def _settle(self, process: EngineProcess) -> None:
        """Wait for what a process still has to load."""
        if process.owes:
            process.settle(self._limit_bytes())

    def _started(self, *, spare: bool = False) -> EngineProcess:
        """Start a process and ask it to load every model; nothing is waited for."""
        process = EngineProcess(awake_s=self._options.awake_s if self._cores > 1 else 0.0)
        if not spare:
            self._process = process
        for key in self._models:
            self._load(process, key)
        return process

    def _load(self, process: EngineProcess, key: int) -> None:
        model = self._models[key]
        message = {
            "op": "load",
            "key": key,
            "module": self._engine.__module__,
            "class": self._engine.__qualname__,
            "variant": getattr(self._engine, "variant", ""),
            "artifact": model.artifact.to_dict(),
            "files": model.places,
            "threads": model.threads,
        }
        within_s = self._options.load_deadline_s
        if self._load_s > 0.0:  # a replacement that is stuck shall not take as long as a first start may
            within_s = min(within_s, max(_AGAIN_S, _AGAIN_FACTOR * self._load_s))
        process.request(message, [model.block.fd], within_s=within_s, loads=key)

    def _replace(self, error: EngineLost) -> None:
        """Put the spare, or a new process that is still starting, in the place of a lost one."""
        self._discard(error)
        self._process, self._spare = self._spare, None
        if self._process is None:
            try:
                self._started()
            except EngineError as failure:
                # The next run tries again.
                logging.getLogger("boardfit").warning("no replacement yet: %s", failure)

    def _discard(self, error: EngineLost) -> None:
        """Kill the process, count it, and say why."""
        self._lost[error.reason] += 1
        logging.getLogger("boardfit").warning("%s", error)
        self._deadlines.restarted()
        if self._process is not None:
            self._process.close()
            self._process = None

    def _limit_bytes(self) -> int:
        return self._options.memory_limit_bytes(
            sum(model.block.size for model in list(self._models.values()))
        )


def _placed(feeds: Mapping[str, np.ndarray], shared: SharedFeeds) -> list[list[Any]]:
    """Return where each input lies, as name, dtype, shape and place; what lies elsewhere is copied first."""
    inputs, end = [], 0
    for name, array in feeds.items():
        place = shared.place_of(array)
        if place is None:
            place, end = end, end + aligned(array.nbytes)
            shared.block.array(array.dtype.str, array.shape, place)[...] = array
        inputs.append([name, array.dtype.str, array.shape, place])
    return inputs


_AGAIN_S = 5.0
_AGAIN_FACTOR = 10.0


@dataclass(frozen=True, slots=True)
class _Model:
    """A model and its bytes.

    Attributes:
        artifact: What they are.
        threads: For one run.
        block: All its bytes.
        places: Path, first byte and length of each file in it.
    """

    artifact: Artifact
    threads: int
    block: SharedBlock
    places: list[tuple[str, int, int]]

    @classmethod
    def of(cls, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> _Model:
        block = SharedBlock.create(max(1, sum(len(data) for data in files.values())))
        places, start = [], 0
        for path, data in files.items():
            block.array("|u1", (len(data),), start)[...] = np.frombuffer(data, np.uint8)
            places.append((path, start, len(data)))
            start += len(data)
        return cls(artifact, threads, block, places)


def _raise_if_error(answer: Mapping[str, Any]) -> None:
    """Raise what the engine raised in its process."""
    kind, text = answer.get("error"), str(answer.get("text"))
    if kind == "missing":
        raise EngineMissing(text)
    if kind is not None:
        raise EngineError(text)
