"""One run of the engine at a time.

Threads that share an engine take turns with it. If each ran it itself, the engine would go back and forth
between them, from core to core, and each run would end in a wait for Python's lock, behind threads that the
kernel has put to sleep while they held it. So a run is left to a thread that does nothing else where another
thread asked for the one before, or has the engine; the kernel sees one steady thread beside several that do
little. Who asks again runs it himself, and pays nothing. ``benchmarks/evidence/camera_overlap.py`` measures
it.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from boardfit.errors import EngineError

T = TypeVar("T")


class _Piece:
    """A piece of work that was handed over.

    No ``Future``: its condition is locked in Python, so one who is interrupted over it can leave it locked
    (seen), and the thread would wait for ever. Here the thread waits for nobody.

    Attributes:
        work: What is to be done.
        done: Locked until it is.
        unwanted: Whether nobody waits for it any more.
        answer, error: What came of it.
    """

    __slots__ = ("answer", "done", "error", "unwanted", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = threading.Lock()
        self.done.acquire()
        self.unwanted = False
        self.answer: Any = None
        self.error: BaseException | None = None


_Waiting = SimpleQueue[_Piece | None]


class Turns:
    """Runs one piece of work at a time, until it is closed."""

    def __init__(self, *, hand_over: bool) -> None:
        """Start nothing yet.

        Args:
            hand_over: Whether threads that share it leave their work to one of its own; else each does its
                own, as where the engine is in another thread or process already. As every thread, it has
                the cores and the priority of the one that starts it, which is the first to share.
        """
        self._hand_over = hand_over
        self._closing = self._closed = False
        self._asked_last: int | None = None
        self._busy = threading.Lock()
        self._gate = threading.Lock()
        self._waiting: _Waiting = SimpleQueue()
        self._thread: threading.Thread | None = None
        weakref.finalize(self, self._waiting.put, None).atexit = False
        _OPEN.add(self)

    def run(self, work: Callable[[], T]) -> T:
        """Return what the work returns, or raise what it raises.

        Raises:
            EngineError: It is closed.
        """
        caller = threading.get_ident()
        asked_last, self._asked_last = self._asked_last, caller
        if asked_last not in (None, caller) or self._busy.locked() or not self._waiting.empty():
            piece = self._handed_over(work)
            if piece is not None:
                answer: T = self._come_of(piece)
                return answer
        with self._busy:
            self.refuse_if_closed()
            return work()

    def close(self, last: Callable[[], object]) -> None:
        """Let what waits be done, and then the last piece of work. Twice does no harm."""
        with self._gate:
            self._closing = True
            self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()
        with self._busy:
            if not self._closed:
                self._closed = True
                last()

    def let_end(self, within_s: float) -> None:
        """Wait for the piece of work that is being done, if there is one."""
        if self._busy.acquire(timeout=within_s):
            self._busy.release()

    def refuse_if_closed(self) -> None:
        """Say so where nothing can be run any more.

        Raises:
            EngineError: It is closed.
        """
        if self._closed:
            raise EngineError("the session is closed: load the bundle again")

    @staticmethod
    def _come_of(piece: _Piece) -> Any:
        """Wait for a piece of work; return what it returned, or raise what it raised."""
        try:
            piece.done.acquire()
        except BaseException:  # an interrupt
            piece.unwanted = True
            raise
        error, piece.error = piece.error, None
        if error is None:
            return piece.answer
        try:
            raise error
        finally:
            del error  # the traceback would keep this frame, and the frame the error

    def _handed_over(self, work: Callable[[], Any]) -> _Piece | None:
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
            piece = _Piece(work)
            self._waiting.put(piece)
            return piece


def _serve(waiting: _Waiting, busy: threading.Lock) -> None:
    """Do what waits until there is a None; holds nothing of the Turns, so that it can be collected."""
    while (piece := waiting.get()) is not None:
        with busy:
            if not piece.unwanted:
                try:
                    piece.answer = piece.work()
                except BaseException as error:
                    piece.error = error
        piece.done.release()
        del piece  # it holds a frame and an answer
    waiting.put(None)  # for another one, which an interrupt over its start has left unknown


_OPEN: weakref.WeakSet[Turns] = weakref.WeakSet()
_AT_EXIT_S = 1.0
"""That a run may still take: a service has a second to end in, whatever its engine does."""


@atexit.register
def _let_all_end() -> None:
    """Wait for the engines: a thread that is inside one when the interpreter ends takes the process down."""
    for turns in list(_OPEN):
        turns.let_end(_AT_EXIT_S)
