"""The user's own OpenSSH, with the user's own configuration, keys and known hosts.

The first connection is the master of all others (ControlMaster, in a folder that nobody else may enter), so
that a command costs a round trip and no login. BatchMode: a password is never asked for.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from boardfit.boards.remote.address import Address
from boardfit.boards.remote.link import last_line, require_program

# A pulled cable is noticed after four answers that did not come; a board that swaps is slow to give them.
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=4",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "LogLevel=ERROR",
)
# A Unix socket's path may have 108 bytes, and OpenSSH adds 17 while it makes it.
_LONGEST_SOCKET = 85

_MEANINGS = (
    ("could not resolve hostname", "its host name is not known: check the spelling, or give its IP address"),
    ("connection refused", "it refused the connection: is an ssh server running there, and on this port?"),
    (
        "host key verification failed",
        "its host key is not known here, or not the one that was: connect once by hand with "
        "`{login}` and compare the fingerprint",
    ),
    (
        "permission denied",
        "it refused every key: `ssh-copy-id {target}` puts yours there (boardfit asks for no password)",
    ),
    ("too many authentication failures", "it refused every key: name the right one in ~/.ssh/config"),
    ("no route to host", "no way leads to it: is it on, and in this network?"),
    ("network is unreachable", "no way leads to it: is this machine in a network?"),
    ("timed out", "it did not answer in time: is it on, and in this network?"),
    ("timeout, server", "it stopped answering: it was switched off, rebooted, or the network was cut"),
    ("closed by remote host", "it closed the connection: it was rebooted, or its ssh server was stopped"),
    ("connection closed", "it closed the connection: it was rebooted, or its ssh server was stopped"),
    ("connection reset", "it reset the connection: it was rebooted, or the network was cut"),
    ("broken pipe", "the connection broke: it was rebooted, or the network was cut"),
)


class SshLink:
    """A board behind ``ssh``."""

    def __init__(self, address: Address) -> None:
        self.name = str(address)
        program = require_program("ssh", "install OpenSSH's client (sudo apt install openssh-client)")
        self._folder = Path(tempfile.mkdtemp(prefix="boardfit-"))
        if len(str(self._folder)) > _LONGEST_SOCKET:
            self._folder.rmdir()
            self._folder = Path(tempfile.mkdtemp(prefix="boardfit-", dir="/tmp"))
        target = address.host if address.user is None else f"{address.user}@{address.host}"
        port = [] if address.port is None else ["-p", str(address.port)]
        options = [word for option in _OPTIONS for word in ("-o", option)]
        self._start = [program, "-T", *options, "-o", f"ControlPath={self._folder / 'c'}", *port]
        self._target = target
        self._login = " ".join(["ssh", *port, target])

    def first(self, command: str) -> list[str]:
        """Return the words of the connection that carries the others."""
        return [*self._start, "-o", "ControlMaster=yes", "--", self._target, command]

    def words(self, command: str) -> list[str]:
        """Return the words of a command over the first one's connection."""
        return [*self._start, "-o", "ControlMaster=no", "--", self._target, command]

    def explain(self, said: str) -> str:
        """Return what OpenSSH's complaint means and what to do."""
        lower = said.lower()
        for sign, meaning in _MEANINGS:
            if sign in lower:
                return meaning.format(login=self._login, target=self._target)
        return last_line(said, "the connection ended: it was rebooted, or the network was cut")

    def close(self) -> None:
        """Remove the folder of the control socket."""
        shutil.rmtree(self._folder, ignore_errors=True)
