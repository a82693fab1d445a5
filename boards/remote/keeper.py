"""The first connection: it keeps a private folder on the board, and removes it when we are gone.

``keeper.sh`` runs there for as long as the connection lasts. A word from here every few seconds shows it that
we are there, and its echo shows us that the board is. When either is missed the other side gives up: the
board removes the folder and stops what runs in it, we raise ``RemoteError``.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import subprocess
import threading
import time
from importlib.resources import files
from pathlib import PurePosixPath
from typing import IO

from boardfit.boards.remote.link import Link
from boardfit.errors import RemoteError

# On a link of 1 Mbit/s an answer waits for many seconds behind a transfer, in the buffers on the way.
PATIENCE_S = 60.0
_BEATS_PER_PATIENCE = 9
_OPEN_S = 60.0
_CLOSE_S = 40.0
_COMPLAINT_S = 2.0

# The board's login shell may be any; this one line has no "!", and all else comes through standard input.
_START = (
    'sh -c \'eval "$(while IFS= read -r line; do [ "$line" = boardfit-end ] && break; '
    'printf "%s\\n" "$line"; done)"\' boardfit-keeper'
)


class Keeper:
    """Holds the folder open from here.

    Attributes:
        work: The folder on the board.
        machine: What ``uname -m`` says there.
        free_bytes: Room at the folder when it was made; None if the board does not tell.
    """

    work: PurePosixPath
    machine: str
    free_bytes: int | None

    def __init__(self, link: Link, *, need_bytes: int, patience_s: float = PATIENCE_S) -> None:
        self._link = link
        self._patience_s = patience_s
        self._said: list[bytes] = []
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._process = subprocess.Popen(
            link.first(_START),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin = self._process.stdin
        self._last_answer_s = time.monotonic()
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        self._overhearing = threading.Thread(target=self._overhear, args=(self._process.stderr,), daemon=True)
        self._overhearing.start()
        try:
            self._open(need_bytes)
        except BaseException:
            self._end()
            raise
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether the board is out of reach."""
        return self._lost.is_set()

    def wait_lost(self, timeout_s: float) -> bool:
        """Wait a little for the news that the board is out of reach; return whether it is."""
        return self._lost.wait(timeout_s)

    def explain(self) -> str:
        """Return why the board is out of reach."""
        # The complaint comes through another pipe than the news: let it arrive.
        self._overhearing.join(_COMPLAINT_S)
        return self._link.explain(b"".join(self._said).decode("utf-8", "replace"))

    def stop(self, token: str) -> None:
        """Stop a command there, with all that it started."""
        self._tell(f"stop {token}")

    def close(self) -> str | None:
        """Have the folder removed.

        Returns:
            None if the board says that nothing is left; else what is left, or that nobody knows.
        """
        if self._closing.is_set():
            return None
        self._closing.set()
        self._tell("bye")
        with contextlib.suppress(OSError):
            self._stdin.close()
        last = self._last_words()
        self._end()
        if last == "boardfit gone":
            return None
        return last.partition("boardfit left ")[2] or str(self.work)

    def _open(self, need_bytes: int) -> None:
        self._tell(
            f"token={secrets.token_hex(8)} need_kb={need_bytes // 1024} "
            f"patience_s={max(1, round(self._patience_s))}"
        )
        for name in ("keeper.sh", "board.sh"):
            self._tell(files("boardfit.boards.remote").joinpath(name).read_text("utf-8") + "boardfit-end")
        deadline = time.monotonic() + _OPEN_S
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RemoteError(
                    f"{self._link.name}: no answer within {_OPEN_S:.0f} s: is it on, and is a shell there?"
                ) from None
            if answer is None:
                raise RemoteError(f"{self._link.name}: {self.explain()}")
            if answer == "boardfit no-place":
                raise RemoteError(
                    f"{self._link.name}: there is no folder where we may write and run programs (tried "
                    "$TMPDIR, /var/tmp, $HOME, /data/local/tmp, /tmp); is its disk full or read-only? "
                    "Set TMPDIR there"
                )
            if answer.startswith("boardfit ready "):
                _, _, free_kb, self.machine, work = answer.split(" ", 4)
                self.work = PurePosixPath(work)
                self.free_bytes = int(free_kb) * 1024 if int(free_kb) >= 0 else None
                return

    def _tell(self, text: str) -> None:
        try:
            self._stdin.write(text.encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError):
            pass  # Gone: whoever listens notices.

    def _beat(self) -> None:
        number = 0
        while not self._closing.wait(self._patience_s / _BEATS_PER_PATIENCE):
            number += 1
            self._tell(f"beat {number}")
            if time.monotonic() - self._last_answer_s > self._patience_s:
                self._said.append(b"timed out")
                self._lost.set()
                self._process.kill()
            if self._lost.is_set():
                return

    def _listen(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").strip()
            if line.startswith("boardfit "):
                self._last_answer_s = time.monotonic()
                if not line.startswith("boardfit beat "):
                    self._answers.put(line)
        self._lost.set()
        self._answers.put(None)

    def _overhear(self, stream: IO[bytes]) -> None:
        for raw in stream:
            self._said.append(raw)

    def _last_words(self) -> str:
        deadline = time.monotonic() + _CLOSE_S
        while not self._lost.is_set() or not self._answers.empty():
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return ""
            if answer is None or answer.startswith(("boardfit gone", "boardfit left")):
                return answer or ""
        return ""

    def _end(self) -> None:
        self._closing.set()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5.0 if self._lost.is_set() else 0.5)
        self._process.kill()
        self._process.wait()
        self._link.close()
