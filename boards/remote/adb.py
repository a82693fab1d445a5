"""Android's debug bridge: the user's own ``adb``, over USB or the network.

Run against a stand-in for Android's daemon, not against a real Android.
"""

from __future__ import annotations

import subprocess

from boardfit.boards.remote.address import Address
from boardfit.boards.remote.link import last_line, require_program
from boardfit.errors import RemoteError

_MEANINGS = (
    (
        "unauthorized",
        "it does not trust this machine yet: unlock its screen and allow USB debugging there",
    ),
    ("offline", "it is offline: unplug it and plug it in again, or `adb reconnect offline`"),
    (
        "not found",
        "adb does not see it: `adb devices` lists those that it sees; one in the network needs "
        "`adb connect HOST:PORT` first",
    ),
    (
        "no permissions",
        "this user may not use it: install the udev rules (sudo apt install android-udev-rules)",
    ),
    ("cannot connect to daemon", "adb's server does not start: `adb start-server` shows why"),
    ("closed", "it closed the connection: it was unplugged or rebooted"),
)


class AdbLink:
    """A device behind ``adb``.

    Raises:
        RemoteError: adb does not see it, or it is too old to tell exit statuses.
    """

    def __init__(self, address: Address) -> None:
        self.name = str(address)
        program = require_program("adb", "install it (sudo apt install adb)")
        self._start = [program, "-s", address.serial]
        self._require_shell_v2()

    def first(self, command: str) -> list[str]:
        """Return the words that run a command there."""
        return [*self._start, "shell", "-T", command]

    def words(self, command: str) -> list[str]:
        """Return the words that run a command there."""
        return self.first(command)

    def explain(self, said: str) -> str:
        """Return what adb's complaint means and what to do."""
        lower = said.lower()
        for sign, meaning in _MEANINGS:
            if sign in lower:
                return meaning
        return last_line(said, "the connection ended: it was unplugged or rebooted")

    def close(self) -> None:
        """Nothing to remove: adb's server is the user's own."""

    def _require_shell_v2(self) -> None:
        try:
            done = subprocess.run(
                [*self._start, "features"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=30,
            )
        except subprocess.TimeoutExpired as error:
            raise RemoteError(f"{self.name}: adb did not answer within 30 s: `adb reconnect`") from error
        if done.returncode != 0:
            raise RemoteError(f"{self.name}: {self.explain(done.stderr or done.stdout)}")
        if "shell_v2" not in done.stdout.replace(",", "\n").split():
            raise RemoteError(
                f"{self.name}: its adb daemon tells no exit status (no shell_v2): expected Android 7 or newer"
            )
