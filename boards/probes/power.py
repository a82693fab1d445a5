"""Power by rail, in watts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boardfit.boards.sections import Sensors
from boardfit.boards.system import Ask, paths_in, read_number, read_text

_PER_MICRO = 1e-6

MOST_W = 1e4
"""Above this a sensor talks nonsense: no board takes ten kilowatts."""


@dataclass(frozen=True, slots=True)
class _Rail:
    """A product of two files, or one file of power (``volts`` is None)."""

    name: str
    amps: Path
    volts: Path | None
    scale: float

    def watts(self) -> float | None:
        amps = read_number(self.amps, scale=self.scale)
        volts = 1.0 if self.volts is None else read_number(self.volts)
        return None if amps is None or volts is None else amps * volts


@dataclass(frozen=True, slots=True)
class _Battery:
    """A battery, which tells what the device takes only while nothing charges it."""

    folder: Path
    name: str = "battery"

    def watts(self) -> float | None:
        if read_text(self.folder / "status") != "Discharging":
            return None
        amps = read_number(self.folder / "current_now", scale=_PER_MICRO)
        volts = read_number(self.folder / "voltage_now", scale=_PER_MICRO)
        if amps is None or volts is None:
            return None
        return abs(amps) * volts  # makers differ in the sign of what flows out


def power_reader(root: Path, sensors: Sensors, ask: Ask) -> Callable[[], dict[str, float]]:
    """Return a function that returns watts by rail, of the rails that tell.

    Args:
        root: Folder that holds ``sys``.
        sensors: Of the profile.
        ask: Runs a tool.
    """
    if sensors.power == "pmic":
        return lambda: parse_pmic(ask(["vcgencmd", "pmic_read_adc"]) or "")
    rails: Sequence[_Rail | _Battery] = ()
    if sensors.power == "ina3221":
        rails = ina3221_rails(root)
    elif sensors.power == "battery":
        rails = batteries(root)
    return lambda: _plausible({rail.name: rail.watts() for rail in rails})


def ina3221_rails(root: Path) -> list[_Rail]:
    """Return the rails of NVIDIA's power monitors: JetPack 5 and later through hwmon, 4 through iio.

    Sources: Linux, Documentation/hwmon/ina3221.rst (mV, mA); NVIDIA's Jetson Linux developer guide, chapter
    on power management (``rail_name_N``, mW).
    """
    found = []
    for folder in paths_in(root / "sys/class/hwmon", "hwmon*"):
        if read_text(folder / "name") == "ina3221":
            for current in paths_in(folder, "curr*_input"):
                number = current.name.removeprefix("curr").removesuffix("_input")
                label = read_text(folder / f"in{number}_label")
                volts = folder / f"in{number}_input"
                if label and label != "NC" and volts.exists():
                    found.append(_Rail(label, current, volts, 1e-6))
    if found:
        return found
    for power in paths_in(root / "sys/bus/i2c/drivers/ina3221x", "*/iio?device*/in_power*_input"):
        number = power.name.removeprefix("in_power").removesuffix("_input")
        label = read_text(power.with_name(f"rail_name_{number}"))
        found.append(_Rail(label or power.name, power, None, 1e-3))
    return found


def batteries(root: Path) -> list[_Battery]:
    """Return the battery of a phone: what flows out of it is what the whole phone takes.

    Source: Linux, Documentation/ABI/testing/sysfs-class-power (uA, uV, status).
    """
    folders = paths_in(root / "sys/class/power_supply", "*")
    return [_Battery(folder) for folder in folders if read_text(folder / "type") == "Battery"]


def parse_pmic(text: str) -> dict[str, float]:
    """Return watts by rail from the text of ``vcgencmd pmic_read_adc`` (Raspberry Pi 5).

    It tells currents (``VDD_CORE_A current(7)=0.98A``) and voltages (``VDD_CORE_V volt(15)=0.72V``); a rail
    without a current is left out. These are rails inside the board: their sum is less than what comes in.
    """
    amps = dict(re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", text))
    volts = dict(re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", text))
    watts: dict[str, float | None] = {}
    for name in amps.keys() & volts.keys():
        try:
            watts[name] = float(amps[name]) * float(volts[name])
        except ValueError:
            continue
    return dict(sorted(_plausible(watts).items()))


def _plausible(watts: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in watts.items() if value is not None and 0.0 <= value < MOST_W}
