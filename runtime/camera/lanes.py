"""Two lanes to one engine: a frame is prepared while another one is inferred, and none is taken early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

LANES = 2
_TICK_S = 0.05
_WEIGHT = 0.2
"""Of the newest duration in the running mean, and of its error in the running mean deviation."""
_IDLE_SHARE = 0.05
"""Of an engine's run, that it may idle for a newer frame."""
_DEVIATIONS = 4.0
"""Above the mean is the time that hardly any frame exceeds, as RFC 6298 takes it for round trips."""


class Pace:
    """Says when the next frame is to be taken, so that it is ready just when the engine is free.

    Taken earlier, it would grow old in the queue before the engine; taken later, the engine would idle. Where
    times vary, the engine idles for a while rather: when it is free, the next frame is taken at once. So
    it does for a newer frame, if that is due in a moment: a frame that is there has waited for up to an
    interval of the camera.
    """

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._deviation_s = 0.0
        self._free_at = 0.0

    def delay_s(self, now: float) -> float:
        """Return how long to wait before the next frame is taken."""
        return self._free_at + _DEVIATIONS * self._deviation_s - now

    @property
    def idle_s(self) -> float:
        """For how long the engine may idle for a newer frame."""
        return _IDLE_SHARE * self._busy_s

    def began(self, now: float) -> None:
        """Note that a frame was taken: it will keep the engine busy for as long as others did."""
        self._free_at = max(now, self._free_at) + self._busy_s

    def done(self, now: float, busy_s: float, *, others: bool) -> None:
        """Note that a frame is done.

        Args:
            now: Seconds.
            busy_s: For how long it kept the engine busy; 0.0 if it needed none.
            others: Whether another one is under way, which has the engine now.
        """
        if busy_s <= 0.0:
            self._free_at -= self._busy_s
            return
        if self._busy_s > 0.0:
            error_s = busy_s - self._busy_s
            self._deviation_s += _WEIGHT * (abs(error_s) - self._deviation_s)
            self._busy_s += _WEIGHT * error_s
        else:
            self._busy_s = busy_s
        self._free_at = now + self._busy_s if others else 0.0


class Lanes:
    """Threads that take work, do it, and hand it on in order. The one who waits sets the pace.

    While somebody waits for the next outcome, two pieces of work are under way; while he is busy elsewhere,
    one: nothing is done ahead that would have grown old when it is fetched.
    """

    def __init__(
        self,
        take: Callable[[float, float], Any],
        do: Callable[[Any], tuple[Any, float]],
        *,
        is_over: Callable[[], bool],
        pace: Pace | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            take: Waits for work, for at most so many seconds, and where there is some, for at most so many
                seconds for newer work; None if there is none.
            do: Does it, and returns the outcome and for how many seconds the engine was busy. Runs in two
                threads. Must not raise.
            is_over: Whether no work will come any more.
            pace: When to take work; None for as soon as there is a lane.
            clock: Seconds, ascending.
        """
        self._take, self._do, self._is_over = take, do, is_over
        self._pace = pace
        self._clock = clock
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._waiting = False
        self._stopping = False
        self._taken = 0
        self._fetched = 0
        self._begun: dict[int, float] = {}
        self._done: dict[int, Any] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"lane {number}", daemon=True) for number in range(LANES)
        ]
        self._started = False

    def next(self, timeout_s: float) -> Any:
        """Return the next outcome, in the order in which the work was taken; None if none comes in time."""
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        deadline = self._clock() + timeout_s
        with self._changed:
            self._waiting = True
            self._changed.notify_all()
            while self._fetched not in self._done:
                left_s = deadline - self._clock()
                if left_s <= 0.0 or self._stopping or self._over():
                    return None
                self._changed.wait(min(left_s, _TICK_S))
            self._waiting = False
            self._fetched += 1
            return self._done.pop(self._fetched - 1)

    @property
    def over(self) -> bool:
        """Whether all work is done and fetched, or ``stop`` was called."""
        with self._changed:
            return self._stopping or self._over()

    def longest_s(self) -> float:
        """Return for how long the oldest piece of work has been under way."""
        with self._changed:
            began = min(self._begun.values(), default=None)
        return 0.0 if began is None else self._clock() - began

    def stop(self) -> None:
        """Take no more work. Takes no lock, so that a signal's handler may call it."""
        self._stopping = True

    def join(self, timeout_s: float) -> bool:
        """Wait for the work under way; return whether it ended in time."""
        self._stopping = True
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _over(self) -> bool:
        return not self._begun and not self._done and not self._turn.locked() and self._is_over()

    def _run(self) -> None:
        while not self._stopping:
            with self._turn:
                work, number = self._next_work()
            if work is None:
                return
            outcome, busy_s = self._do(work)
            with self._changed:
                self._done[number] = outcome
                del self._begun[number]
                if self._pace is not None:
                    self._pace.done(self._clock(), busy_s, others=bool(self._begun))
                self._changed.notify_all()

    def _next_work(self) -> tuple[Any, int]:
        """Wait until work may be taken and there is some."""
        while not self._stopping and not self._is_over():
            with self._changed:
                now = self._clock()
                delay_s = self._delay_s(now)
                if delay_s > 0.0:
                    self._changed.wait(min(delay_s, _TICK_S))
                    continue
            work = self._take(_TICK_S, 0.0 if self._pace is None else self._pace.idle_s)
            if work is not None:
                with self._changed:
                    now = self._clock()
                    number = self._taken
                    self._taken += 1
                    self._begun[number] = now
                    if self._pace is not None:
                        self._pace.began(now)
                return work, number
        with self._changed:
            self._changed.notify_all()
        return None, -1

    def _delay_s(self, now: float) -> float:
        under_way = len(self._begun)
        if under_way + len(self._done) >= (LANES if self._waiting else 1):
            return _TICK_S
        if under_way == 0 or self._pace is None:
            return 0.0
        return self._pace.delay_s(now)
