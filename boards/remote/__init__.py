"""Boards elsewhere: run a command there, push a file, pull one, leave nothing behind.

``connect("ssh://pi@kitchen")`` opens a board and makes a private folder there; commands run in it, files are
pushed below it. It is removed at the end, also if the link is cut: then the board itself does it.
"""

from __future__ import annotations

from boardfit.boards.remote.adb import AdbLink
from boardfit.boards.remote.address import parse_address
from boardfit.boards.remote.keeper import PATIENCE_S
from boardfit.boards.remote.link import Link
from boardfit.boards.remote.local import LocalLink
from boardfit.boards.remote.remote import NEED_BYTES, Finished, Remote
from boardfit.boards.remote.ssh import SshLink

__all__ = ["Finished", "Remote", "connect"]


def connect(address: str, *, need_bytes: int = NEED_BYTES, patience_s: float = PATIENCE_S) -> Remote:
    """Open a board.

    Args:
        address: ``local``, ``ssh://user@host[:port]`` or ``adb://serial``. ``ssh`` uses the user's own
            OpenSSH with its configuration and keys, and never asks for a password.
        need_bytes: Room that the folder there should have; where no place has as much, the first that can be
            written is taken.
        patience_s: After so many seconds without a word from the other end, each end gives up.

    Raises:
        RemoteError: The board cannot be reached, or there is no place to work.
    """
    return Remote(_link(address), need_bytes=need_bytes, patience_s=patience_s)


def _link(address: str) -> Link:
    found = parse_address(address)
    if found.kind == "ssh":
        return SshLink(found)
    return AdbLink(found) if found.kind == "adb" else LocalLink()
