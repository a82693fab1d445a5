"""What an isolated engine may take, and what became of it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from boardfit.errors import RecipeError

_MIB = 1 << 20
BASE_BYTES = 512 * _MIB
PER_FILE_BYTE = 16
SHARE_OF_MACHINE = 0.75
MOST_AWAKE_S = 1.0
REASONS = ("crashed", "hung", "memory")


def most_memory_bytes() -> int:
    """Return three quarters of the machine's memory, in bytes."""
    return int(SHARE_OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@dataclass(frozen=True, slots=True)
class Isolation:
    """The limits of an isolated engine.

    Attributes:
        deadline_s: Seconds for one run; None for five times the 99th percentile of the last 512 runs at the
            same shape, at least 0.2. Time in which the engine waited for a processor that others had does not
            count, up to nine times as much.
        first_deadline_s: Seconds for a run without a precedent: the first five at each shape, and the first
            one of each shape in a new process. Engines plan and compile there.
        load_deadline_s: Seconds for starting a process and loading a file; to do so again, it has ten times
            as long as the longest such start took, at least 5 s.
        memory_bytes: Resident memory that the process may reach. It is looked at every 50 ms while a run
            goes on, so a fast eater is caught some 100 MiB above. None for 512 MiB and 16 times the bytes of
            the model's files, but at most three quarters of the machine's memory.
        spare: Whether a second process waits with the model loaded. It replaces a lost one without the time
            to start, and takes as much memory again as the engine.
        awake_s: Seconds that the process waits for the next run without sleeping, as engines' own thread
            pools do; only where the run before came within them. A core that slept is slow at first. The
            default serves loops without a pause; where frames come within this time after an answer, a core
            is never idle, and a container's share of processor time is used up by waiting. Where the
            engine has fewer threads than there are cores, the caller does not sleep either, for 1 to 4 ms
            about the time at which the answer is due. 0 always sleeps, as does a machine with one core, and
            a process at real-time priority.
    """

    deadline_s: float | None = None
    first_deadline_s: float = 10.0
    load_deadline_s: float = 60.0
    memory_bytes: int | None = None
    spare: bool = False
    awake_s: float = 0.005

    def __post_init__(self) -> None:
        for name in ("deadline_s", "first_deadline_s", "load_deadline_s", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"isolation's {name} is {value!r}: expected a positive number")
        if not 0.0 <= self.awake_s <= MOST_AWAKE_S:
            raise RecipeError(
                f"isolation's awake_s is {self.awake_s!r}: expected 0 to {MOST_AWAKE_S:g} seconds"
            )

    def memory_limit_bytes(self, file_bytes: int) -> int:
        """Return the resident memory that the process may reach.

        Args:
            file_bytes: Bytes of all model files that it has loaded.
        """
        if self.memory_bytes is not None:
            return self.memory_bytes
        return min(BASE_BYTES + PER_FILE_BYTE * file_bytes, most_memory_bytes())


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What became of a session's engine processes.

    Attributes:
        pid: Of the process that runs the engine; None where none could be started.
        spare_pid: Of the one that waits; None where there is none.
        rss_bytes: Resident memory of the engine's process; 0 where it is gone.
        memory_limit_bytes: What it may reach.
        crashed: Processes that died by themselves.
        hung: Processes that were killed for missing a deadline.
        memory: Processes that were killed for their memory.
    """

    pid: int | None
    spare_pid: int | None
    rss_bytes: int
    memory_limit_bytes: int
    crashed: int
    hung: int
    memory: int

    @property
    def replaced(self) -> int:
        """Processes that were lost."""
        return self.crashed + self.hung + self.memory
