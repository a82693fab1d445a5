"""Stands for Android's adbd: speaks adb's wire protocol on 127.0.0.1, with a shell of this machine.

``python adb_daemon.py FOLDER`` prints its port. Commands run in FOLDER, without Android's userland and
without its authentication. The protocol is that of protocol.txt and shell_protocol.h in Android's sources.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

CONNECT, OPEN, OKAY, CLOSE, WRITE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, LARGEST = 0x01000001, 256 * 1024
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)


class Link:
    """One client, with its streams."""

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self.connection = connection
        self.folder = folder
        self.sending = threading.Lock()
        self.streams: dict[int, Stream] = {}

    def serve(self) -> None:
        reader = self.connection.makefile("rb")
        with contextlib.suppress(OSError):
            while len(head := reader.read(24)) == 24:
                command, theirs, ours, size, _, _ = struct.unpack("<6I", head)
                self.handle(command, theirs, ours, reader.read(size))
        for stream in list(self.streams.values()):
            stream.gone()

    def handle(self, command: int, theirs: int, ours: int, data: bytes) -> None:
        if command == CONNECT:
            banner = b"device::ro.product.name=stand_in;ro.product.model=Stand_in;features=shell_v2,cmd"
            self.send(CONNECT, VERSION, LARGEST, banner)
        elif command == OPEN:
            stream = Stream(self, len(self.streams) + 1, theirs)
            self.streams[stream.ours] = stream
            stream.open(data.rstrip(b"\0").decode())
        elif ours in self.streams and command == WRITE:
            self.streams[ours].received.put(data)
            self.send(OKAY, ours, theirs)
        elif ours in self.streams and command == OKAY:
            self.streams[ours].ready.release()
        elif ours in self.streams and command == CLOSE:
            self.streams[ours].gone()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), sum(data), command ^ 0xFFFFFFFF)
        with self.sending:
            self.connection.sendall(head + data)


class Stream:
    """One command and its client's end."""

    def __init__(self, link: Link, ours: int, theirs: int) -> None:
        self.link, self.ours, self.theirs = link, ours, theirs
        self.received: queue.Queue[bytes | None] = queue.Queue()
        self.ready = threading.Semaphore(0)
        self.alive = True

    def open(self, service: str) -> None:
        kind, _, command = service.partition(":")
        if not kind.startswith("shell,v2"):
            self.link.send(CLOSE, 0, self.theirs)
            return
        self.link.send(OKAY, self.ours, self.theirs)
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.link.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": "/", "TMPDIR": str(self.link.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self.feed, args=(process,), daemon=True).start()
        threading.Thread(target=self.answer, args=(process,), daemon=True).start()

    def gone(self) -> None:
        self.alive = False
        self.received.put(None)
        self.ready.release()

    def feed(self, process: subprocess.Popen[bytes]) -> None:
        held = b""
        with contextlib.suppress(OSError, ValueError):
            while (data := self.received.get()) is not None:
                held += data
                while len(held) >= 5 and len(held) >= 5 + (size := struct.unpack_from("<I", held, 1)[0]):
                    kind, body, held = held[0], held[5 : 5 + size], held[5 + size :]
                    if kind == STDIN:
                        process.stdin.write(body)
                        process.stdin.flush()
                    elif kind == CLOSE_STDIN:
                        process.stdin.close()
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()

    def answer(self, process: subprocess.Popen[bytes]) -> None:
        pumps = [
            threading.Thread(target=self.pump, args=(stream, kind))
            for stream, kind in ((process.stdout, STDOUT), (process.stderr, STDERR))
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        status = process.wait() & 0xFF
        with contextlib.suppress(OSError):
            self.write(struct.pack("<BIB", EXIT, 1, status))
            self.link.send(CLOSE, self.ours, self.theirs)

    def pump(self, source, kind: int) -> None:
        with contextlib.suppress(OSError):
            while piece := source.read1(32768):
                self.write(struct.pack("<BI", kind, len(piece)) + piece)

    def write(self, data: bytes) -> None:
        if not self.alive:
            raise BrokenPipeError
        self.link.send(WRITE, self.ours, self.theirs, data)
        self.ready.acquire()


def main() -> None:
    folder = Path(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=Link(connection, folder).serve, daemon=True).start()


if __name__ == "__main__":
    main()
