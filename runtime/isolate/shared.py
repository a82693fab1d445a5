"""Memory that two processes share, without a name that could be left behind."""

from __future__ import annotations

import fcntl
import math
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
        if self._map is None:
            raise ValueError("the block is closed")
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


class SharedFeeds:
    """A shared block with room for a few runs' inputs, which it lends, and behind them for one run's outputs.

    A tensor that is made in lent room need not be copied for the other process. While one run's lies there,
    the next frame's can be made.

    Attributes:
        block: The block itself.
        slot_bytes: Room for the inputs of one run.
        outputs_at: Where the outputs begin.
    """

    def __init__(self, slot_bytes: int, outputs_bytes: int) -> None:
        """Make the block; raises as ``SharedBlock.create``.

        Args:
            slot_bytes: For the inputs of one run, at least.
            outputs_bytes: For the outputs of one run, at least.
        """
        self.slot_bytes = aligned(slot_bytes)
        self.outputs_at = _SLOTS * self.slot_bytes
        size = max(_SMALLEST_BYTES, self.outputs_at + outputs_bytes)
        self.block = SharedBlock.create(1 << (size - 1).bit_length())
        self._first = self.block.array("u1", (1,), 0).__array_interface__["data"][0]
        # The first slot is for tensors that were made elsewhere.
        self._free = [slot * self.slot_bytes for slot in range(1, _SLOTS)]

    def lend(self, shape: Sequence[int]) -> np.ndarray | None:
        """Return a float32 array whose room is free again when the array is gone; None where all is lent.

        May be called from several threads.

        Args:
            shape: Of the array.
        """
        if 4 * math.prod(shape) > self.slot_bytes:
            return None
        try:
            place = self._free.pop()
        except IndexError:
            return None
        try:
            lent = self.block.array("f4", shape, place)
        except ValueError:  # closed meanwhile
            return None
        weakref.finalize(lent, self._free.append, place).atexit = False
        return lent

    def place_of(self, array: np.ndarray) -> int | None:
        """Return where an array begins that lies in lent room; None where it lies elsewhere."""
        place: int = array.__array_interface__["data"][0] - self._first
        inside = place >= 0 and place + array.nbytes <= self.outputs_at
        return place if inside and array.flags.c_contiguous else None

    def close(self) -> None:
        """Give the block up; lent arrays keep the memory until they go. Twice does no harm."""
        self.block.close()


_SLOTS = 3
_SMALLEST_BYTES = 1 << 20


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
