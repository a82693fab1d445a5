"""Clocks and governors by cpufreq policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from boardfit.boards.system import paths_in, read_number, read_text

_HZ_PER_KHZ = 1e3


@dataclass(frozen=True, slots=True)
class PolicyClock:
    """One policy: cores that share a clock.

    Attributes:
        name: Its first core, such as ``cpu4``.
        hz: Present clock.
        max_hz: The highest that is allowed now.
        governor: Who chooses it.
    """

    name: str
    hz: float | None
    max_hz: float | None
    governor: str | None


class Clocks:
    """Knows the folders of the policies."""

    def __init__(self, root: Path) -> None:
        """Look the policies up.

        Args:
            root: Folder that holds ``sys``.
        """
        folder = root / "sys/devices/system/cpu"
        found = {
            f"cpu{path.name.removeprefix('policy')}": path for path in paths_in(folder, "cpufreq/policy*")
        }
        # Old kernels of phones have a folder for each core only.
        self._policies = found or {path.parent.name: path for path in paths_in(folder, "cpu[0-9]*/cpufreq")}

    def read(self) -> list[PolicyClock]:
        """Return every policy's state."""
        return [
            PolicyClock(
                name,
                _hz(folder / "scaling_cur_freq"),
                _hz(folder / "scaling_max_freq"),
                read_text(folder / "scaling_governor") or None,
            )
            for name, folder in self._policies.items()
        ]

    def locked(self) -> bool:
        """Return whether no clock can move, as after NVIDIA's ``jetson_clocks``."""
        spans = [
            (_hz(folder / "scaling_min_freq"), _hz(folder / "scaling_max_freq"))
            for folder in self._policies.values()
        ]
        return bool(spans) and all(least is not None and least == most for least, most in spans)


def _hz(file: Path) -> float | None:
    value = read_number(file, scale=_HZ_PER_KHZ)
    return value if value is not None and value > 0.0 else None
