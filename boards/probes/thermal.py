"""Temperatures by zone."""

from __future__ import annotations

from pathlib import Path

from boardfit.boards.sections import Sensors
from boardfit.boards.system import paths_in, read_number, read_text

COLDEST_C, HOTTEST_C = -60.0, 200.0
"""Beyond these a sensor does not tell a temperature, but that it has none."""

# Where Linux has no thermal zone, as on some PCs: drivers of hwmon that sit in the processor.
_PROCESSOR_DRIVERS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class Thermal:
    """Knows the files of the zones that count."""

    def __init__(self, root: Path, sensors: Sensors) -> None:
        """Look the zones up.

        Args:
            root: Folder that holds ``sys``.
            sensors: Of the profile: which zones tell nothing.
        """
        found: dict[str, Path] = {}
        for zone in paths_in(root / "sys/class/thermal", "thermal_zone*"):
            name = read_text(zone / "type") or zone.name
            if name not in sensors.ignored_zones:
                found[name if name not in found else f"{name}-{zone.name}"] = zone / "temp"
        self._files = found or _of_hwmon(root)

    def read(self) -> dict[str, float]:
        """Return degrees Celsius by zone, of those that tell."""
        read = {name: read_number(file, scale=1e-3) for name, file in self._files.items()}
        return {name: c for name, c in read.items() if c is not None and COLDEST_C < c < HOTTEST_C}


def _of_hwmon(root: Path) -> dict[str, Path]:
    found = {}
    for folder in paths_in(root / "sys/class/hwmon", "hwmon*"):
        driver = read_text(folder / "name")
        if driver in _PROCESSOR_DRIVERS:
            for file in paths_in(folder, "temp*_input"):
                label = read_text(file.with_name(file.name.replace("_input", "_label")))
                found[f"{driver} {label or file.name.removesuffix('_input')}"] = file
    return found
