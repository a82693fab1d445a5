"""Memory that two processes share, without a name that could be left behind."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence

import numpy as np

from boardfit.errors import EngineError

ALIGNMENT = 64
"""Bytes; what engines' vector instructions like best."""


class SharedBlock:
    """A block of anonymous shared memory: a file descriptor and its mapping.

    A memfd has no entry in /dev/shm: it is gone when the last process that holds it is, however that one
    ended. ``multiprocessing.shared_memory`` leaves a segment behind when its owner is killed.

    Attributes:
        fd: Of the block.
        size: In bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Map a descriptor, which then belongs to the block."""
        self.fd = fd
        self.size = size
        self._map: mmap.mmap | None = mmap.mmap(fd, size)
        self._close_fd = weakref.finalize(self, os.close, fd)

    @classmethod
    def create(cls, size: int) -> SharedBlock:
        """Make a block of zeros; memory is taken when it is written.

        Args:
            size: In bytes, at least 1.

        Raises:
            EngineError: There is no memory, or no descriptor, for it.
        """
        try:
            fd = _anonymous_fd()
            try:
                os.ftruncate(fd, size)
                _seal(fd)
                return cls(fd, size)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise EngineError(f"{size} bytes of shared memory cannot be had: {error}") from error

    def array(self, dtype: str, shape: Sequence[int], offset: int) -> np.ndarray:
        """Return a view of a part.

        Raises:
            ValueError: It reaches beyond the block, or the dtype makes no sense.
        """
        if offset < 0 or any(axis < 0 for axis in shape) or np.dtype(dtype).hasobject:
            raise ValueError(f"no array of {dtype} {tuple(shape)} can be at {offset}")
        try:
            return np.ndarray(tuple(shape), dtype, buffer=self._map, offset=offset)
        except TypeError as error:  # numpy's word for a buffer that is too small
            raise ValueError(f"an array of {dtype} {tuple(shape)} at {offset} exceeds the block") from error

    def close(self) -> None:
        """Give the block up; views that still exist keep the memory until they go. Twice does no harm."""
        self._close_fd()
        # Not closed: numpy's views do not keep a mapping open that is closed under them, and would crash.
        self._map = None


def aligned(size: int) -> int:
    """Return a size in bytes, rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _anonymous_fd() -> int:
    """Return a descriptor of a new, empty, nameless file in memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("boardfit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(fd: int) -> None:
    """Fix the size: who shrinks a file that another process has mapped kills it with SIGBUS."""
    seals = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0)
    if seals and hasattr(os, "memfd_create"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
