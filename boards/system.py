"""Reads what a system says of itself: files and tools that may be absent, unreadable or talk nonsense."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

Ask = Callable[[Sequence[str]], str | None]
"""Takes a tool with its words and returns what it printed; None where there is no such tool or it failed."""

LONGEST_ANSWER_S = 5.0
_MOST_BYTES = 1 << 20


def ask_tool(words: Sequence[str]) -> str | None:
    """Run a tool of this system and return what it printed; None where it is not there or fails."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST_ANSWER_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def read_text(path: str | Path) -> str | None:
    """Return a small file's text without the blanks around it; None where it cannot be read.

    One open, one or two reads: sysfs makes a file's text anew at each open.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        pieces = []
        left = _MOST_BYTES
        while left and (piece := os.read(handle, min(left, 1 << 16))):
            pieces.append(piece)
            left -= len(piece)
    except OSError:  # a sensor that is asleep
        return None
    finally:
        os.close(handle)
    return b"".join(pieces).decode("utf-8", "replace").strip()


def read_number(path: str | Path, *, scale: float = 1.0) -> float | None:
    """Return the number in a file, times ``scale``; None where there is none."""
    text = read_text(path)
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value * scale if math.isfinite(value) else None


def read_kilobytes(path: str | Path) -> dict[str, int]:
    """Return bytes by name from a file's lines such as ``VmRSS:  1234 kB``."""
    lines = re.findall(r"^(\w+):\s*(\d{1,15}) kB$", read_text(path) or "", flags=re.MULTILINE)
    return {name: int(value) * 1024 for name, value in lines}


def read_words(path: str | Path) -> tuple[str, ...]:
    """Return the words of a device tree's property, which a zero byte ends."""
    return tuple(word for word in (read_text(path) or "").split("\0") if word)


def paths_in(folder: Path, pattern: str) -> list[Path]:
    """Return what a pattern finds in a folder, in the order of the numbers in the names."""
    try:
        return sorted(folder.glob(pattern), key=_natural)
    except OSError:
        return []


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    words = "".join(letter if letter.isdecimal() else f" {letter} " for letter in str(path)).split()
    return tuple((int(word), "") if word.isdecimal() else (-1, word) for word in words)
