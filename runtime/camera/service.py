"""A loop as a systemd service: it says when it is ready, that it lives, and ends when it is told to."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Protocol


class Stoppable(Protocol):
    """What a signal can end."""

    def stop(self) -> None:
        """End soon; called from a signal's handler."""
        ...


class Notifier:
    """Tells systemd over its socket (sd_notify(3)); does nothing where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read where the socket is, and how often the watchdog wants to hear something.

        Args:
            environment: With NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, as systemd sets them.
        """
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() and mine else None
        self._ready = False
        self._told_at = 0.0

    def ready(self) -> None:
        """Tell, once, that the service works."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def alive(self) -> None:
        """Tell that the loop moves; sent as often as the watchdog needs it, however often it is called."""
        now = time.monotonic()
        if self.watchdog_s is not None and now - self._told_at >= self.watchdog_s / 3.0:
            self._told_at = now
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the service ends."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(0.2)
            link.sendto(text.encode(), self._address)


@contextlib.contextmanager
def stopped_by_signals(loop: Stoppable) -> Iterator[None]:
    """Have SIGTERM and SIGINT end a loop, and tell systemd that the service ends. Only in the main thread.

    A loop that ends by itself tells nothing: another one may follow it in the same service.

    Args:
        loop: Is stopped; what the signals did before comes back afterwards.
    """
    notifier = Notifier()

    def stop(*_: object) -> None:
        loop.stop()
        notifier.stopping()

    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
