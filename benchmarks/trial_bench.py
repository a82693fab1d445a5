"""Times setups of one bundle against each other: holds their sessions, and drops those that fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from boardfit.benchmarks.cases import given_inputs
from boardfit.benchmarks.halving import Runs
from boardfit.errors import BoardfitError, BundleError
from boardfit.runtime.choose import Setup
from boardfit.runtime.selftest import golden_or_grey, judge, recorded_answer
from boardfit.runtime.session import Session, load
from boardfit.specs import PolicySpec
from boardfit.timing import LEAD_IN_S, time_paired

if TYPE_CHECKING:
    from boardfit.bundle import Bundle

BURST = 6
"""Timed runs in a row: the wait before them, until the pools of others are still, is worth some."""

Meter = Callable[[Callable[[], object]], float]


class TrialBench:
    """The sessions of a tune; a context manager.

    Attributes:
        failed: One sentence for each setup that was dropped.
    """

    def __init__(
        self,
        bundle: Bundle,
        sizes: Sequence[int],
        *,
        at_once: int,
        meter: Meter | None,
        clock: Callable[[], float],
    ) -> None:
        """Load nothing yet.

        Args:
            bundle: Open bundle.
            sizes: Input sides in pixels, ascending.
            at_once: Sessions that may be open together, at least 1.
            meter: Runs a call for a while and returns joules per run; None meters nothing.
            clock: Seconds.
        """
        self.failed: list[str] = []
        self._bundle = bundle
        self._policy = PolicySpec("entropy", tuple(sizes), (9.0,) * (len(sizes) - 1))
        self._at_once = at_once
        self._meter = meter
        self._clock = clock
        self._frame = golden_or_grey(bundle)
        self._golden = bundle.golden_frame() is not None
        self._given = given_inputs(bundle)
        self._sessions: dict[Setup, Session] = {}

    def __enter__(self) -> TrialBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for setup in list(self._sessions):
            self._drop(setup)

    def measure(self, size: int, setups: Sequence[Setup], rounds: int) -> dict[Setup, Runs]:
        """Time setups in turn, as many together as may be open.

        Args:
            size: Input side in pixels.
            setups: Distinct.
            rounds: Of ``BURST`` runs each.

        Returns:
            Runs by setup, without those that failed.

        Raises:
            BundleError: The bundle is damaged.
        """
        found: dict[Setup, Runs] = {}
        for start in range(0, len(setups), self._at_once):
            group = list(setups[start : start + self._at_once])
            for setup in [setup for setup in self._sessions if setup not in group]:
                if len(set(self._sessions) | set(group)) > self._at_once:
                    self._drop(setup)
            calls = {}
            for setup in group:
                call = self._ready(setup, size)
                if call is not None:
                    calls[setup] = call
            found |= self._timed(calls, rounds)
        return found

    def _ready(self, setup: Setup, size: int) -> Callable[[], object] | None:
        """Return what is to be timed, after its first run and a look at its answer; None where it fails."""
        try:
            if setup not in self._sessions:
                self._sessions[setup] = load(
                    self._bundle,
                    engine=setup.engine,
                    precision=setup.precision,
                    threads=setup.threads,
                    affinity=setup.affinity,
                    policy=self._policy,
                )
            session = self._sessions[setup]
            look = partial(session.look, self._frame, size, inputs=self._given)
            result = look()
            reason = self._wrong(session, size, result.outputs)
        except BundleError:
            raise
        except BoardfitError as error:
            reason = str(error)
        if reason:
            self._fail(setup, size, reason)
            return None
        return look

    def _wrong(self, session: Session, size: int, outputs: Sequence[np.ndarray]) -> str:
        """Return how the golden frame's answer is off here; empty where it is not, or none is known."""
        if not self._golden:
            return ""
        artifact = session.artifact(size)
        test = judge(
            self._bundle,
            artifact,
            engine=session.engine,
            size=size,
            outputs=outputs,
            recorded=recorded_answer(self._bundle, artifact),
        )
        return (
            "" if test.passed else f"its answer to the golden frame is off by {test.error:.2g} of the range"
        )

    def _timed(self, calls: Mapping[Setup, Callable[[], object]], rounds: int) -> dict[Setup, Runs]:
        """Time what does not fail meanwhile."""
        left = dict(calls)
        while left:
            try:
                names = {str(number): setup for number, setup in enumerate(left)}
                timed = time_paired(
                    {name: partial(_run, setup, left[setup]) for name, setup in names.items()},
                    rounds=rounds,
                    warmup=0,
                    lead_in_s=LEAD_IN_S,
                    burst=BURST,
                    clock=self._clock,
                )
                return {
                    setup: Runs(
                        timed[name].values_s,
                        () if self._meter is None else (self._meter(partial(_run, setup, left[setup])),),
                    )
                    for name, setup in names.items()
                }
            except _SetupFailed as failure:
                self._fail(failure.setup, 0, str(failure.__cause__))
                del left[failure.setup]
        return {}

    def _fail(self, setup: Setup, size: int, reason: str) -> None:
        self.failed.append(f"{setup.text}{f' at {size}' if size else ''}: {reason}")
        self._drop(setup)

    def _drop(self, setup: Setup) -> None:
        session = self._sessions.pop(setup, None)
        if session is not None:
            session.close()


class _SetupFailed(Exception):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.text)
        self.setup = setup


def _run(setup: Setup, call: Callable[[], object]) -> object:
    try:
        return call()
    except BoardfitError as error:
        raise _SetupFailed(setup) from error
