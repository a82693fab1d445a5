"""Old files of a sink: out.jsonl becomes out.1.jsonl, that becomes out.2.jsonl, and so on."""

from __future__ import annotations

from pathlib import Path


def rotate(path: Path, keep: int) -> None:
    """Move a file out of the way, and its predecessors one further; the oldest one goes.

    Where the file is not there, nothing moves: one that could not be begun must not push old ones out.

    Args:
        path: Of the file.
        keep: How many old files stay, at least 1.

    Raises:
        OSError: The folder cannot be written.
    """
    if not path.exists():
        return
    for number in range(keep - 1, 0, -1):
        older = numbered(path, number)
        if older.exists():
            older.replace(numbered(path, number + 1))
    path.replace(numbered(path, 1))


def numbered(path: Path, number: int) -> Path:
    """Return the name of an old file: ``out.jsonl`` and 2 give ``out.2.jsonl``."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")
