"""What ``boardfit.load`` returns: a session that can be exchanged for another between two frames."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from boardfit.errors import BoardfitError, EngineError, InputError, RecipeError, SwapRefused
from boardfit.runtime import session as sessions
from boardfit.runtime.inputs import Inputs
from boardfit.runtime.results import Result
from boardfit.runtime.session import Session
from boardfit.runtime.swap import Findings, Record, SwapReport, Trial, examine, fault_in, let_go
from boardfit.specs import PolicySpec, TensorSpec

if TYPE_CHECKING:
    from boardfit.bundle import Bundle, Manifest
    from boardfit.runtime.choose import Setup
    from boardfit.runtime.isolate.options import Isolation, IsolationReport

    Source = str | os.PathLike[str] | Bundle

_Answer = TypeVar("_Answer", Result, list[Result])


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
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    key_threshold: int = 1,
    advise: Callable[[Bundle], Setup | None] | None = None,
) -> Model:
    """Open a bundle and make it ready to run; the arguments hold for bundles that are swapped in later, too.

    A Model is as thread-safe as a Session; see ``boardfit.runtime.session.load``, which also tells of
    ``advise``. ``boardfit.load``, which brings the advice of a tuning, tells the other arguments and errors.
    """

    def open_session(source: Source, *, installing: bool = True) -> Session:
        def check(opened: Bundle) -> None:
            from boardfit.bundle.trust import require_trusted

            if trusted_keys is not None:
                require_trusted(opened, trusted_keys, threshold=key_threshold, installing=installing)

        return sessions.load(
            source,
            engine=engine,
            precision=precision,
            threads=threads,
            affinity=affinity,
            policy=policy,
            size=size,
            stream=stream,
            max_resident_sizes=max_resident_sizes,
            isolate=isolate,
            check=check,
            advise=advise,
        )

    return Model(open_session(bundle, installing=False), open_session)


class Model:
    """The bundle that answers now; made by ``load``. A context manager, and as thread-safe as a Session."""

    def __init__(self, session: Session, open_session: Callable[[Source], Session]) -> None:
        """Take a session over.

        Args:
            session: Answers from now on; ``close`` closes it.
            open_session: Loads another bundle with the same options.
        """
        self._open_session = open_session
        self._lock = threading.Lock()
        self._swap_lock = threading.Lock()
        self._now = _Seat(session)
        self._on_trial: _OnTrial | None = None
        self._last_swap: SwapReport | None = None
        self._size_limit: int | None = None
        self._closed = False

    @overload
    def __call__(self, frame: np.ndarray, *, inputs: Inputs | None = None) -> Result: ...
    @overload
    def __call__(
        self, frame: Sequence[np.ndarray], *, inputs: Sequence[Inputs] | None = None
    ) -> list[Result]: ...
    def __call__(self, frame: Any, *, inputs: Any = None) -> Result | list[Result]:
        """Answer one frame, or a list of frames as a batch; see ``Session.__call__``.

        While a swapped bundle is on trial, a frame that it fails is answered by the one before.
        """
        answer: Result | list[Result] = self._answer(lambda session: session(frame, inputs=inputs))
        return answer

    def look(self, frame: np.ndarray, size: int, *, inputs: Inputs | None = None) -> Result:
        """Answer one frame at a size of one's own choice; see ``Session.look``."""
        return self._answer(lambda session: session.look(frame, size, inputs=inputs))

    def swap(
        self,
        bundle: Source,
        *,
        trial: Trial | None = None,
        notify: Callable[[SwapReport], None] | None = None,
    ) -> SwapReport:
        """Let another bundle answer, from the next frame on.

        It is loaded with the options of ``load``, tested on its golden frame and warmed beside the old one,
        which goes on answering other threads; both take memory until the trial is over. A frame that the new
        one fails in its trial (an error, a lost engine, numbers that are not finite, another number of
        scores than labels) is answered by the old one, which then stays; as it does where the new one turns
        out far slower. A crash can only be survived by an isolated engine.

        Args:
            bundle: As for ``load``.
            trial: How long the trial is; 300 frames by default.
            notify: Called with the report when the trial is over, by the thread that asked for the frame. It
                must not raise.

        Returns:
            The report: ``on trial``, or ``kept`` where the trial has no frames. The last one is always in
            ``last_swap``.

        Raises:
            SwapRefused: It failed a test, or the last swap is not over. The old one goes on.
            BundleError, EngineMissing, EngineError, RecipeError: As for ``load``. The old one goes on.
        """
        trial = trial or Trial()
        if not self._swap_lock.acquire(blocking=False):
            raise SwapRefused("another thread is swapping: wait for it")
        try:
            if self._on_trial is not None:
                raise SwapRefused("the last swap is on trial: wait until last_swap says what became of it")
            begin = perf_counter()
            new, findings = self._prepared(bundle, trial)
            report = SwapReport(
                old=self.session.bundle.content_id,
                new=new.bundle.content_id,
                outcome="on trial",
                tested=findings.tested,
                time_ratio=findings.new_s / max(findings.old_s, 1e-9),
                prepared_s=perf_counter() - begin,
            )
            self._switch(new, _OnTrial(self._now, Record(trial, findings.old_s), notify), report)
        finally:
            self._swap_lock.release()
        assert self._last_swap is not None
        return self._last_swap

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engines, after the call that is running. Twice does no harm."""
        with self._lock:
            self._closed = True
            seats = [self._now] if self._on_trial is None else [self._now, self._on_trial.before]
            self._on_trial = None
        for seat in seats:
            seat.session.close()

    @property
    def last_swap(self) -> SwapReport | None:
        """What became of the last swap so far; None before the first."""
        report, on_trial = self._last_swap, self._on_trial
        if report is None or on_trial is None:
            return report
        return replace(report, frames=on_trial.record.frames)

    @property
    def session(self) -> Session:
        """The session that answers now; it is closed when another takes over."""
        return self._now.session

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self.session.engine

    @property
    def precision(self) -> str:
        """Precision of the artifacts in use."""
        return self.session.precision

    @property
    def threads(self) -> int:
        """Threads of the engine."""
        return self.session.threads

    @property
    def affinity(self) -> tuple[int, ...]:
        """Cores that the engine is bound to; empty where it may use all."""
        return self.session.affinity

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sides in pixels that the policy chooses from."""
        return self.session.sizes

    @property
    def size_limit(self) -> int | None:
        """Largest input side that the policy may choose now, through swaps; see ``Session.size_limit``."""
        return self._size_limit

    @size_limit.setter
    def size_limit(self, limit: int | None) -> None:
        self._size_limit = limit
        with self._borrowed() as (now, on_trial):
            now.size_limit = limit
            if on_trial is not None:
                on_trial.before.session.size_limit = limit

    @property
    def policy(self) -> PolicySpec:
        """How sizes are chosen."""
        return self.session.policy

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; empty where none are known."""
        return self.session.labels

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the net takes, the frame first; see ``Session.inputs``."""
        return self.session.inputs

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.session.manifest

    @property
    def isolation(self) -> IsolationReport | None:
        """What became of the engine's processes so far; None where the engine runs in this one."""
        return self.session.isolation

    def _answer(self, ask: Callable[[Session], _Answer]) -> _Answer:
        with self._borrowed() as (now, on_trial):
            if on_trial is None:
                return ask(now)
            reason = ""
            try:
                answer = ask(now)
                results = answer if isinstance(answer, list) else [answer]
                reason = next(filter(None, map(fault_in, results)), "")
            except (InputError, RecipeError):
                raise  # the caller's fault, whoever answers
            except Exception as error:
                reason = f"was an error, {type(error).__name__}: {error}"
            if reason:
                self._end_trial(on_trial, f"an answer {reason}")
                return ask(on_trial.before.session)
            with self._lock:
                on_trial.record.note(results)
                slowness, passed = on_trial.record.slowness, on_trial.record.passed
            if slowness or passed:
                self._end_trial(on_trial, slowness)
            return answer

    @contextmanager
    def _borrowed(self) -> Iterator[tuple[Session, _OnTrial | None]]:
        """Lend what answers now, and during a trial what answered before: neither is closed meanwhile."""
        with self._lock:
            on_trial = self._on_trial
            seats = [self._now] if on_trial is None else [self._now, on_trial.before]
            for seat in seats:
                seat.users += 1
        try:
            yield seats[0].session, on_trial
        finally:
            with self._lock:
                for seat in seats:
                    seat.users -= 1
                idle = [seat for seat in seats if seat.leaving and seat.users == 0]
            for seat in idle:
                let_go(seat.session)

    def _prepared(self, bundle: Source, trial: Trial) -> tuple[Session, Findings]:
        """Return a session that passed its tests; else note why not, and raise."""
        with self._borrowed() as (old, _):
            new, known = None, ""
            try:
                new = self._open_session(bundle)
                known = new.bundle.content_id
                return new, examine(new, old, trial)
            except BaseException as error:
                if new is not None:
                    new.close()
                if isinstance(error, BoardfitError):
                    ids = (old.bundle.content_id, known)
                    self._last_swap = SwapReport(*ids, "refused", reason=str(error))
                raise

    def _switch(self, new: Session, on_trial: _OnTrial, report: SwapReport) -> None:
        with self._lock:
            if self._closed:
                closed = True
            else:
                closed = False
                new.size_limit = self._size_limit  # it may have moved while the new one was tested
                self._now = _Seat(new)
                self._on_trial = on_trial
                self._last_swap = report
        if closed:
            new.close()
            raise EngineError("the session was closed during a swap: load the bundle again")
        if on_trial.record.passed:
            with self._borrowed():
                self._end_trial(on_trial, "")

    def _end_trial(self, on_trial: _OnTrial, reason: str) -> None:
        """Let one of the two go; it is freed when the last call that uses it has ended.

        Args:
            on_trial: The trial, which another thread may have ended before.
            reason: Why the new bundle has failed; empty where it has not.
        """
        with self._lock:
            if self._on_trial is not on_trial or self._last_swap is None:
                return
            self._on_trial = None
            leaving = self._now if reason else on_trial.before
            if reason:
                self._now = on_trial.before
            leaving.leaving = True
            report = self._last_swap = replace(
                self._last_swap,
                outcome="rolled back" if reason else "kept",
                reason=reason,
                frames=on_trial.record.frames,
            )
        if reason:
            logging.getLogger("boardfit").warning("bundle %.12s is rolled back: %s", report.new, reason)
        if on_trial.notify is not None:
            on_trial.notify(report)


@dataclass(slots=True, eq=False)
class _Seat:
    """A session, how many calls use it, and whether it is freed after the last of them."""

    session: Session
    users: int = 0
    leaving: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _OnTrial:
    """The trial of the session that answers now: who answered before, how it does, and who wants to know."""

    before: _Seat
    record: Record
    notify: Callable[[SwapReport], None] | None
