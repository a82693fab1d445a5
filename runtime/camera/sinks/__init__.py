"""Where answers go: each sink in its own thread, behind a queue that is bounded."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2

from boardfit.errors import SinkError
from boardfit.runtime.camera.records import Event, Frame
from boardfit.runtime.results import Result

SINK_FAILED = "sink-failed"
SINK_WORKS = "sink-works"
_WAITING = 8
"""Answers that may wait for a sink; a frame of 1920x1080 takes 6 MB."""
_EVENTS = 64
"""Events that may wait for one, the newest ones: they are kept while it does not work."""
_RETRY_S = 10.0
_TICK_S = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One delivered answer.

    Attributes:
        frame: The picture, which belongs to all sinks: nobody writes to it.
        result: What the model said.
        age_s: From the frame's arrival to the delivery.
        reused: Whether nothing had moved, so that the last answer stood.
    """

    frame: Frame
    result: Result
    age_s: float
    reused: bool = False


@runtime_checkable
class Sink(Protocol):
    """Takes answers, in one thread. A plain function of an Answer serves too."""

    def write(self, item: Answer | Event) -> None:
        """Take an answer or an event.

        Raises:
            SinkError: It cannot be taken; the sink is tried again later.
        """
        ...

    def close(self) -> None:
        """Finish the file, if there is one."""
        ...


class Callback:
    """A function as a sink."""

    def __init__(self, function: Callable[[Answer], object]) -> None:
        self._function = function

    def write(self, item: Answer | Event) -> None:
        """Hand an answer on; events go to ``on_event``."""
        if isinstance(item, Answer):
            self._function(item)

    def close(self) -> None:
        """Nothing is held."""


class SinkThread:
    """Feeds one sink. What it cannot take in time is dropped and counted; what it cannot write is an event.

    Attributes:
        written: Answers that the sink took.
        dropped: Answers that gave way, or came while the sink did not work.
    """

    def __init__(
        self,
        sink: Sink | Callable[[Answer], object],
        *,
        waits: Callable[[], bool],
        tell: Callable[[Event], None],
    ) -> None:
        """Start the thread.

        Args:
            sink: Takes the answers.
            waits: Tells whether the loop waits for the sink, as it does where every frame of a file counts,
                until it is stopped.
            tell: Takes the events ``sink-failed`` and ``sink-works``.
        """
        self.written = 0
        self.dropped = 0
        self._sink: Sink = sink if isinstance(sink, Sink) else Callback(sink)
        named = type(sink) if isinstance(sink, Sink) else sink
        self.name: str = getattr(named, "__name__", "callback")
        self._waits = waits
        self._tell = tell
        self._queue: deque[Answer | Event] = deque()
        self._changed = threading.Condition()
        self._write_until = math.inf
        self._failed_at = -math.inf
        self._works = True
        self._thread = threading.Thread(target=self._run, name=f"sink {self.name}", daemon=True)
        self._thread.start()

    def put(self, item: Answer | Event) -> None:
        """Queue an answer or an event."""
        is_answer = isinstance(item, Answer)
        limit = _WAITING if is_answer else _EVENTS
        with self._changed:
            # An event may come from this sink's own thread, which must not wait for itself.
            while is_answer and self._count(Answer) >= limit and self._waits() and not self._closing:
                self._changed.wait(_TICK_S)
            self._drop(Answer if is_answer else Event, keep=limit - 1)
            self._queue.append(item)
            self._changed.notify_all()

    def end(self, write_s: float) -> None:
        """Have the thread write what waits, and finish the sink.

        Args:
            write_s: Seconds after which answers that still wait are dropped: a film needs time for its end.
        """
        with self._changed:
            self._write_until = time.monotonic() + write_s
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; return whether it came in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether it is the sink's own thread that asks."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (item := self._next()) is not None:
            self._write(item)
        try:
            self._sink.close()
        except (Exception, SystemExit) as error:
            self._tell(Event(SINK_FAILED, time.monotonic(), self.name, f"it could not be finished: {error}"))

    @property
    def _closing(self) -> bool:
        return self._write_until < math.inf

    def _count(self, kind: type) -> int:
        return sum(isinstance(item, kind) for item in self._queue)

    def _drop(self, kind: type, *, keep: int) -> None:
        """Drop the oldest answers, or events, but for so many."""
        items = [item for item in self._queue if isinstance(item, kind)]
        for item in items[: max(0, len(items) - keep)]:
            self._queue.remove(item)
            self.dropped += isinstance(item, Answer)

    def _next(self) -> Answer | Event | None:
        """Return what is to be written now; None for the end. A sink that fails is spared for a while."""
        with self._changed:
            while True:
                now = time.monotonic()
                pause_s = self._failed_at + _RETRY_S - now
                if pause_s > 0.0 or now >= self._write_until:
                    self._drop(Answer, keep=0)
                if self._queue and (pause_s <= 0.0 or self._closing):
                    item = self._queue.popleft()
                    self._changed.notify_all()
                    return item
                if self._closing:
                    return None
                self._changed.wait(pause_s if self._queue else None)

    def _write(self, item: Answer | Event) -> None:
        try:
            self._sink.write(item)
        except (Exception, SystemExit) as error:  # a full disk or a user's slip must not end the loop
            known = isinstance(error, (SinkError, OSError, cv2.error))
            self._fail(item, str(error) if known else f"{type(error).__name__}: {error}", keep=known)
            return
        if isinstance(item, Answer):  # a film takes every event
            self.written += 1
            if not self._works:
                self._works = True
                self._tell(Event(SINK_WORKS, time.monotonic(), self.name, "it works again"))

    def _fail(self, item: Answer | Event, why: str, *, keep: bool) -> None:
        worked, self._works = self._works, False
        self._failed_at = time.monotonic()
        with self._changed:
            if isinstance(item, Answer):
                self.dropped += 1
            elif keep and not self._closing:
                self._queue.appendleft(item)
                self._drop(Event, keep=_EVENTS)
        if worked:
            self._tell(Event(SINK_FAILED, self._failed_at, self.name, why))
