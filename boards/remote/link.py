"""The one thing that ways to a board differ in: which program carries a shell command there."""

from __future__ import annotations

import shutil
from typing import Protocol

from boardfit.errors import RemoteError


class Link(Protocol):
    """A way to a board. It knows words of a program on this side, and what that program's complaints mean.

    Attributes:
        name: The board's address, for messages.
    """

    name: str

    def first(self, command: str) -> list[str]:
        """Return the words that run a shell command there and may carry others with it.

        Args:
            command: For the shell of whoever we are there.
        """
        ...

    def words(self, command: str) -> list[str]:
        """Return the words that run a shell command there while the first one runs."""
        ...

    def explain(self, said: str) -> str:
        """Return a sentence for people.

        Args:
            said: Standard error of a command that did not reach the board, or did not come back from it.
        """
        ...

    def close(self) -> None:
        """Remove what the link needed on this side. Twice does no harm."""
        ...


def require_program(name: str, advice: str) -> str:
    """Return the path of a program on this machine.

    Raises:
        RemoteError: It is not there; the message gives ``advice``.
    """
    found = shutil.which(name)
    if found is None:
        raise RemoteError(f"the program {name} was not found on this machine: {advice}")
    return found


def last_line(said: str, otherwise: str) -> str:
    """Return the last line of a program's complaint that says something."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise
