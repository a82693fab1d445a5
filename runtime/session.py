"""Load a bundle and run it: the one place that knows the order from frame to answer."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from boardfit.errors import EngineError, EngineMissing, RecipeError
from boardfit.runtime.affinity import bound_choice
from boardfit.runtime.choose import Choice, Setup, choose_engine, choose_policy, default_threads
from boardfit.runtime.decode.classify import average
from boardfit.runtime.decode.task import decode, output_names
from boardfit.runtime.entropy import entropy_bits
from boardfit.runtime.inputs import Inputs, input_specs
from boardfit.runtime.job import Job, begin_job, begin_jobs, prepare
from boardfit.runtime.policy import make_policy
from boardfit.runtime.policy.two_look import NO_CERTAINTY
from boardfit.runtime.preprocess import Preprocessor
from boardfit.runtime.residents import Residents, residents_by_default
from boardfit.runtime.results import Result
from boardfit.runtime.turns import Turns
from boardfit.specs import Artifact, PolicySpec, TensorSpec

if TYPE_CHECKING:
    from boardfit.bundle import Bundle, Manifest
    from boardfit.runtime.isolate.host import EngineHost
    from boardfit.runtime.isolate.options import Isolation, IsolationReport

# Longer batches gain nothing on a CPU, and 16 float tensors of 224 pixels take 10 MB.
MAX_BATCH = 16


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    affinity: Sequence[int] | None = None,
    policy: str | PolicySpec | None = None,
    size: int | None = None,
    stream: bool = False,
    max_resident_sizes: int | None = None,
    isolate: bool | Isolation = False,
    check: Callable[[Bundle], None] | None = None,
    advise: Callable[[Bundle], Setup | None] | None = None,
) -> Session:
    """Open a bundle and make it ready to run.

    Thread safety: a Session may be called, and closed, from several threads. The engine runs for one call
    at a time, while others preprocess or decode (to use more cores, give it more ``threads``, or load one
    Session per thread). ``load`` itself may run in several threads at once. Results are immutable records;
    their arrays belong to the caller and are never written to again. With ``stream=True`` the size of a
    frame depends on the frames that were begun before it.

    ``boardfit.load`` tells the other arguments and the errors. ``check`` may refuse the opened bundle.
    ``advise`` may know a setup for it, in which nothing that the caller said is changed; if that does not
    work, a warning says so, and what the caller said is used alone.
    """
    from boardfit.bundle import Bundle, open_bundle

    owned = not isinstance(bundle, Bundle)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    asked = Setup(engine, precision, threads, None if affinity is None else tuple(affinity))
    make = partial(
        _make,
        opened,
        policy=policy,
        size=size,
        stream=stream,
        owns_bundle=owned,
        max_resident_sizes=max_resident_sizes,
        isolate=isolate,
    )
    try:
        if check is not None:
            check(opened)
        advised = None if advise is None else advise(opened)
        if advised is not None:
            try:
                return make(advised)
            except (EngineError, EngineMissing, RecipeError) as error:
                log = logging.getLogger("boardfit")
                log.warning("%s does not work here (%s): loading without that advice", advised.text, error)
        return make(asked)
    except BaseException:
        if owned:
            opened.close()
        raise


def _make(
    bundle: Bundle,
    setup: Setup,
    *,
    policy: str | PolicySpec | None,
    size: int | None,
    isolate: bool | Isolation,
    **rest: Any,
) -> Session:
    manifest = bundle.manifest
    choice = choose_engine(manifest.artifacts, engine=setup.engine, precision=setup.precision)
    spec = choose_policy(manifest.policy, policy=policy, size=size, choice=choice)
    if spec.kind == "two-look" and manifest.task != "classify":
        raise RecipeError(NO_CERTAINTY)
    if setup.affinity:
        choice = bound_choice(choice, setup.affinity, isolated=bool(isolate))
    host = None
    if isolate:
        from boardfit.runtime.isolate.engine import isolate_choice

        choice, host = isolate_choice(choice, isolate)
    try:
        threads = default_threads(choice.cores) if setup.threads is None else setup.threads
        return Session(bundle, choice, spec, threads=threads, host=host, **rest)
    except BaseException:
        if host is not None:
            host.close()
        raise


class Session:
    """A bundle on one engine; made by ``load``. A context manager."""

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        policy: PolicySpec,
        *,
        threads: int,
        stream: bool,
        owns_bundle: bool,
        max_resident_sizes: int | None = None,
        host: EngineHost | None = None,
    ) -> None:
        """Load the artifact of the policy's largest size; others are hashed, and loaded when needed.

        Args:
            bundle: Open bundle.
            choice: Engine, precision and the artifacts to use.
            policy: How sizes are chosen.
            threads: Of the engine, at least 1.
            stream: Whether frames follow each other in time.
            owns_bundle: Whether ``close`` closes the bundle.
            max_resident_sizes: Engines to keep, one per size; None for as many as the policy gains by.
            host: Of the engine's process, where it has one; ``close`` closes it.
        """
        if threads < 1:
            raise RecipeError(f"threads is {threads}: expected at least 1")
        if max_resident_sizes is not None and max_resident_sizes < 1:
            raise RecipeError(f"max_resident_sizes is {max_resident_sizes}: expected at least 1, or None")
        self._bundle = bundle
        self._choice = choice
        self._spec = policy
        self._threads = threads
        self._owns_bundle = owns_bundle
        self._host = host
        self._turns = Turns(hand_over=host is None and not choice.cores)
        self._policy_lock = threading.Lock()
        self._policy = make_policy(policy, stream)
        self._size_limit: int | None = None
        self._labels: tuple[str, ...] = bundle.manifest.labels
        # One set of names for all formats: the TFLite that we make has "StatefulPartitionedCall_1:0".
        self._names = output_names(bundle.manifest.artifacts)
        self._inputs = input_specs(bundle.manifest.artifacts)
        self._by_size = {size: choice.artifact_for(size) for size in policy.sizes}
        self._engines = Residents(
            bundle,
            choice,
            threads=threads,
            per_file=max_resident_sizes or residents_by_default(choice.engine, policy),
            limit=max_resident_sizes,
        )
        image = bundle.manifest.image
        layouts = {artifact.inputs[0].layout for artifact in self._by_size.values()}
        self._preprocessors = {layout: Preprocessor(image, layout) for layout in layouts}
        largest = policy.sizes[-1]
        self._engines.check([item for item in set(self._by_size.values()) if item != self._by_size[largest]])
        self._engines.open(largest)

    @overload
    def __call__(self, frame: np.ndarray, *, inputs: Inputs | None = None) -> Result: ...
    @overload
    def __call__(
        self, frame: Sequence[np.ndarray], *, inputs: Sequence[Inputs] | None = None
    ) -> list[Result]: ...
    def __call__(self, frame: Any, *, inputs: Any = None) -> Result | list[Result]:
        """Answer one frame, or a list of frames as a batch.

        Args:
            frame: HxWx3 uint8 BGR of any size (grey, BGRA and non-contiguous frames work too), or a list
                of such frames, which run grouped by the size that each one gets.
            inputs: What the net takes besides the frame, by name, as ``Session.inputs`` says it: numbers in
                that shape without the batch's axis, or a frame where it takes a second image; for a list of
                frames a list of these, one for each.

        Returns:
            A Result, or a list of them in the order of the frames.

        Raises:
            InputError: If a frame is anything else, or an input is missing, not known, or of another
                shape; of a batch, its index is named.
            EngineError: If the engine fails, or the session is closed.
            BundleError: If the file of a size that is met for the first time is damaged.
        """
        if isinstance(frame, (list, tuple)):
            return self._answer(begin_jobs(frame, inputs, self._inputs[1:]))
        return self._answer([begin_job(frame, inputs, self._inputs[1:])])[0]

    def look(self, frame: np.ndarray, size: int, *, inputs: Inputs | None = None) -> Result:
        """Answer one frame at a size of one's own choice; the policy is not asked and remembers nothing.

        Args:
            frame: As for a call.
            size: Input side in pixels, one of ``sizes``.
            inputs: As for a call.

        Raises:
            RecipeError: If the size is not one of ``sizes``.
            InputError, EngineError: As for a call.
        """
        if size not in self._by_size:
            raise RecipeError(f"size {size} is not among the session's sizes {list(self._by_size)}")
        job = begin_job(frame, inputs, self._inputs[1:])
        self._look([job], size, alone=True)
        return job.finished()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engines, after the call that is running. Twice does no harm."""
        self._turns.close(self._free)

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self._choice.name

    @property
    def precision(self) -> str:
        """Precision of the artifacts in use."""
        return self._choice.precision

    @property
    def threads(self) -> int:
        """Threads of the engine."""
        return self._threads

    @property
    def affinity(self) -> tuple[int, ...]:
        """Cores that the engine is bound to; empty where it may use all."""
        return self._choice.cores

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sides in pixels that the policy chooses from."""
        return self._spec.sizes

    @property
    def size_limit(self) -> int | None:
        """Largest input side that the policy may choose now, for one who watches time or heat; None for any.

        Below the smallest of ``sizes`` it means the smallest. ``look`` is not bound by it.
        """
        return self._size_limit

    @size_limit.setter
    def size_limit(self, limit: int | None) -> None:
        self._size_limit = limit

    @property
    def policy(self) -> PolicySpec:
        """How sizes are chosen."""
        return self._spec

    @property
    def isolation(self) -> IsolationReport | None:
        """What became of the engine's processes so far; None where the engine runs in this one."""
        return None if self._host is None else self._host.report()

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; empty where none are known."""
        return self._labels

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the net takes, under the names by which it is given: the frame, then any further inputs."""
        return self._inputs

    def artifact(self, size: int) -> Artifact:
        """Return what runs a size, which must be one of ``sizes``."""
        return self._by_size[size]

    @property
    def bundle(self) -> Bundle:
        """The open bundle."""
        return self._bundle

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    def _answer(self, jobs: list[Job]) -> list[Result]:
        self._turns.refuse_if_closed()
        for job in jobs:
            if self._policy.needs_entropy:
                begin = perf_counter()
                job.bits = entropy_bits(job.bgr)
                job.entropy_s = perf_counter() - begin
            with self._policy_lock:
                job.size = self._within_limit(self._policy.first(job.bits))
        waiting = jobs
        while waiting:
            for size in sorted({job.size for job in waiting}):
                members = [job for job in waiting if job.size == size]
                step = 1 if self._by_size[size].inputs[0].shape[0] == 1 else MAX_BATCH
                for first in range(0, len(members), step):
                    self._look(members[first : first + step], size, alone=len(jobs) == 1)
            waiting = [job for job in waiting if self._wants_another(job)]
        return [job.finished() for job in jobs]

    def _look(self, jobs: list[Job], size: int, *, alone: bool) -> None:
        """Run the jobs as one batch at a size, and leave each its result."""
        artifact = self._by_size[size]
        preprocessor = self._preprocessors[artifact.inputs[0].layout]
        empty = self._host.empty if self._host is not None and len(jobs) == 1 else None
        feeds, placements = prepare(jobs, artifact, preprocessor, size=size, empty=empty)
        try:
            outputs, inference_s = self._turns.run(partial(self._run, size, feeds))
        finally:
            # A traceback would keep the memory that was shared with a lost engine. An engine of this process
            # may still read them, where it was the caller who was interrupted.
            if self._host is not None:
                feeds.clear()
        for row, (job, placement) in enumerate(zip(jobs, placements, strict=True)):
            begin = perf_counter()
            job.inference_s += inference_s / len(jobs)
            job.looks += (size,)
            mine = tuple(outputs) if len(jobs) == 1 else tuple(array[row : row + 1] for array in outputs)
            classes = decode(self.manifest.task, mine[0], artifact)
            if self._spec.average and job.result is not None:
                classes = average(job.result.classes, classes)
            end = perf_counter()
            job.postprocess_s += end - begin
            job.result = Result(
                classes=classes,
                outputs=mine,
                size=size,
                looks=job.looks,
                entropy_bits=job.bits,
                timings=job.timings(end if alone else None),
                placement=placement,
                labels=self._labels,
                names=self._names,
            )

    def _run(self, size: int, feeds: Mapping[str, np.ndarray]) -> tuple[Sequence[np.ndarray], float]:
        """Return the outputs and the seconds that they took; one at a time."""
        begin = perf_counter()
        outputs = self._engines.open(size).run(feeds)
        return outputs, perf_counter() - begin

    def _wants_another(self, job: Job) -> bool:
        with self._policy_lock:
            following = self._policy.next(job.size, job.finished())
        if following is None or self._within_limit(following) <= job.size:
            return False
        job.size = self._within_limit(following)
        return True

    def _within_limit(self, size: int) -> int:
        limit = self._size_limit
        if limit is None or size <= limit:
            return size
        return max((side for side in self.sizes if side <= limit), default=self.sizes[0])

    def _free(self) -> None:
        self._engines.close()
        if self._host is not None:
            self._host.close()
        if self._owns_bundle:
            self._bundle.close()
