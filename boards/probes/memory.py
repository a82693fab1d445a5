"""Memory of this process and of the machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

from boardfit.boards.records import MemoryUse
from boardfit.boards.system import read_kilobytes


def read_memory(root: Path) -> MemoryUse:
    """Return memory as Linux tells it.

    Args:
        root: Folder that holds ``proc``.
    """
    status = read_kilobytes(root / "proc/self/status")
    machine = read_kilobytes(root / "proc/meminfo")
    return MemoryUse(
        rss_bytes=status.get("VmRSS"),
        pss_bytes=read_kilobytes(root / "proc/self/smaps_rollup").get("Pss"),
        peak_bytes=status.get("VmHWM"),
        available_bytes=machine.get("MemAvailable"),
        total_bytes=machine.get("MemTotal"),
    )


def reset_peak(root: Path = Path("/")) -> None:
    """Let the peak of this process' memory begin anew at what it is now, where the system can do that.

    Source: proc_pid_clear_refs(5), value 5, since Linux 4.0.

    Args:
        root: Folder that holds ``proc``.
    """
    with contextlib.suppress(OSError):
        (root / "proc/self/clear_refs").write_text("5", encoding="ascii")
