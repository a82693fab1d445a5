"""One engine process, as its owner holds it: start it, ask it, watch it, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from boardfit.errors import EngineError, EngineLost
from boardfit.runtime.isolate.awake import comes_soon
from boardfit.runtime.isolate.shared import SharedFeeds
from boardfit.runtime.isolate.worker import PACKET_BYTES

CHECK_EVERY_S = 0.05
_EARLY_S, _LATE_S, _SPREAD_S = 0.0003, 0.0007, 0.002
"""Before and after the time at which an answer is due, in which nobody sleeps, and the most that like runs
may differ for that."""
_PATIENCE = 10.0
_CODE = """\
import sys
sys.path[:] = {path!r}
from boardfit.runtime.isolate.worker import main
main({socket_fd}, {lifeline_fd}, awake_s={awake_s!r})
"""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROOM_FOR_OUTPUTS = 1 << 16
"""Bytes, so that the answers of most classifiers need no second block."""


class EngineProcess:
    """A child process that runs engines. It is killed when this object is closed, dropped or outlived.

    The child is a fresh interpreter and no fork of the owner, which may have threads; it does not import the
    owner's main module. It is the leader of a session of its own: a Ctrl-C in the terminal is the owner's.

    Attributes:
        pid: Of the child.
        failed: The answers to loads that failed, by key.
        feeds: Memory that is shared with the child; None before the first run.
    """

    def __init__(self, *, awake_s: float) -> None:
        """Start the interpreter, without waiting for it.

        Args:
            awake_s: Seconds that it does not sleep after an answer; see ``Isolation``. With 0, its
                owner always sleeps, too.

        Raises:
            EngineError: It cannot be started.
        """
        process, ours, held_fd = _start(awake_s)
        self.pid = process.pid
        self.failed: dict[int, Mapping[str, Any]] = {}
        self.feeds: SharedFeeds | None = None
        self._process = process
        self._socket = ours
        self._poll = select.poll()
        self._poll.register(ours.fileno(), select.POLLIN)
        self._pending: deque[_Pending] = deque()
        self._seq = 0
        self._stays_awake = awake_s > 0.0
        self._checked = 0.0
        self._ran_s = self._starved_s = 0.0
        self._end = weakref.finalize(self, _end, process, ours, held_fd)
        self._held_fd = held_fd
        _LIVING.add(self)

    def request(
        self,
        message: Mapping[str, Any],
        fds: Sequence[int] = (),
        *,
        within_s: float,
        loads: int | None = None,
    ) -> None:
        """Send a message that will be answered.

        Args:
            message: JSON values.
            fds: File descriptors to lend.
            within_s: Seconds that ``reply`` will wait for its answer.
            loads: The key that it loads; a refusal is then kept in ``failed``.

        Raises:
            EngineLost: The process is gone.
        """
        self._seq += 1
        data = json.dumps({**message, "seq": self._seq}).encode()
        # First: one who is interrupted over the sending leaves an answer that the next one has to read.
        self._pending.append(_Pending(self._seq, within_s, loads))
        self._send(data, fds)

    def tell(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message that will not be answered; raises as ``request``."""
        self._send(json.dumps(message).encode(), fds)

    @property
    def owes(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._pending)

    def reply(self, memory_bytes: int, *, usual_s: tuple[float, float] | None = None) -> dict[str, Any]:
        """Wait for the oldest answer.

        Args:
            memory_bytes: Resident memory that the process may reach.
            usual_s: Between which times from now the answer is likely to come; None where that is not known.

        Raises:
            EngineLost: It died, missed the deadline or took too much memory. It still has to be closed.
        """
        within_s = self._pending[0].within_s
        now = begin = monotonic()
        until = now + within_s
        due_s = (begin + usual_s[0], begin + usual_s[1]) if usual_s and self._stays_awake else None
        before: tuple[float, float] | None = None
        while True:
            if now - self._checked >= CHECK_EVERY_S:
                self._check(now, memory_bytes)
            before = before or (self._ran_s, self._starved_s)
            if self._has_come(until, due_s):
                return self._receive()
            now = monotonic()
            if now >= until and not self._poll.poll(0):
                # Time in which others had the processor is not the engine's.
                starved_s = self._starved_since(*before, elapsed_s=now - begin)
                until = begin + min(within_s + starved_s, _PATIENCE * within_s)
                if now >= until:
                    raise EngineLost(f"the isolated engine gave no answer within {within_s:.3g} s", "hung")

    def settle(self, memory_bytes: int) -> None:
        """Wait for all answers that are still to come; raises as ``reply``."""
        while self._pending:
            self.reply(memory_bytes)

    def share(self, inputs_bytes: int) -> SharedFeeds:
        """Return shared memory for the inputs of a run; a new one holds nothing of the last."""
        if self.feeds is None or self.feeds.slot_bytes < inputs_bytes:
            self.tell(*self._new_feeds(inputs_bytes, _ROOM_FOR_OUTPUTS))
        assert self.feeds is not None
        return self.feeds

    def grow(self, outputs_bytes: int, within_s: float) -> SharedFeeds:
        """Share more memory, into which the process will put the outputs that it has kept, and answer."""
        assert self.feeds is not None
        message, fds = self._new_feeds(self.feeds.slot_bytes, outputs_bytes)
        self.request(message, fds, within_s=within_s)
        return self.feeds

    def exited(self) -> bool:
        """Return whether the process is dead; if so it is no zombie any more."""
        return self._process.poll() is not None

    def rss_bytes(self) -> int:
        """Return the resident memory in bytes, 0 where the process is gone."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:  # noqa: PTH123 - read 20 times a second
                return int(file.read().split()[1]) * _PAGE
        except OSError:
            return 0

    def close(self) -> None:
        """Kill the process and reap it. Twice does no harm."""
        _LIVING.discard(self)
        self._end()
        if self.feeds is not None:
            self.feeds.close()

    def forget(self) -> None:
        """Let go of it in a forked copy of the owner, whose child it is not."""
        if self._end.detach() is not None:
            self._socket.close()
            os.close(self._held_fd)

    def _new_feeds(self, inputs_bytes: int, outputs_bytes: int) -> tuple[dict[str, Any], list[int]]:
        if self.feeds is not None:
            self.feeds.close()
            self.feeds = None
        self.feeds = SharedFeeds(inputs_bytes, outputs_bytes)
        block = self.feeds.block
        return {"op": "block", "size": block.size, "outputs_at": self.feeds.outputs_at}, [block.fd]

    def _receive(self) -> dict[str, Any]:
        try:
            data = self._socket.recv(PACKET_BYTES)
        except OSError as error:
            raise self._crashed() from error
        if not data:
            raise self._crashed()
        pending = self._pending.popleft()
        try:
            answer = json.loads(data)
            if answer["seq"] != pending.seq:
                raise ValueError(f"answer {answer['seq']} to message {pending.seq}")
        except (ValueError, TypeError, KeyError) as error:
            raise EngineLost(f"the isolated engine's process answered nonsense ({error})") from error
        if pending.loads is not None and "error" in answer:
            self.failed[pending.loads] = answer
        return dict(answer)

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        try:
            if fds:
                socket.send_fds(self._socket, [data], list(fds), socket.MSG_NOSIGNAL)
            else:
                self._socket.send(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise self._crashed() from error

    def _has_come(self, until_s: float, due_s: tuple[float, float] | None) -> bool:
        """Wait for an answer, until the next check at most; return whether it is there."""
        now = monotonic()
        if due_s is not None:
            first_s = due_s[0] - _EARLY_S
            last_s = min(due_s[1], due_s[0] + _SPREAD_S) + _LATE_S
            if now < last_s and first_s < now + CHECK_EVERY_S:
                whole_ms = max(0, int((first_s - now) * 1e3))  # poll would round up
                return bool(self._poll.poll(whole_ms)) or comes_soon(self._poll, last_s)
        return bool(self._poll.poll(max(0.0, min(until_s - now, CHECK_EVERY_S)) * 1e3))

    def _starved_since(self, ran_s: float, starved_s: float, *, elapsed_s: float) -> float:
        """Return for how long the child could have run, but had no processor.

        The kernel counts a wait when it is over. So where a thread is ready to run at this moment, all time
        is taken for waiting in which none of the threads ran.
        """
        now_ran_s, now_starved_s = self._processor_s()
        if self._is_runnable():
            return max(0.0, elapsed_s - (now_ran_s - ran_s))
        return now_starved_s - starved_s

    def _processor_s(self) -> tuple[float, float]:
        """Return for how long the child's threads have run and have waited to run, in seconds.

        The first two fields of schedstat, in nanoseconds (Documentation/scheduler/sched-stats.rst); 0.0 for a
        kernel that does not count them.
        """
        ran_ns = waited_ns = 0
        for text in self._of_threads("schedstat"):
            ran, waited, _ = text.split()
            ran_ns, waited_ns = ran_ns + int(ran), waited_ns + int(waited)
        return ran_ns / 1e9, waited_ns / 1e9

    def _is_runnable(self) -> bool:
        return any(text.rpartition(b")")[2].split()[0] == b"R" for text in self._of_threads("stat"))

    def _of_threads(self, name: str) -> Iterator[bytes]:
        """Yield a file of /proc for each thread of the child."""
        with suppress(OSError):  # the process, or a thread, is gone
            for task in os.listdir(f"/proc/{self.pid}/task"):  # noqa: PTH208 - read 20 times a second
                with open(f"/proc/{self.pid}/task/{task}/{name}", "rb") as file:  # noqa: PTH123
                    yield file.read()

    def _check(self, now: float, memory_bytes: int) -> None:
        self._checked = now
        self._ran_s, self._starved_s = self._processor_s()
        taken = self.rss_bytes()
        if taken > memory_bytes:
            raise EngineLost(
                f"the isolated engine took {taken >> 20} MiB of memory, {memory_bytes >> 20} are allowed",
                "memory",
            )

    def _crashed(self) -> EngineLost:
        """Return the error for a process that closed its socket, which it does by dying."""
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return EngineLost("the isolated engine's process closed its socket")
        if code >= 0:
            return EngineLost(f"the isolated engine's process ended with status {code}")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return EngineLost(f"the isolated engine's process was ended by {name}")


@dataclass(frozen=True, slots=True)
class _Pending:
    """An answer to come: to which message, within how many seconds, for which load."""

    seq: int
    within_s: float
    loads: int | None


_LIVING: weakref.WeakSet[EngineProcess] = weakref.WeakSet()


def _start(awake_s: float) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
    """Start the interpreter; return it, the socket to it, and the end of the pipe that keeps it alive."""
    if not sys.executable or not hasattr(socket, "SOCK_SEQPACKET"):
        raise EngineError(
            f"an isolated engine needs Linux and sys.executable, which is {sys.executable!r}: load without "
            "isolate"
        )
    path = [entry for entry in sys.path if isinstance(entry, str)]
    with ExitStack() as kept, ExitStack() as lent:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            kept.callback(ours.close)
            lent.callback(theirs.close)
            lifeline_fd, held_fd = os.pipe()
            kept.callback(os.close, held_fd)
            lent.callback(os.close, lifeline_fd)
            code = _CODE.format(
                path=path, socket_fd=theirs.fileno(), lifeline_fd=lifeline_fd, awake_s=float(awake_s)
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline_fd),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"a process for the isolated engine could not be started: {error}") from error
        kept.pop_all()
    return process, ours, held_fd


def _end(process: subprocess.Popen[bytes], channel: socket.socket, held_fd: int) -> None:
    """Kill and reap; a process that the kernel cannot end yet is reaped when Python next starts one."""
    channel.close()
    process.kill()
    os.close(held_fd)
    with suppress(subprocess.TimeoutExpired):  # in an uninterruptible wait, such as for a dead disk
        process.wait(timeout=5.0)


def _forget_all() -> None:
    for living in list(_LIVING):
        living.forget()


# A copy that held the pipe would keep the engines alive after their owner's death.
os.register_at_fork(after_in_child=_forget_all)
