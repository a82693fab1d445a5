"""NVIDIA's power modes: ``nvpmodel`` and ``jetson_clocks``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from boardfit.boards.sections import Sensors
from boardfit.boards.system import Ask, read_text


class PowerModes:
    """Knows the names of the modes."""

    def __init__(self, root: Path, sensors: Sensors, ask: Ask) -> None:
        """Read the names.

        Args:
            root: Folder that holds ``etc`` and ``var``.
            sensors: Of the profile: whether there are such modes.
            ask: Runs ``nvpmodel``.
        """
        self._present = sensors.nvpmodel
        self._status = root / "var/lib/nvpmodel/status"
        text = (read_text(root / "etc/nvpmodel.conf") or "") if self._present else ""
        # < POWER_MODEL ID=0 NAME=MAXN >
        self._names = {
            int(number): name for number, name in re.findall(r"POWER_MODEL ID=(\d{1,9}) NAME=(\S+)", text)
        }
        self._asked = _query(ask) if self._present and self._mode() is None else None

    def read(self, *, locked: Callable[[], bool]) -> str | None:
        """Return the mode, such as ``MAXN`` or ``15W + jetson_clocks``; None where there is none.

        Args:
            locked: Tells whether no clock can move; asked only where there are modes.
        """
        if not self._present:
            return None
        mode = self._mode() or self._asked
        return f"{mode} + jetson_clocks" if mode is not None and locked() else mode

    def _mode(self) -> str | None:
        found = re.search(r"pmode:(\d{1,9})", read_text(self._status) or "")
        return self._names.get(int(found[1]), f"mode {int(found[1])}") if found else None


def _query(ask: Ask) -> str | None:
    found = re.search(r"NV Power Mode: (\S+)", ask(["nvpmodel", "-q"]) or "")
    return found[1] if found else None
