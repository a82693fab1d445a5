"""What a board says of itself at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of this process and of the machine; None where the system does not tell.

    Attributes:
        rss_bytes: Resident memory of this process.
        pss_bytes: The same, with shared pages counted in part.
        peak_bytes: The most that ``rss_bytes`` has been.
        available_bytes: What the machine could still give.
        total_bytes: What the machine has.
    """

    rss_bytes: int | None = None
    pss_bytes: int | None = None
    peak_bytes: int | None = None
    available_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All probes read once. What this board does not tell is None or left out of its mapping.

    Attributes:
        time_s: When, in seconds of the clock that the reader was given.
        temperatures_c: Degrees Celsius by zone.
        clocks_hz: Present clock by CPU policy or core, such as ``cpu0``.
        max_clocks_hz: The highest clock that is allowed now, by the same names.
        governors: Frequency governor by the same names.
        throttled: Whether the clock is held down now, for heat or want of power.
        throttle_bits: The board's own word for it, such as ``vcgencmd get_throttled``.
        power_w: Watts by rail.
        power_mode: The board's power mode, such as ``nvpmodel``'s.
        memory: Of this process and the machine.
        load_1min: Runnable tasks, averaged over a minute.
        busy_share: Share of all cores' time, 0 to 1, that other processes took since the snapshot
            before; None in the first one.
    """

    time_s: float
    temperatures_c: Mapping[str, float] = field(default_factory=dict)
    clocks_hz: Mapping[str, float] = field(default_factory=dict)
    max_clocks_hz: Mapping[str, float] = field(default_factory=dict)
    governors: Mapping[str, str] = field(default_factory=dict)
    throttled: bool | None = None
    throttle_bits: int | None = None
    power_w: Mapping[str, float] = field(default_factory=dict)
    power_mode: str | None = None
    memory: MemoryUse = field(default_factory=MemoryUse)
    load_1min: float | None = None
    busy_share: float | None = None

    @property
    def hottest_c(self) -> float | None:
        """Highest temperature in degrees Celsius; None where no zone tells."""
        return max(self.temperatures_c.values(), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """Read the record back from JSON values.

        Raises:
            TypeError: A field is missing or unknown.
        """
        return cls(**{**data, "memory": MemoryUse(**data["memory"])})
