"""Which Python a board has, and what it could import: asked of that Python itself."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boardfit.boards.remote.link import last_line
from boardfit.boards.remote.remote import Remote
from boardfit.errors import RemoteError

OLDEST = (3, 10)
VARIABLE = "BOARDFIT_BOARD_PYTHON"
"""Names another Python on the board than its ``python3``, such as that of an environment."""

_TIMEOUT_S = 120.0

_LOOK = """
[ -n "$1" ] || set -- python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10
for name; do
    path=$(command -v "$name") || continue
    version=$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])') && echo "$version $path"
done
"""

# platform.machine() is the kernel's: a 32-bit Raspberry Pi OS runs on a 64-bit kernel.
_ASK = """
import importlib.util, json, os, platform, struct, sys, sysconfig
def has(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
libc, version = platform.libc_ver()
host = sysconfig.get_config_var("HOST_GNU_TYPE") or ""
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "machine": platform.machine(),
    "bits": struct.calcsize("P") * 8,
    "libc": "musl" if "musl" in host else "bionic" if hasattr(sys, "getandroidapilevel") else libc,
    "libc_version": version,
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "search_path": os.environ.get("PYTHONPATH", ""),
    "modules": [name for name in sys.argv[1:] if has(name)],
}))
"""


@dataclass(frozen=True, slots=True)
class PythonThere:
    """A board's Python.

    Attributes:
        path: On the board.
        version: Major and minor number.
        machine: As wheels name it: ``aarch64``, ``armv7l``, ``x86_64`` and so on.
        libc: ``glibc``, ``musl``, ``bionic``, or empty if it does not tell.
        libc_version: Major and minor number; (0, 0) if it does not tell.
        free_threaded: Whether it is the build without a global lock.
        search_path: Its ``PYTHONPATH``.
        modules: Those of the modules asked for that it can find.
    """

    path: str
    version: tuple[int, int]
    machine: str
    libc: str
    libc_version: tuple[int, int]
    free_threaded: bool
    search_path: str
    modules: frozenset[str]

    @property
    def platforms(self) -> tuple[str, ...]:
        """Wheel platforms that it takes, the newest first (PEP 600 and PEP 656); empty if none is known."""
        major, minor = self.libc_version
        if self.libc == "glibc" and major == 2:
            lowest = 5 if self.machine in ("x86_64", "i686") else 17
            named = [f"manylinux_2_{each}_{self.machine}" for each in range(minor, lowest - 1, -1)]
            old = [f"manylinux2014_{self.machine}"] if minor >= 17 else []
            return (*named, *old, f"linux_{self.machine}")
        if self.libc == "musl":
            return tuple(f"musllinux_1_{each}_{self.machine}" for each in (2, 1))
        return ()


def find_python(remote: Remote, modules: Sequence[str]) -> PythonThere:
    """Find a board's Python: ``python3``, or the newest beside it where that is too old.

    ``BOARDFIT_BOARD_PYTHON`` names another.

    Args:
        remote: The open board.
        modules: Top-level names of modules to look for. None is imported.

    Raises:
        RemoteError: There is none, or it is too old.
    """
    wanted = os.environ.get(VARIABLE, "")
    looked = remote.run(["sh", "-c", _LOOK, "look", wanted], timeout_s=_TIMEOUT_S)
    found = [_split(line) for line in looked.stdout.splitlines() if line.strip()]
    if not found:
        what = f"no Python at {wanted!r} ({VARIABLE})" if wanted else "no Python there"
        raise RemoteError(
            f"{remote.name}: {what}: boardfit needs Python {_text(OLDEST)} or newer on the board "
            "(sudo apt install python3; on Android there is none to use yet)"
        )
    # python3 is the one that the distribution's numpy and OpenCV belong to.
    version, path = next((each for each in found if each[0] >= OLDEST), max(found))
    if version < OLDEST:
        raise RemoteError(
            f"{remote.name}: its newest Python is {_text(version)} ({path}): boardfit needs "
            f"{_text(OLDEST)} or newer; install one beside it, and name it with {VARIABLE}=/path/of/python3"
        )
    asked = remote.run([path, "-c", _ASK, *modules], timeout_s=_TIMEOUT_S)
    if asked.status != 0:
        why = last_line(asked.stderr, f"exit status {asked.status}")
        raise RemoteError(f"{remote.name}: {path} does not work: {why}")
    return _read(path, json.loads(asked.stdout.splitlines()[-1]))


def _read(path: str, told: dict[str, Any]) -> PythonThere:
    return PythonThere(
        path=path,
        version=(told["version"][0], told["version"][1]),
        machine=_wheel_machine(told["machine"], told["bits"]),
        libc=told["libc"],
        libc_version=_version(told["libc_version"]),
        free_threaded=told["free_threaded"],
        search_path=told["search_path"],
        modules=frozenset(told["modules"]),
    )


def _wheel_machine(machine: str, bits: int) -> str:
    if bits == 32:
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def _split(line: str) -> tuple[tuple[int, int], str]:
    version, _, path = line.partition(" ")
    return _version(version), path


def _version(text: str) -> tuple[int, int]:
    numbers = [int(each) for each in text.split(".")[:2] if each.isdecimal()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def _text(version: tuple[int, int]) -> str:
    return ".".join(str(each) for each in version)
