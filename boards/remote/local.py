"""This machine, as if it were elsewhere: the same folder, the same hashes, no network."""

from __future__ import annotations

from boardfit.boards.remote.link import last_line


class LocalLink:
    """Runs the shell here."""

    name = "local"

    def first(self, command: str) -> list[str]:
        """Return the words that run a command."""
        return ["sh", "-c", command]

    def words(self, command: str) -> list[str]:
        """Return the words that run a command."""
        return self.first(command)

    def explain(self, said: str) -> str:
        """Return the shell's own complaint."""
        return last_line(said, "the shell of this machine ended")

    def close(self) -> None:
        """Nothing to remove."""
