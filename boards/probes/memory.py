"""Memory of this process and of the machine."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from boardfit.boards.records import MemoryUse
from boardfit.boards.system import read_text


def read_memory(root: Path) -> MemoryUse:
    """Return memory as Linux tells it.

    Args:
        root: Folder that holds ``proc``.
    """
    status = _kilobytes(root / "proc/self/status")
    machine = _kilobytes(root / "proc/meminfo")
    return MemoryUse(
        rss_bytes=status.get("VmRSS"),
        pss_bytes=_kilobytes(root / "proc/self/smaps_rollup").get("Pss"),
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


def _kilobytes(file: Path) -> dict[str, int]:
    """Return bytes by name from lines such as ``VmRSS:  1234 kB``."""
    lines = re.findall(r"^(\w+):\s*(\d{1,15}) kB$", read_text(file) or "", flags=re.MULTILINE)
    return {name: int(value) * 1024 for name, value in lines}
