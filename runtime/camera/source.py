"""A watched camera: a thread that reads it, one that watches, and the newest frame."""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import numpy as np

from boardfit.errors import CameraError
from boardfit.runtime.camera.capture import Capture, Opener
from boardfit.runtime.camera.records import ENDED, LIVE, STUCK, Event, Frame, WatchSettings
from boardfit.runtime.camera.slot import Slot
from boardfit.runtime.camera.watch import Watch

TICK_S = 0.1
_MOST_GIVEN_UP = 3
"""Threads that may hang in a driver at once; more would be a leak."""
_SLOW_S = 60.0
"""For a listener; and beyond its limit for a camera that is being opened: looking a name up may take that."""
_CLOSE_S = 0.2
_AT_EXIT_S = 1.0
"""For readers to come back from their drivers: a service has a second to end in."""


class Source:
    """Yields frames, newest first; made by ``camera.open``. A context manager.

    It never ends by itself but for files: an outage is an event, and the camera is opened again.

    Attributes:
        name: Of the source, without any password.
        live: Whether old frames give way to new ones; a file may be read frame by frame instead.
        slot: Where the frames are handed over.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        name: str,
        settings: WatchSettings | None = None,
        live: bool = True,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Start reading, in the background.

        Args:
            opener: Opens the device; called again after each outage.
            name: For events.
            settings: When the camera counts as faulty.
            live: Whether old frames give way; else every frame is handed over, and reading waits.
            on_event: Called with every change of state, from the threads of the source.
        """
        self.name = name
        self.live = live
        self.slot = Slot(lossless=not live)
        self._opener = opener
        self._settings = settings or WatchSettings()
        self._listeners = [on_event] if on_event else []
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._told_since = math.inf
        self._watch = Watch(self._settings, source=name, now=time.monotonic())
        self._frames = 0
        self._stuck = 0
        self._taken = False
        self._stop = threading.Event()
        self._first = threading.Event()
        self._given_up: list[threading.Thread] = []
        self._supervisor = threading.Thread(target=self._supervise, name=f"watch {name}", daemon=True)
        self._start_capture()
        try:
            self._supervisor.start()
        except BaseException:
            self._ask_to_stop()
            raise
        _OPEN_SOURCES.add(self)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the file is over or the source is closed."""
        while not self.ended:
            frame = self.take(TICK_S)
            if frame is not None:
                yield frame

    def take(self, timeout_s: float) -> Frame | None:
        """Return the newest frame that was not taken yet, or None if none comes in time."""
        return self.slot.take(timeout_s)

    def wait_live(self, timeout_s: float) -> None:
        """Wait for the first good frame.

        Raises:
            CameraError: The camera cannot be opened, or gives no frame in time. It goes on trying.
        """
        self._first.wait(timeout_s)
        error = self._capture.error
        if self._frames or (self.state == ENDED and error is None):
            return
        why = self._watch.detail or "is the camera on?"
        raise error or CameraError(f"{self.name} gave no good frame within {timeout_s:g} s: {why}")

    def claim(self) -> None:
        """Take the source for one loop.

        Raises:
            CameraError: Another loop has it.
        """
        with self._lock:
            if self._taken:
                raise CameraError(
                    f"{self.name} is read by another loop, and each would get half of the frames: "
                    "give one loop both sinks, or open the source twice"
                )
            self._taken = True

    def release(self) -> None:
        """Let another loop have the source."""
        self._taken = False

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Have a function called with every event, from the threads of the source: keep it short."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[Event], None]) -> None:
        """Take back ``subscribe``."""
        self._listeners = [other for other in self._listeners if other != listener]

    @property
    def state(self) -> str:
        """``opening``, ``live``, a fault's name, or ``ended``."""
        return self._watch.state

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return (self.state == ENDED or self._stop.is_set()) and self.slot.is_empty()

    @property
    def is_lost(self) -> bool:
        """Whether nothing but starting anew will bring a frame.

        The driver hangs, and so do all threads that may be left behind; or a listener has held one of the
        source's threads for a minute.
        """
        if self._stop.is_set():
            return False
        now = time.monotonic()
        if now - self._told_since > _SLOW_S:
            return True
        return len(self._given_up) >= _MOST_GIVEN_UP and self._hangs(
            now - _SLOW_S if self._capture.opens else now
        )

    @property
    def counters(self) -> dict[str, int]:
        """Good frames, dropped ones, and how often each state was entered."""
        with self._lock:
            states = dict(self._watch.counters)
        return {"frames": self._frames, "dropped": self.slot.dropped, STUCK: self._stuck, **states}

    def close(self) -> None:
        """Stop reading, and wait for a moment. A driver that does not return is left to itself."""
        close_all([self])

    def _ask_to_stop(self) -> None:
        self._stop.set()
        self.slot.close()
        self._first.set()
        self._capture.interrupt()

    def _join(self, until_s: float) -> bool:
        """Wait for the threads; return whether all have ended. A listener may close from one of them."""
        threads = (self._supervisor, self._thread, *self._given_up)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start_capture(self) -> None:
        capture = Capture(
            self._opener, self._watch, lock=self._lock, clock=time.monotonic, deliver=self._take_in
        )
        thread = threading.Thread(target=self._read, args=(capture,), name=f"read {self.name}", daemon=True)
        thread.start()
        self._capture, self._thread = capture, thread
        if self._stop.is_set():  # a close in between has asked the one before
            capture.interrupt()

    def _read(self, capture: Capture) -> None:
        try:
            while not (self._stop.is_set() or capture.abandoned):
                pause_s = capture.step()
                self._tell()
                if pause_s is None:
                    if not capture.abandoned:
                        self.slot.close()
                        self._first.set()
                    break
                if capture.error is not None:
                    self._first.set()
                if pause_s > 0.0:
                    self._stop.wait(pause_s)
        finally:
            capture.close()

    def _take_in(self, image: np.ndarray, now: float) -> None:
        frame = Frame(image, now, self._frames, self.name)
        self._frames += 1
        self.slot.put(frame)
        self._first.set()

    def _supervise(self) -> None:
        fails = False
        while not self._stop.wait(TICK_S):
            try:
                self._look_after()
                fails = False
            except Exception:  # no memory, no more threads: perhaps there are some in the next tick
                if not fails:
                    logging.getLogger("boardfit").exception("%s: the watch failed", self.name)
                fails = True

    def _look_after(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._watch.tick(now)
        self._tell()
        self._given_up = [thread for thread in self._given_up if thread.is_alive()]
        if not (self._thread.is_alive() or self.state == ENDED):
            with self._lock:
                self._watch.closed()
            self._start_capture()
        elif self._hangs(now) and len(self._given_up) < _MOST_GIVEN_UP:
            self._replace_capture(now)

    def _hangs(self, now: float) -> bool:
        limit_s = self._settings.open_s
        if self._watch.has_frames:
            limit_s = max(self._settings.stuck_s, 1.5 * self._watch.silence_s())
        return self.live and self._capture.hangs_for_s(now) > limit_s

    def _replace_capture(self, now: float) -> None:
        hung, thread = self._capture, self._thread
        with self._lock:  # neither of the two is heard before the old one is given up
            self._start_capture()
            self._stuck += 1
            self._watch.events.append(hung.give_up(now, self.name))
            self._watch.closed()
        self._given_up.append(thread)
        self._tell()

    def _tell(self) -> None:
        """Hand the watch's new events to the log and to whoever listens, in their order.

        One thread at a time: the reader waits for its turn, so that a slow listener holds the camera, and
        events do not pile up. The thread that watches has more to do: it looks again in its next tick.
        """
        watches = threading.current_thread() is self._supervisor
        while self._watch.events:
            if self._telling.acquire(timeout=0.0 if watches else TICK_S):
                try:
                    self._hand_on()
                finally:
                    self._telling.release()
            elif self._stop.is_set():
                break
            if watches and not self._stop.is_set():
                break

    def _hand_on(self) -> None:
        with self._lock:
            events, self._watch.events = self._watch.events, []
        try:
            for event in events:
                self._told_since = time.monotonic()
                self._tell_of(event)
        finally:
            self._told_since = math.inf

    def _tell_of(self, event: Event) -> None:
        log = logging.getLogger("boardfit")
        level = logging.INFO if event.kind in (LIVE, ENDED) else logging.WARNING
        log.log(level, "%s: %s%s", event.source, event.kind, f", {event.detail}" if event.detail else "")
        for listener in self._listeners:
            try:
                listener(event)
            except (Exception, SystemExit):
                log.exception("a listener to camera events failed")


def close_all(sources: Iterable[Source], *, timeout_s: float = _CLOSE_S) -> None:
    """Close sources together: no camera that is silent lets the next one wait.

    Args:
        sources: May be closed already.
        timeout_s: For the readers of all of them.
    """
    closing = list(sources)
    for source in closing:
        source._ask_to_stop()
    until_s = time.monotonic() + timeout_s
    for source in closing:
        if source._join(until_s):
            _OPEN_SOURCES.discard(source)


_OPEN_SOURCES: weakref.WeakSet[Source] = weakref.WeakSet()


@atexit.register
def _let_all_end() -> None:
    """Wait for the readers: one that is inside OpenCV when the interpreter ends takes the process down."""
    close_all(_OPEN_SOURCES, timeout_s=_AT_EXIT_S)
