"""Cuts the link to a board at random moments of push, run and pull: no half result here, no leftover there.

``python benchmarks/evidence/remote_cuts.py --cuts 20`` starts a real sshd on 127.0.0.1 with keys of its own
(``sudo apt install openssh-server``) and puts a proxy between it and the ssh client. A cut is one of three:
``reset`` (both ends hear of it), ``silence`` (neither hears: a pulled cable), ``killed`` (the
server's process of this connection dies). With ``--root DIR`` the board is that folder, by chroot: only root
may do that.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

from boardfit.boards.remote import connect
from boardfit.errors import RemoteError
from boardfit.timing import machine_name

KINDS = ("reset", "silence", "killed")
PATIENCE_S = 4.0
BYTES_PER_S = 12_000_000


class Sshd:
    """An OpenSSH server on 127.0.0.1 with its own key, and an ``ssh`` in ``bin`` that knows it as ``board``.

    Args:
        folder: For keys, configuration and log.
        root: Of the board; None for this machine's own, with a folder for temporary files.
        extra: Lines of its configuration.
    """

    def __init__(self, folder: Path, *, root: Path | None = None, extra: str = "") -> None:
        self.folder = folder
        self.board = folder / "board" if root is None else root / "var/tmp"
        self.port = free_port()
        self.bin = folder / "bin"
        self._mounted: Path | None = None
        self._write_keys()
        self._configure(root, extra)
        self._start()
        self.lead_to(self.port)

    def lead_to(self, port: int) -> None:
        """Tell the client another port, such as a proxy's."""
        config = self.folder / "client"
        config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
            f" IdentityFile {self.folder}/key\n IdentitiesOnly yes\n HostKeyAlias board\n"
            f" UserKnownHostsFile {self.folder}/known\n StrictHostKeyChecking yes\n"
        )
        self.bin.mkdir(exist_ok=True)
        wrapper = self.bin / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {config} "$@"\n')
        wrapper.chmod(0o755)

    def children(self) -> list[int]:
        """Return the server's processes, one or more per connection."""
        listed = subprocess.run(
            ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listed.splitlines())}
        found = [self.process.pid]
        for pid in found:
            # Only sshd's own: its sessions' commands are not the link.
            found += [
                child for child, parent in parents.items() if parent == pid and "sshd" in command_of(child)
            ]
        return found[1:]

    def close(self) -> None:
        """Stop the server and its connections."""
        for pid in [*self.children(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self._mounted is not None:
            subprocess.run(["umount", "-R", "-l", str(self._mounted)], check=False)
            self._mounted.rmdir()

    def _write_keys(self) -> None:
        for name in ("key", "host"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(words, check=True)
        shutil.copyfile(self.folder / "key.pub", self.folder / "authorized")
        (self.folder / "known").write_text("board " + (self.folder / "host.pub").read_text())

    def _configure(self, root: Path | None, extra: str) -> None:
        chroot, variables = "", f"STAND={self.folder}"
        if root is None:
            self.board.mkdir()
            variables += f" TMPDIR={self.board}"
        if root is not None:
            # sshd refuses a root below a folder that others may write, such as /tmp.
            self._mounted = Path(tempfile.mkdtemp(prefix="boardfit-board-", dir="/run"))
            self._mounted.chmod(0o755)
            subprocess.run(["mount", "--bind", str(root), str(self._mounted)], check=True)
            subprocess.run(["mount", "-t", "proc", "proc", str(self._mounted / "proc")], check=True)
            chroot = f"ChrootDirectory {self._mounted}\n"
        (self.folder / "server").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv {variables}\n"
            f"{chroot}{extra}\n"
        )

    def _start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        server = shutil.which("sshd") or "/usr/sbin/sshd"
        words = [server, "-D", "-f", str(self.folder / "server"), "-E", str(self.folder / "log")]
        self.process = subprocess.Popen(words, start_new_session=True)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise SystemExit(f"sshd does not start: {(self.folder / 'log').read_text()}")


class Proxy:
    """Passes bytes between a client and a server until it is told to cut.

    Args:
        port: Of the server on 127.0.0.1.
        bytes_per_s: Each way, so that a transfer takes long enough to be cut.
    """

    def __init__(self, port: int, bytes_per_s: float = BYTES_PER_S) -> None:
        self._server_port = port
        self._rate = bytes_per_s
        self._silent = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, kind: str) -> None:
        """Cut all connections: ``reset`` or ``silence``."""
        if kind == "silence":
            self._silent.set()
            return
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
                each.close()

    def close(self) -> None:
        """Cut what is left and listen no more."""
        self._listener.close()
        self.cut("reset")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                return
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 15):
                time.sleep(len(piece) / self._rate)
                while self._silent.is_set():
                    time.sleep(0.1)
                    if source.fileno() < 0:
                        return
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)


class Phase:
    """What the job is doing, for the table."""

    name = "start"


