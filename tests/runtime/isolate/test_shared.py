from __future__ import annotations

import os

import numpy as np
import pytest

from boardfit.runtime.isolate.shared import SharedBlock, aligned


def test_both_sides_see_the_same_bytes():
    block = SharedBlock.create(4096)
    other = SharedBlock(os.dup(block.fd), 4096)
    block.array("<f4", (2, 3), 64)[...] = np.arange(6).reshape(2, 3)
    assert other.array("<f4", (2, 3), 64).tolist() == [[0, 1, 2], [3, 4, 5]]
    other.close()
    block.close()
    block.close()


@pytest.mark.parametrize(
    ("dtype", "shape", "offset"),
    [("<f4", (1025,), 0), ("<f4", (1,), 4096), ("<f4", (1,), -4), ("<f4", (-1,), 0), ("O", (1,), 0)],
    ids=["too-long", "behind", "before", "negative", "objects"],
)
def test_no_array_reaches_beyond(dtype, shape, offset):
    block = SharedBlock.create(4096)
    with pytest.raises(ValueError, match="array of"):
        block.array(dtype, shape, offset)
    block.close()


def test_its_size_is_fixed():
    block = SharedBlock.create(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(block.fd, 10)
    block.close()


def test_a_view_outlives_the_block(nothing_left):
    block = SharedBlock.create(4096)
    view = block.array("|u1", (4096,), 0)
    view[:] = 7
    block.close()
    assert view.sum() == 7 * 4096


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 64), (64, 64), (65, 128)], ids=str)
def test_aligned(size, expected):
    assert aligned(size) == expected
