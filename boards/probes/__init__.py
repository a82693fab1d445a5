"""How is the board doing? Temperature, clocks, throttling, power, memory, load: where the system tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from boardfit.boards.probes.clocks import Clocks
from boardfit.boards.probes.load import BusyShare, read_load
from boardfit.boards.probes.memory import read_memory
from boardfit.boards.probes.modes import PowerModes
from boardfit.boards.probes.power import power_reader
from boardfit.boards.probes.thermal import Thermal
from boardfit.boards.probes.throttling import Throttling, throttling_reader
from boardfit.boards.profile import Profile
from boardfit.boards.records import Snapshot
from boardfit.boards.system import Ask, ask_tool

__all__ = ["Probes"]


class Probes:
    """Reads what a board tells of itself. Nothing here fails: what is absent or nonsense is left out.

    Which files there are is looked up once, when it is made. What a read costs is measured by
    ``benchmarks/evidence/probes.py``.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        root: Path = Path("/"),
        ask: Ask = ask_tool,
        own_cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        """Look up the sensors.

        Args:
            profile: Of the board; names its sensors.
            root: Folder that holds ``proc`` and ``sys``.
            ask: Runs a tool, such as ``vcgencmd``.
            own_cpu_s: Processor time of this process in seconds, all threads together.
        """
        self._root = root
        self._thermal = Thermal(root, profile.sensors)
        self._clocks = Clocks(root)
        self._throttling: Throttling = throttling_reader(root, profile.sensors, ask)
        self._power = power_reader(root, profile.sensors, ask)
        self._modes = PowerModes(root, profile.sensors, ask)
        self._busy = BusyShare(root, own_cpu_s)

    def read(self, time_s: float) -> Snapshot:
        """Read everything once.

        Args:
            time_s: When, for the record, in seconds of the caller's clock.
        """
        throttled, bits = self._throttling.read()
        policies = self._clocks.read()
        return Snapshot(
            time_s=time_s,
            temperatures_c=self._thermal.read(),
            clocks_hz={each.name: each.hz for each in policies if each.hz is not None},
            max_clocks_hz={each.name: each.max_hz for each in policies if each.max_hz is not None},
            governors={each.name: each.governor for each in policies if each.governor is not None},
            throttled=throttled,
            throttle_bits=bits,
            power_w=self._power(),
            power_mode=self._modes.read(locked=self._clocks.locked),
            memory=read_memory(self._root),
            load_1min=read_load(self._root),
            busy_share=self._busy.read(),
        )

    def temperature_c(self) -> float | None:
        """Return the hottest zone in degrees Celsius; None where none tells."""
        return max(self._thermal.read().values(), default=None)

    def throttled(self) -> bool:
        """Return whether the clock is held down now; False also where nothing tells."""
        return bool(self._throttling.read()[0])
