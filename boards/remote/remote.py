"""A board at the other end of a link: run a command there, push a file, pull one."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType

from boardfit.boards.remote.call import Lines, Overdue, call
from boardfit.boards.remote.keeper import PATIENCE_S, Keeper
from boardfit.boards.remote.link import Link
from boardfit.errors import RemoteError

NEED_BYTES = 600_000_000
"""Room that a place should have: an engine with numpy and OpenCV takes about 250 MB there."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    Attributes:
        status: Exit status, 0 to 255.
        stdout: What it printed.
        stderr: What it complained.
    """

    status: int
    stdout: str
    stderr: str


class Remote:
    """An open board. Use it as a context manager: at the end nothing of ours stays there.

    Every command counts as finished only if the board said so itself: a link that ends while one runs is
    never taken for its exit status.
    """

    def __init__(self, link: Link, *, need_bytes: int = NEED_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._link = link
        try:
            self._keeper = Keeper(link, need_bytes=need_bytes, patience_s=patience_s)
        except BaseException:
            link.close()
            raise

    @property
    def name(self) -> str:
        """The board's address."""
        return self._link.name

    @property
    def machine(self) -> str:
        """What ``uname -m`` says there."""
        return self._keeper.machine

    @property
    def free_bytes(self) -> int | None:
        """Room at the workspace when it was made; None if the board does not tell."""
        return self._keeper.free_bytes

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = self._keeper.lost
        left = self._keeper.close()
        if left is not None and kind is None:
            how = "the link was lost" if lost else "the board could not remove it"
            raise RemoteError(
                f"{self.name}: {left} may be left there, since {how}; it goes with the next connection"
            )

    def workspace(self) -> PurePosixPath:
        """Return the private folder there, in which commands run and which is removed at the end."""
        return self._keeper.work

    def run(
        self,
        words: Sequence[str],
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Finished:
        """Run a command in the workspace.

        Args:
            words: Program and arguments; no shell reads them.
            timeout_s: After so many seconds it is stopped there; None for never.
            env: Variables that it gets besides the board's own.
            on_line: Gets each line of its standard output as it comes, without the end of line.
            on_note: The same for standard error.

        Returns:
            How it ended; a status that is not 0 is no error here.

        Raises:
            RemoteError: The link was lost, or the time was over.
        """
        out = Lines(on_line)
        extra = ["env", *(f"{key}={value}" for key, value in env.items())] if env else []
        status, said = self.attempt([*extra, *words], on_out=out, on_note=on_note, timeout_s=timeout_s)
        if status is None:
            raise self.lost(f"`{shlex.join(words)}`", said)
        return Finished(status, out.text, said)

    def push(
        self, local: Path, path: str | PurePath, *, on_bytes: Callable[[int], None] | None = None
    ) -> PurePosixPath:
        """Copy a file or a folder to the board. It appears there when it is whole and its hash is right.

        Args:
            local: What to copy; of a folder all files and folders, links followed.
            path: Where to, below the workspace.
            on_bytes: Gets the number of bytes that went over, from time to time.

        Returns:
            The path on the board.

        Raises:
            RemoteError: The link was lost, the disk there is full, or the bytes did not arrive whole.
        """
        from boardfit.boards.remote.transfer import push

        return push(self, local, path, on_bytes=on_bytes)

    def pull(self, path: str | PurePath, local: Path) -> None:
        """Copy a file or a folder from the board. It appears here when it is whole and its hash is right.

        Args:
            path: On the board; a relative one is below the workspace.
            local: Where to; what is there is replaced, a folder only if it is empty.

        Raises:
            RemoteError: The link was lost, there is no such file, or the bytes did not arrive whole.
        """
        from boardfit.boards.remote.transfer import pull

        pull(self, path, local)

    def ask(self, *words: str) -> Finished:
        """Run a word of ``board.sh``."""
        out = Lines()
        status, said = self.attempt(self.own_words(*words), on_out=out)
        if status is None:
            raise self.lost(f"`{words[0]}`", said)
        return Finished(status, out.text, said)

    def attempt(
        self,
        words: Sequence[str],
        *,
        on_out: Callable[[bytes], None],
        feed: Iterable[bytes] | None = None,
        on_note: Callable[[str], None] | None = None,
        timeout_s: float | None = None,
    ) -> tuple[int | None, str]:
        """Run a command whose input or output are bytes, and say so if its end was not heard of.

        Args:
            words: Program and arguments.
            on_out: Gets pieces of its standard output.
            feed: Its standard input.
            on_note: Gets each line of standard error.
            timeout_s: As for ``run``.

        Returns:
            Exit status, None if the link broke; and standard error.

        Raises:
            RemoteError: The time was over.
        """
        token = secrets.token_hex(8)
        mark = f"boardfit-finished {token} "
        said = Lines(None if on_note is None else lambda line: on_note(line) if mark not in line else None)
        try:
            call(
                self._link.words(shlex.join(self.own_words("run", token, *words))),
                feed=feed,
                on_out=on_out,
                on_err=said,
                timeout_s=timeout_s,
                given_up=lambda: self._keeper.lost,
                abandon=lambda: self._keeper.stop(token),
            )
        except Overdue as error:
            raise RemoteError(
                f"{self.name}: `{shlex.join(words)}` took over {timeout_s:g} s and was stopped"
            ) from error
        text, found, status = said.text.partition(mark)
        if not found:
            self._keeper.stop(token)
            return None, text
        return int(status.split()[0]), text

    @property
    def is_lost(self) -> bool:
        """Whether the board is out of reach for good."""
        return self._keeper.lost

    def lost(self, what: str, said: str) -> RemoteError:
        """Return the error for a command whose end was not heard of.

        Args:
            what: What it did.
            said: Its standard error.
        """
        # The first connection may learn of it a moment after the one that it carries.
        why = self._keeper.explain() if self._keeper.wait_lost(2.0) else self._link.explain(said)
        return RemoteError(f"{self.name}: lost during {what}: {why}; nothing half done stays, run it again")

    def own_words(self, *words: str) -> list[str]:
        """Return the words that run a word of ``board.sh`` there."""
        return ["sh", str(self._keeper.work / ".boardfit" / "board"), *words]
