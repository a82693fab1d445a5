"""A model file from a stranger is read once in a child process before it is read here.

A small file can ask for any amount of memory and time, and the libraries that parse it can crash. The child
has limits that the kernel enforces; it answers one question, whether reading the file is affordable, and
hands nothing over: what passes is then read here, which costs the child's start and one reading more
(docs/decisions/0018-hostile-sources.md).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boardfit.converters.model import SourceRequest
from boardfit.errors import RecipeError, UnsupportedModel

TRUST = "BOARDFIT_TRUST_SOURCE"
"""Set to 1 by who made the model: it is then read here at once."""

FITS, OTHER_FAULT, TOO_LARGE, UNDECIDED = 0, 3, 4, 5
"""Exit status of the child. With another fault the file is read here too, for its message; one that is
undecided is imported whole in a second child."""

_MIB = 1 << 20
_FREE_MIB = 2048
_GROWTH = 10
_SECONDS = 300

_checked: set[tuple[object, ...]] = set()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may take.

    Attributes:
        memory_bytes: Over what the libraries take that read the file.
        seconds: Of wall-clock time, the libraries' import included.
    """

    memory_bytes: int
    seconds: int


def limits_for(path: Path) -> Limits:
    """Return 2 GiB, or ten times a source where that is more, and 300 s; or what the environment says.

    Args:
        path: A file, or a folder of files.

    Raises:
        RecipeError: BOARDFIT_IMPORT_MB or BOARDFIT_IMPORT_SECONDS is no positive whole number.
    """
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    size_bytes = sum(item.stat().st_size for item in files)
    memory = _setting("BOARDFIT_IMPORT_MB", max(_FREE_MIB, _GROWTH * size_bytes // _MIB))
    return Limits(memory * _MIB, _setting("BOARDFIT_IMPORT_SECONDS", _SECONDS))


def require_affordable(request: SourceRequest, kind: str) -> None:
    """Read a model file in a child process first; the same file and sizes once in a process.

    Args:
        request: ``source`` is the path of a file.
        kind: ``keras``, ``onnx`` or ``tflite``. A SavedModel is converted in a child anyway, and PyTorch's
            code is not looked at.

    Raises:
        UnsupportedModel: Reading it takes more memory or time than it may, or crashes a library.
    """
    if kind not in ("keras", "onnx", "tflite") or os.environ.get(TRUST) == "1":
        return
    path = Path(request.source)
    found = path.stat()
    key = (path.resolve(), found.st_mtime_ns, found.st_size, request.sizes, request.assume_same_padding)
    if key in _checked:
        return
    limits = limits_for(path)
    order = {"kind": kind, "request": asdict(request), "memory_bytes": limits.memory_bytes, "whole": False}
    status = _run_child(order, limits)
    if status == UNDECIDED:
        status = _run_child({**order, "whole": True}, limits)
    fault = _fault_of(status, limits)
    if fault:
        raise UnsupportedModel(
            f"reading {path} ({found.st_size / _MIB:.1f} MiB) {fault}: it was tried in a process of its own. "
            "Get the file from its author again; where you made it yourself, raise BOARDFIT_IMPORT_MB "
            f"({limits.memory_bytes // _MIB}) or BOARDFIT_IMPORT_SECONDS ({limits.seconds})"
        )
    _checked.add(key)


def _run_child(order: Mapping[str, Any], limits: Limits) -> int | None:
    """Return the child's exit status, negative for a signal; None where it ran out of time."""
    command = [sys.executable, "-m", "boardfit.converters.ingest.guarded"]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    show = None if os.environ.get("BOARDFIT_DEBUG", "") not in ("", "0") else subprocess.DEVNULL
    try:
        done = subprocess.run(
            command,
            input=json.dumps(order).encode(),
            stdout=subprocess.DEVNULL,
            stderr=show,
            timeout=limits.seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def _fault_of(status: int | None, limits: Limits) -> str:
    """Return what the child's end says against the file; empty where nothing does."""
    if status is None:
        return f"takes more than {limits.seconds} s"
    if status in (FITS, OTHER_FAULT):
        return ""
    if status == TOO_LARGE:
        return f"takes more than {limits.memory_bytes // _MIB} MiB"
    how = signal.Signals(-status).name if -status in set(signal.Signals) else f"exit status {status}"
    # A library that gets no memory may well abort rather than say so.
    return f"crashes ({how}): it is damaged, or takes more than {limits.memory_bytes // _MIB} MiB"


def _setting(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise RecipeError(f"{name} is {text!r}: expected a whole number, at least 1")
    return int(text)
