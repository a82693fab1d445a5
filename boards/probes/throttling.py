"""Is the clock held down, for heat or want of power?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from boardfit.boards.sections import Sensors
from boardfit.boards.system import Ask, paths_in, read_number, read_text

# Raspberry Pi documentation, "vcgencmd get_throttled": bits 0 to 3 say now, 16 to 19 since the boot.
UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
NOW = UNDER_VOLTAGE | CAPPED | THROTTLED | SOFT_LIMIT

# Cooling devices that hold a clock down; the others are fans, lamps and messages. The words of Linux
# (drivers/thermal/cpufreq_cooling.c, devfreq_cooling.c, cpuidle_cooling.c; drivers/acpi/processor_thermal.c),
# and of NVIDIA's kernels: cpu-throttle-alert, cpu-balanced, tegra-heavy.
_HOLDS_CLOCK = re.compile(r"cpufreq|devfreq|thermal-idle|throttle|balanced|heavy|^Processor$", re.IGNORECASE)


class Throttling(Protocol):
    """Tells whether the clock is held down."""

    def read(self) -> tuple[bool | None, int | None]:
        """Return whether it is held down now, and the board's own word for it; None where nothing tells."""
        ...


class FirmwareBits:
    """The word of a Raspberry Pi's firmware."""

    def __init__(self, ask: Ask) -> None:
        """Remember whom to ask.

        Args:
            ask: Runs ``vcgencmd``.
        """
        self._ask = ask

    def read(self) -> tuple[bool | None, int | None]:
        """Return whether it is throttled, and the bits."""
        found = re.search(r"throttled=(0x[0-9a-fA-F]{1,8})\b", self._ask(["vcgencmd", "get_throttled"]) or "")
        if not found:
            return None, None
        bits = int(found[1], 16)
        return bool(bits & NOW), bits


class CoolingDevices:
    """Linux's own: a state above 0 holds a clock down, or a count of such events rose since the read before.

    The counts are those of x86 (``thermal_throttle``) and of NVIDIA's Orin (``oc1_event_cnt``: voltage too
    low, ``oc2`` and ``oc3``: current too high).
    """

    def __init__(self, root: Path) -> None:
        """Look the devices up.

        Args:
            root: Folder that holds ``sys``.
        """
        devices = paths_in(root / "sys/class/thermal", "cooling_device*")
        self._states = [
            device / "cur_state"
            for device in devices
            if _HOLDS_CLOCK.search(read_text(device / "type") or "")
        ]
        self._counts = [
            *paths_in(root / "sys/devices/system/cpu", "cpu[0-9]*/thermal_throttle/*_throttle_count"),
            *paths_in(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt"),
        ]
        self._before = _numbers(self._counts)

    def read(self) -> tuple[bool | None, int | None]:
        """Return whether it is throttled; this system has no bits."""
        states, counts = _numbers(self._states), _numbers(self._counts)
        rose = any(value > self._before.get(file, value) for file, value in counts.items())
        self._before = counts
        if not states and not counts:
            return None, None
        return rose or any(value > 0.0 for value in states.values()), None


class NoThrottling:
    """Nothing tells."""

    def read(self) -> tuple[bool | None, int | None]:
        """Return that nothing is known."""
        return None, None


def throttling_reader(root: Path, sensors: Sensors, ask: Ask) -> Throttling:
    """Return who tells on this board.

    Args:
        root: Folder that holds ``sys``.
        sensors: Of the profile.
        ask: Runs a tool.
    """
    if sensors.throttling == "vcgencmd":
        firmware = FirmwareBits(ask)
        return firmware if firmware.read()[0] is not None else CoolingDevices(root)
    return CoolingDevices(root) if sensors.throttling == "cooling" else NoThrottling()


def _numbers(files: Sequence[Path]) -> dict[Path, float]:
    read = {file: read_number(file) for file in files}
    return {file: value for file, value in read.items() if value is not None}
