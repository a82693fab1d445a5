"""The machine and the software that a report comes from."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from boardfit._version import __version__
from boardfit.benchmarks.records import Environment
from boardfit.boards.records import Snapshot
from boardfit.runtime.engines import engine_version, find_engine

if TYPE_CHECKING:
    from boardfit.boards.detect import Board


def environment(
    board: Board, state: Snapshot, *, engines: Iterable[str], command: Sequence[str], started: datetime
) -> Environment:
    """Return what is known of where this runs.

    Args:
        board: As it was recognised.
        state: The board's state at the beginning.
        engines: Names of the engines that run.
        command: Words of the command line.
        started: When, with its time zone.
    """
    governors = sorted(set(state.governors.values()))
    return Environment(
        board=board.profile.name,
        board_title=board.profile.title,
        emulated=board.emulated,
        cpu=board.cpu,
        cores=board.cores,
        memory_bytes=board.memory_bytes,
        os_name=board.os_name,
        kernel=board.kernel,
        libc=libc_name(),
        python=platform.python_version(),
        packages=package_versions(engines),
        governor=", ".join(governors) or None,
        power_mode=state.power_mode,
        command=tuple(command),
        started_utc=started.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def package_versions(engines: Iterable[str]) -> dict[str, str]:
    """Return the versions of boardfit, numpy, OpenCV and the engines' libraries by name."""
    # Debian's python3-opencv is no Python package; the module that the runtime has loaded knows.
    loaded = str(getattr(sys.modules.get("cv2"), "__version__", ""))
    found = {"boardfit": __version__, "numpy": np.__version__, "opencv": loaded or _version("opencv")}
    versions = {name: _version(name) for name in engines}
    return found | {name: version for name, version in versions.items() if version}


def _version(engine: str) -> str:
    return engine_version(find_engine(engine))


def libc_name() -> str:
    """Return name and version of the C library, such as ``glibc 2.36``; empty where it does not tell."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # not glibc: musl, Android's bionic
        return " ".join(filter(None, platform.libc_ver()))
