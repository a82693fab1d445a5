"""Wheels for a board, fetched on this machine: the board needs no network, no pip and no compiler.

They are kept here, each under its SHA-256, so that the second run of a board fetches nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from boardfit.boards.remote.link import last_line
from boardfit.boards.remote.python_there import PythonThere
from boardfit.boards.remote.transfer import hash_file
from boardfit.errors import RemoteError
from boardfit.files import write_whole

_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Need:
    """A library that must be there.

    Attributes:
        module: The top-level name that is imported.
        requirement: What pip is told, such as ``numpy>=1.24``. It is fetched without what it depends on,
            which must be listed beside it.
        debian: The package of Debian and Ubuntu that has it; empty if there is none.
    """

    module: str
    requirement: str
    debian: str = ""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on this machine.

    Attributes:
        path: Of the file.
        sha256: Of its bytes, in hexadecimal digits.
    """

    path: Path
    sha256: str


def default_cache() -> Path:
    """Return the folder where wheels are kept: below ``XDG_CACHE_HOME``, or else ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "boardfit" / "wheels"


def missing(python: PythonThere, needs: Sequence[Need]) -> list[Need]:
    """Return what a board's Python cannot find."""
    return [need for need in needs if need.module not in python.modules]


def fetch_wheel(need: Need, python: PythonThere, *, board: str, cache: Path | None = None) -> Wheel | None:
    """Return a wheel for a board, from the cache or the package index; None if there is none for it.

    Args:
        need: What is wanted.
        python: The board's.
        board: Its address, for messages.
        cache: Where wheels are kept; the default folder if None. Delete it to get newer ones.

    Raises:
        RemoteError: The index cannot be reached.
    """
    folder = cache or default_cache()
    note = folder / f"{_key(need, python)}.json"
    kept = _from_cache(folder, note)
    if kept is not None:
        return kept
    with tempfile.TemporaryDirectory(prefix="boardfit-") as fresh:
        found = _download(need, python, board, Path(fresh))
        if found is None:
            return None
        digest = hash_file(found)
        target = folder / digest / found.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with found.open("rb") as source:
            write_whole(target, iter(partial(source.read, 1 << 20), b""))
    write_whole(note, json.dumps({"sha256": digest, "name": target.name}).encode())
    return Wheel(target, digest)


def _from_cache(folder: Path, note: Path) -> Wheel | None:
    try:
        told = json.loads(note.read_text("utf-8"))
        digest, name = str(told["sha256"]), str(told["name"])
        path = folder / digest / name
        if path.parent.parent == folder and hash_file(path) == digest:
            return Wheel(path, digest)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Never fetched, or damaged: fetch it.
    return None


def _download(need: Need, python: PythonThere, board: str, folder: Path) -> Path | None:
    if not python.platforms:
        return None
    words = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    words += ["--only-binary=:all:", "--implementation", "cp", "--dest", str(folder)]
    words += ["--python-version", ".".join(str(each) for each in python.version)]
    if python.free_threaded:
        words += ["--abi", f"cp{python.version[0]}{python.version[1]}t", "--abi", "none"]
    words += [word for platform in python.platforms for word in ("--platform", platform)]
    try:
        done = subprocess.run(
            [*words, need.requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RemoteError(
            f"{board}: fetching {need.requirement} took over {_TIMEOUT_S:g} s: try again"
        ) from error
    found = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(found) == 1:
        return found[0]
    if "No matching distribution" in done.stderr and "connection" not in done.stderr.lower():
        return None
    if "No module named pip" in done.stderr:
        raise RemoteError(
            f"{board}: it lacks {need.module}, and this Python has no pip to fetch it with: "
            f"{sys.executable} -m ensurepip"
        )
    raise RemoteError(
        f"{board}: it lacks {need.module}, and fetching it here failed: "
        f"{last_line(done.stderr, 'pip does not say why')}; is this machine in a network? Or install "
        f"{need.requirement} on the board"
    )


def no_wheel(needs: Sequence[Need], python: PythonThere, board: str) -> RemoteError:
    """Return the error for libraries that a board lacks and that there is no wheel of."""
    version = ".".join(str(each) for each in python.version)
    libc = (
        f"{python.libc} {'.'.join(map(str, python.libc_version))}" if python.libc == "glibc" else python.libc
    )
    debian = " ".join(need.debian for need in needs if need.debian)
    advice = "take another engine (--engine), or build one there"
    if debian:
        advice = f"install it there: sudo apt install {debian}"
        if python.libc != "glibc":
            advice = "install it there by the board's own package manager"
    return RemoteError(
        f"{board}: it lacks {' and '.join(need.module for need in needs)}, and there is no wheel of "
        f"{' and '.join(need.requirement for need in needs)} for its Python {version} on {python.machine} "
        f"({libc or 'unknown libc'}); {advice}"
    )


def _key(need: Need, python: PythonThere) -> str:
    parts = [need.requirement, *python.platforms, repr(python.version), repr(python.free_threaded)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
