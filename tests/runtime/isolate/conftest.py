"""What the tests of isolated engines see of this process and of others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest


def open_fds() -> set[str]:
    """What the descriptors of this process point to, those of the listing itself left out."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue
    return found


def children() -> set[str]:
    """Process ids of this process' children, zombies among them."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended meanwhile, whose children are another's now
            found |= set((task / "children").read_text().split())
    return found


def mapped_blocks() -> set[str]:
    """Shared memory of ours that this process has mapped: it has no name that others could see."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[0] for line in lines if "memfd:boardfit" in line}


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; one of our own does until it can be waited for, its last threads too."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return true()


@pytest.fixture(scope="session")
def watch() -> SimpleNamespace:
    """Functions that look at processes."""
    return SimpleNamespace(open_fds=open_fds, children=children, is_alive=is_alive, wait_until=wait_until)


@pytest.fixture
def nothing_left():
    """Fails the test where it leaves a descriptor, a thread, a process or a shared-memory segment behind."""

    def held() -> tuple[set[str], set[str], set[str], set[str]]:
        threads = {thread.name for thread in threading.enumerate()}
        return open_fds(), children(), threads, mapped_blocks()

    before = held()
    yield
    for what, was, now in zip(("fds", "processes", "threads", "segments"), before, held(), strict=True):
        assert now <= was, f"{what} left behind: {now - was}"
