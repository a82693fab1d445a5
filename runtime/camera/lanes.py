"""Lanes to one engine: work is taken, done and handed on in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

_AHEAD = 2
"""Pieces of work under way or done while somebody waits for one."""
_TICK_S = 0.05
_IDLE_SHARE = 0.05
"""Of the time that the last work took: for so long, and for a tick at most, a lane waits for newer work."""


class Lanes:
    """Threads that take work, do it, and hand it on in order. The one who waits sets the pace.

    While somebody waits for the next outcome, two pieces of work are under way or done; while he is busy
    elsewhere, one: nothing is done ahead that would have grown old when it is fetched.
    """

    def __init__(
        self,
        take: Callable[[float, float], Any],
        do: Callable[[Any], Any],
        *,
        count: int,
        is_over: Callable[[], bool],
    ) -> None:
        """Start nothing yet.

        Args:
            take: Waits for work, for at most so many seconds, and where there is some, for at most so many
                seconds for newer work; None if there is none.
            do: Does it, and returns the outcome. Runs in ``count`` threads. Must not raise.
            count: Of lanes. With two, work is prepared while other work has the engine.
            is_over: Whether no work will come any more.
        """
        self._take, self._do, self._is_over = take, do, is_over
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._waiting = False
        self._stopping = False
        self._taken = 0
        self._fetched = 0
        self._begun: dict[int, float] = {}
        self._done: dict[int, Any] = {}
        self._took_s = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"lane {number}", daemon=True) for number in range(count)
        ]
        self._started = False

    def next(self, timeout_s: float) -> Any:
        """Return the next outcome, in the order in which the work was taken; None if none comes in time."""
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._waiting = True
            self._changed.notify_all()
            while self._fetched not in self._done:
                left_s = deadline - time.monotonic()
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
        return 0.0 if began is None else time.monotonic() - began

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
            outcome = self._do(work)
            with self._changed:
                self._took_s = time.monotonic() - self._begun.pop(number)
                self._done[number] = outcome
                self._changed.notify_all()

    def _next_work(self) -> tuple[Any, int]:
        """Wait until work may be taken and there is some."""
        while not self._stopping and not self._is_over():
            with self._changed:
                if len(self._begun) + len(self._done) >= (_AHEAD if self._waiting else 1):
                    self._changed.wait(_TICK_S)
                    continue
            work = self._take(_TICK_S, min(_TICK_S, _IDLE_SHARE * self._took_s))
            if work is not None:
                with self._changed:
                    number = self._taken
                    self._taken += 1
                    self._begun[number] = time.monotonic()
                return work, number
        with self._changed:
            self._changed.notify_all()
        return None, -1
