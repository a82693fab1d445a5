from __future__ import annotations

import os

import numpy as np
import pytest

from boardfit.runtime.isolate.shared import SharedBlock, SharedFeeds, aligned


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


def test_room_is_lent_once_and_comes_back_with_the_array():
    feeds = SharedFeeds(4 * 30, 100)
    first, second = feeds.lend((1, 10)), feeds.lend((2, 15))
    assert feeds.lend((1, 1)) is None
    places = {feeds.place_of(first), feeds.place_of(second)}
    assert places == {128, 256}
    assert feeds.outputs_at == 384
    first[:], second[:] = 1.0, 2.0
    assert feeds.block.array("f4", (1, 10), feeds.place_of(first)).tolist() == [[1.0] * 10]
    del first
    again = feeds.lend((3, 10))
    assert {feeds.place_of(again), feeds.place_of(second)} == places
    feeds.close()


def test_only_what_lies_in_lent_room_has_a_place():
    feeds, others = SharedFeeds(4 * 30, 100), SharedFeeds(4 * 30, 100)
    lent = feeds.lend((5, 6))
    assert feeds.place_of(np.zeros((5, 6), np.float32)) is None
    assert others.place_of(lent) is None
    assert feeds.place_of(lent.T) is None
    behind = feeds.block.array("f4", (4,), feeds.outputs_at)
    assert feeds.place_of(behind) is None
    feeds.close()
    others.close()


def test_what_is_too_large_or_closed_is_not_lent(nothing_left):
    feeds = SharedFeeds(4 * 30, 100)
    assert feeds.lend((1, 33)) is None
    lent = feeds.lend((1, 30))
    feeds.close()
    lent[:] = 3.0
    assert lent.sum() == 90.0
    assert feeds.lend((1, 30)) is None
