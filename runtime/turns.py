"""One run of the engine at a time.

Threads that share an engine take turns with it. If each ran it itself, the engine would go back and forth
between them, and each run would end in a wait for Python's lock, behind threads that the kernel has put to
sleep while they held it. So a run that finds the engine busy is left to a thread that does nothing else, and
the kernel sees one steady thread beside several that do little. One that finds the engine idle runs where it
was asked for, and costs nothing more. ``benchmarks/evidence/camera_overlap.py`` measures it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from boardfit.errors import EngineError

T = TypeVar("T")
_Waiting = SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]


class Turns:
    """Runs one piece of work at a time, until it is closed."""

    def __init__(self, *, hand_over: bool) -> None:
        """Start nothing yet.

        Args:
            hand_over: Whether work that has to wait is done by a thread of its own; else by the one that
                asked, as where the engine is in another thread or process already. As every thread, it
                has the cores and the priority of the one that starts it, which is the first to wait.
        """
        self._hand_over = hand_over
        self._closing = self._closed = False
        self._busy = threading.Lock()
        self._gate = threading.Lock()
        self._waiting: _Waiting = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._end = weakref.finalize(self, self._waiting.put, None)
        self._end.atexit = False

    def run(self, work: Callable[[], T]) -> T:
        """Return what the work returns, or raise what it raises.

        Raises:
            EngineError: It is closed.
        """
        if self._busy.locked() or not self._waiting.empty():
            done = self._handed_over(work)
            if done is not None:
                try:
                    return done.result()
                finally:
                    done.cancel()  # it is of no use to one who was interrupted
                    del done  # a traceback would keep its error, and the error the traceback
        with self._busy:
            self.refuse_if_closed()
            return work()

    def close(self, last: Callable[[], object]) -> None:
        """Let what waits be done, and then the last piece of work. Twice does no harm."""
        with self._gate:
            self._closing = True
            self._end()
        if self._thread is not None:
            self._thread.join()
        with self._busy:
            if not self._closed:
                self._closed = True
                last()

    def refuse_if_closed(self) -> None:
        """Say so where nothing can be run any more.

        Raises:
            EngineError: It is closed.
        """
        if self._closed:
            raise EngineError("the session is closed: load the bundle again")

    def _handed_over(self, work: Callable[[], T]) -> Future[T] | None:
        """Leave work to the thread; None where there is none."""
        with self._gate:
            if self._closing or not self._hand_over:
                return None
            if self._thread is None or not self._thread.is_alive():  # in a fork there is none
                served = (self._waiting, self._busy)
                thread = threading.Thread(target=_serve, args=served, name="engine", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads may be started
                    return None
                self._thread = thread
            done: Future[T] = Future()
            self._waiting.put((work, done))
            return done


def _serve(waiting: _Waiting, busy: threading.Lock) -> None:
    """Do what waits until there is a None; holds nothing of the Turns, so that it can be collected."""
    while (item := waiting.get()) is not None:
        work, done = item
        with busy:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work())
                except BaseException as error:
                    done.set_exception(error)
        del item, work, done  # they hold frames and answers
    waiting.put(None)  # for another one, which an interrupt over its start has left unknown
