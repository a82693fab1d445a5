"""Opens a device, reads it, opens it again: one step at a time, on whatever clock it is given."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from boardfit.errors import CameraError
from boardfit.names import text_without_password
from boardfit.runtime.camera.devices import Device, LoginRefused, StreamEnded
from boardfit.runtime.camera.records import STUCK, Event
from boardfit.runtime.camera.watch import Watch
from boardfit.runtime.preprocess import as_bgr

Opener = Callable[[], Device]


class Capture:
    """One thread's hold on a device. Another one may take its place while it hangs in a driver's call.

    Attributes:
        error: Why the last attempt to open or read failed; None once frames came.
        abandoned: Whether what it reads is thrown away.
        opens: Whether the device is just being opened.
    """

    def __init__(
        self,
        opener: Opener,
        watch: Watch,
        *,
        lock: threading.Lock,
        clock: Callable[[], float],
        deliver: Callable[[np.ndarray, float], None],
    ) -> None:
        """Open nothing yet.

        Args:
            opener: Opens the device.
            watch: The camera's state, shared with whoever ticks it.
            lock: Guards the watch.
            clock: Seconds, ascending.
            deliver: Gets every good picture and the time at which it came.
        """
        self.error: CameraError | None = None
        self.abandoned = self.opens = False
        self._opener = opener
        self._watch = watch
        self._lock = lock
        self._clock = clock
        self._deliver = deliver
        self._device: Device | None = None
        self._call_began: float | None = None

    def step(self) -> float | None:
        """Open or read once.

        Returns:
            Seconds to wait before the next step; None if there is none, since the file is over.
        """
        try:
            if self._device is None:
                self._open()
                return 0.0
            self._judge(self._call(self._device.read))
        except CameraError as error:
            return self._failed(error)
        except StreamEnded:
            with self._lock:
                if not self.abandoned:
                    self._watch.ended(self._clock())
            self.close()
            return None
        except Exception as error:  # our own slip, or a want of memory: the thread must live
            failed = CameraError(f"a frame could not be taken in: {error!r}")
            failed.__cause__ = error
            if str(failed) != str(self.error):
                logging.getLogger("boardfit").exception("a frame could not be taken in")
            return self._failed(failed)
        return 0.0

    def hangs_for_s(self, now: float) -> float:
        """Return for how long the driver has been in one call."""
        began = self._call_began
        return 0.0 if began is None else now - began

    def give_up(self, now: float, source: str) -> Event:
        """Leave this capture to its fate; whatever it still reads is thrown away."""
        self.abandoned = True
        return Event(STUCK, now, source, f"the driver has not returned for {self.hangs_for_s(now):.1f} s")

    def interrupt(self) -> None:
        """Have a read under way come back, where the device can; from another thread, before the end."""
        self.abandoned = True
        interrupt = getattr(self._device, "interrupt", None)
        if interrupt is not None:
            with suppress(Exception):
                interrupt()

    def close(self) -> None:
        """Let go of the device. A driver that fails over it, as one may after an unplug, is left alone."""
        device, self._device = self._device, None
        if device is not None:
            with suppress(CameraError):
                self._call(device.close)

    def _open(self) -> None:
        self.opens = True
        try:
            device = self._call(self._opener)
        finally:
            self.opens = False
        self._device = device  # type: ignore[assignment]
        with self._lock:
            if not self.abandoned:
                self._watch.opened(self._clock())

    def _judge(self, image: object) -> None:
        now = self._clock()
        with self._lock:
            if self.abandoned:
                return
            good = self._watch.saw(image, now)
            reopen = not good and self._watch.should_reopen(now)
            if reopen:
                self._watch.closed()
        if good:
            self._deliver(as_bgr(image), now)  # type: ignore[arg-type]
            self.error = None
        elif reopen:
            self.close()

    def _failed(self, error: CameraError) -> float:
        self.error = error
        self.close()
        with self._lock:
            if self.abandoned:
                return 0.0
            self._watch.failed(self._clock(), str(error), refused=isinstance(error, LoginRefused))
            return self._watch.pause_s()

    def _call(self, function: Callable[[], object]) -> object:
        """Call the driver; what it throws besides CameraError becomes one."""
        self._call_began = self._clock()
        try:
            return function()
        except (CameraError, StreamEnded):
            raise
        except Exception as error:
            said = text_without_password(str(error))
            failed = CameraError(f"the driver failed: {type(error).__name__}: {said}")
            raise failed from (error if said == str(error) else None)
        finally:
            self._call_began = None
