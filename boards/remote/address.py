"""Where a board is: ``local``, ``ssh://user@host[:port]`` or ``adb://serial``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from boardfit.errors import RemoteError

KINDS = ("local", "ssh", "adb")
FORMS = "local, ssh://user@host[:port] or adb://serial"

# What follows goes to other programs as a word of its own: it must not look like an option of theirs.
_NAME = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]%-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """A board's address.

    Attributes:
        kind: ``local``, ``ssh`` or ``adb``.
        host: Host name of ``ssh``, or an alias of the user's configuration.
        user: Who to be there; None for what the configuration says.
        port: 1 to 65535; None for what the configuration says.
        serial: Of an ``adb`` device, as ``adb devices`` lists it.
    """

    kind: str
    host: str = ""
    user: str | None = None
    port: int | None = None
    serial: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RemoteError(f"board address of kind {self.kind!r}: expected {FORMS}")
        if self.kind == "ssh" and not _NAME.fullmatch(self.host):
            raise RemoteError(f"{self.host!r} is no host name: expected {FORMS}")
        if self.kind == "ssh" and self.user is not None and not _NAME.fullmatch(self.user):
            raise RemoteError(f"{self.user!r} is no user name: expected {FORMS}")
        if self.kind == "adb" and not _NAME.fullmatch(self.serial):
            raise RemoteError(
                f"{self.serial!r} is no serial number: expected {FORMS}; `adb devices` lists them"
            )

    def __str__(self) -> str:
        if self.kind == "local":
            return "local"
        if self.kind == "adb":
            return f"adb://{self.serial}"
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"ssh://{user}{self.host}{port}"


def parse_address(text: str) -> Address:
    """Read an address.

    Args:
        text: ``local``, ``ssh://user@host[:port]`` or ``adb://serial``.

    Raises:
        RemoteError: It is none of these; a password in it is refused and not repeated.
    """
    if text == "local":
        return Address("local")
    kind, separator, rest = text.partition("://")
    if not separator or kind not in ("ssh", "adb"):
        raise RemoteError(f"board address {text!r}: expected {FORMS}")
    if kind == "adb":
        return Address("adb", serial=rest)
    parts = urlsplit(text)
    if parts.password is not None:
        raise RemoteError(
            f"the address of {parts.hostname} has a password in it: boardfit takes none; "
            "log in by key (ssh-copy-id) and leave it out"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise RemoteError(f"board address {text!r} goes on behind the host: expected {FORMS}")
    try:
        port = parts.port
    except ValueError as error:
        raise RemoteError(f"board address {text!r}: {error}; expected {FORMS}") from error
    # urlsplit lowers the host's name; an alias of the user's configuration may have capitals.
    host = rest.rpartition("@")[2].rstrip("/")
    host = host if port is None else host.rpartition(":")[0]
    return Address("ssh", host=host.strip("[]"), user=parts.username, port=port)
