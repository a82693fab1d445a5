"""The other process: loads engines and runs them until its owner is gone.

Every message is one packet of JSON with a number ``seq``, and every answer carries the same number. Bytes of
models come as a file descriptor; tensors lie in a shared block. Nothing here is pickled: an engine that was
taken over by a hostile model can write anything into the socket.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from time import monotonic
from typing import Any

import numpy as np

from boardfit.errors import EngineError, EngineMissing
from boardfit.runtime.engines import Engine
from boardfit.runtime.isolate.awake import comes_soon
from boardfit.runtime.isolate.shared import SharedBlock, aligned
from boardfit.specs import Artifact

PACKET_BYTES = 65536
_TEXT_CHARS = 4000


def main(socket_fd: int, lifeline_fd: int, *, awake_s: float) -> None:
    """Serve until the owner closes the socket.

    Args:
        socket_fd: Of a connected packet socket.
        lifeline_fd: Of the read end of a pipe into which nobody writes; its owner holds the other end.
        awake_s: Seconds to look for the next message without sleeping; see ``Isolation``.
    """
    _die_with(lifeline_fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # cores of a crash a minute fill a card
    _offer_to_the_oom_killer()
    with socket.socket(fileno=socket_fd) as channel:
        server = _Server(channel, awake_s)
        while server.serve():
            pass
    os._exit(0)  # engines' exit handlers were seen to hang


class _Server:
    """The engines of this process."""

    def __init__(self, channel: socket.socket, awake_s: float) -> None:
        self._channel = channel
        self._awake_s = awake_s
        self._soon = False  # whether the last message was a run, and came within that time
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._engines: dict[int, Engine] = {}
        self._block: SharedBlock | None = None
        self._outputs_at = 0
        self._held: Sequence[np.ndarray] = ()

    def serve(self) -> bool:
        """Answer one message; False where there will be no more."""
        begin = monotonic()
        try:
            data, fds = self._next(begin)
        except ConnectionError:
            return False
        if not data:
            return False
        message = json.loads(data)
        self._soon = message["op"] == "run" and monotonic() - begin < self._awake_s
        try:
            answer = self._answer(message, fds)
        except EngineMissing as error:
            answer = {"error": "missing", "text": str(error)[:_TEXT_CHARS]}
        except EngineError as error:
            answer = {"error": "engine", "text": str(error)[:_TEXT_CHARS]}
        except Exception as error:  # whatever an engine raises belongs to the caller
            answer = {"error": "engine", "text": f"{type(error).__name__}: {error}"[:_TEXT_CHARS]}
        if answer is None or "seq" not in message:
            return True
        try:
            self._channel.send(json.dumps({"seq": message["seq"], **answer}).encode(), socket.MSG_NOSIGNAL)
        except ConnectionError:
            return False
        return True

    def _next(self, begin: float) -> tuple[bytes, Sequence[int]]:
        """Return the next message; where the last run came soon enough, do not sleep until it comes."""
        if self._soon:
            comes_soon(self._poll, begin + self._awake_s)
        data, fds, _, _ = socket.recv_fds(self._channel, PACKET_BYTES, 1)
        return data, fds

    def _answer(self, message: Mapping[str, Any], fds: Sequence[int]) -> dict[str, Any] | None:
        if message["op"] == "run":
            return self._run(message)
        if message["op"] == "load":
            return self._load(message, fds[0])
        if message["op"] == "block":
            return self._take_block(SharedBlock(fds[0], message["size"]), message["outputs_at"])
        if message["key"] in self._engines:
            self._engines.pop(message["key"]).close()
        return None

    def _load(self, message: Mapping[str, Any], fd: int) -> dict[str, Any]:
        try:
            files = {path: os.pread(fd, length, start) for path, start, length in message["files"]}
        finally:
            os.close(fd)
        found: Any = import_module(message["module"])
        for part in message["class"].split("."):
            found = getattr(found, part)
        if message["variant"]:
            found = found.with_variant(message["variant"])
        artifact = Artifact.from_dict(message["artifact"])
        self._engines[message["key"]] = found(artifact, files, message["threads"])
        return {}

    def _run(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._block is not None
        self._held = ()  # of a call that was interrupted
        feeds = {
            name: self._block.array(dtype, shape, start) for name, dtype, shape, start in message["inputs"]
        }
        outputs = self._engines[message["key"]].run(feeds)
        return self._hand_over([np.asarray(output) for output in outputs])

    def _take_block(self, block: SharedBlock, outputs_at: int) -> dict[str, Any] | None:
        if self._block is not None:
            self._block.close()
        self._block, self._outputs_at = block, outputs_at
        if not self._held:
            return None
        outputs, self._held = self._held, ()  # asked for by a message with a number, or of no use any more
        return self._hand_over(outputs)

    def _hand_over(self, outputs: Sequence[np.ndarray]) -> dict[str, Any]:
        """Put outputs behind the inputs; where they do not fit, keep them until a larger block comes."""
        assert self._block is not None
        start = self._outputs_at
        needed = sum(aligned(output.nbytes) for output in outputs)
        if start + needed > self._block.size:
            self._held = outputs
            return {"grow": needed}
        places = []
        for output in outputs:
            self._block.array(output.dtype.str, output.shape, start)[...] = output
            places.append([output.dtype.str, list(output.shape), start])
            start += aligned(output.nbytes)
        return {"outputs": places}


def _die_with(lifeline_fd: int) -> None:
    """Let the kernel end this process when the owner is gone, also in an endless loop inside an engine.

    The pipe's last writer closes it by dying, and the kernel then sends SIGIO, whose default is to end the
    process. PR_SET_PDEATHSIG will not do: it fires when the *thread* ends that started this process.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([lifeline_fd], [], [], 0.0)[0]:
        sys.exit(0)  # it went before the kernel was told


def _offer_to_the_oom_killer() -> None:
    """If the machine runs out of memory, this process goes first, not its owner."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - light
            file.write("1000")
    except OSError:
        pass  # not Linux, or a kernel without it