def job(payload: Path, result: Path, phase: Phase) -> None:
    """Push, run, pull: the result is the payload twice."""
    phase.name = "connect"
    with connect("ssh://board", patience_s=PATIENCE_S) as remote:
        phase.name = "push"
        remote.push(payload, "in")
        phase.name = "run"
        done = remote.run(["sh", "-c", "cat in in >out; sleep 0.5"])
        if done.status != 0:
            raise SystemExit(f"the job itself fails: {done.stderr}")
        phase.name = "pull"
        remote.pull("out", result)
        phase.name = "close"
    phase.name = "done"


def trial(server: Sshd, kind: str, cut_s: float, payload: Path, folder: Path) -> dict[str, str]:
    """Do the job and cut it after so many seconds; return a row of the table."""
    proxy = Proxy(server.port)
    server.lead_to(proxy.port)
    result, phase = folder / "result", Phase()
    where = {"phase": "done"}

    def cut() -> None:
        where["phase"] = phase.name
        if kind == "killed":
            for pid in server.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            proxy.cut(kind)

    timer = threading.Timer(cut_s, cut)
    timer.start()
    said, start = "finished", time.monotonic()
    try:
        job(payload, result, phase)
    except RemoteError as error:
        said = str(error)
    finally:
        timer.cancel()
        timer.join()
    heard = time.monotonic()
    faults, whole = local_faults(folder, payload, said), result.exists()
    left = leftovers(server)
    # What the board has not heard of it removes when its patience is over.
    while left and time.monotonic() < heard + 2 * PATIENCE_S + 4:
        time.sleep(0.2)
        left = leftovers(server)
    gone_s = time.monotonic() - heard
    proxy.close()
    result.unlink(missing_ok=True)
    return {
        "kind": kind,
        "cut_s": f"{cut_s:.2f}",
        "phase": where["phase"],
        "here": "; ".join(faults) or ("whole" if whole else "nothing"),
        "there": "; ".join(left) or f"clean after {gone_s:.1f} s",
        "said": said,
        "took_s": f"{heard - start:.2f}",
        "bad": "x" if faults or left else "",
    }


def local_faults(folder: Path, payload: Path, said: str) -> list[str]:
    """Return what is wrong on this side."""
    names = sorted(path.name for path in folder.iterdir())
    if names not in ([], ["result"]):
        return [f"files left: {names}"]
    if names and (folder / "result").read_bytes() != payload.read_bytes() * 2:
        return ["half a result"]
    return [] if names or said != "finished" else ["finished without a result"]


def leftovers(server: Sshd) -> list[str]:
    """Return folders and processes of ours on the board."""
    found = [str(path) for path in server.board.glob("boardfit-work-*")]
    mark = f"STAND={server.folder}".encode()
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()):
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(f"process {pid}: {command_of(pid)[:60]}")
    return found


def command_of(pid: int) -> str:
    """Return a process's command line; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Stand:
    """The server and a folder for it, removed at the end; ``ssh board`` works inside."""

    def __init__(self, root: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="boardfit-cuts-", dir="/var/tmp"))
        self.server = Sshd(self.folder, root=root)
        self._path = os.environ["PATH"]

    def __enter__(self) -> Stand:
        os.environ["PATH"] = f"{self.server.bin}:{self._path}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.environ["PATH"] = self._path
        self.server.close()
        shutil.rmtree(self.folder)


def main(argv: list[str] | None = None) -> int:
    """Cut, look, print; 1 if one cut left anything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument(
        "--megabytes", type=float, default=8.0, help="that are pushed; twice as many come back"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--root", type=Path, help="root file system of the board, for chroot")
    args = parser.parse_args(argv)
    print(f"{machine_name()}; OpenSSH on 127.0.0.1, {BYTES_PER_S / 1e6:g} MB/s, patience {PATIENCE_S:g} s")
    chance = random.Random(args.seed)
    with Stand(args.root) as stand:
        payload, folder = stand.folder / "payload", stand.folder / "here"
        payload.write_bytes(chance.randbytes(int(args.megabytes * 1e6)))
        folder.mkdir()
        uncut = trial(stand.server, "reset", 600.0, payload, folder)
        whole_s = float(uncut["took_s"])
        print(f"uncut: {whole_s:.2f} s, here {uncut['here']}, there {uncut['there']}\n")
        rows = []
        for kind in args.kinds:
            struck = 0
            # A cut that came after the end was none.
            while struck < args.cuts:
                rows.append(trial(stand.server, kind, chance.uniform(0.0, whole_s), payload, folder))
                struck += rows[-1]["phase"] != "done"
    print(f"{'cut':8} {'after':>6}  {'during':8} {'here':8} {'there':22} said")
    for row in rows:
        print(
            f"{row['kind']:8} {row['cut_s']:>6}  {row['phase']:8} {row['here']:8} {row['there']:22} "
            f"{row['said'][:150]} {row['bad']}"
        )
    bad = sum(bool(row["bad"]) for row in [uncut, *rows])
    struck = sum(row["phase"] != "done" for row in rows)
    print(
        f"\n{len(rows)} cuts, {struck} before the end: {bad} left a half result here or anything of ours "
        "on the board"
    )
    return 1 if bad or uncut["here"] != "whole" else 0


if __name__ == "__main__":
    sys.exit(main())
