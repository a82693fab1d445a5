"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file, or replace it: a reader finds the whole new one, or what was there before.

    Args:
        path: In a folder that exists. What is no plain file is written to as it is.
        data: Its content, or the pieces of it.

    Raises:
        OSError: It cannot be written; nothing is left beside it.
    """
    pieces = [data] if isinstance(data, bytes) else data
    if path.exists() and not path.is_file():  # such as /dev/stdout, which must not be replaced
        with path.open("wb") as stream:
            stream.writelines(pieces)
        return
    with beside(path) as temporary:
        write_synced(temporary, pieces)
        temporary.replace(path)
    sync_folder(path.parent)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a free path beside a target, and remove what is left there in the end."""
    temporary = target.with_name(f".{target.name}.{os.urandom(6).hex()}.tmp")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_synced(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file that a loss of power does not take."""
    with path.open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
