from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boardfit.boards.remote import connect
from boardfit.errors import RemoteError

CONTENT = hashlib.shake_128(b"boardfit").digest(700_000)


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "a file.bin"
    path.write_bytes(CONTENT)
    return path


def test_a_file_goes_there_and_back(board, source, tmp_path):
    with connect(board.address) as remote:
        there = remote.push(source, "deep/er/it's here")
        assert Path(there).read_bytes() == CONTENT
        remote.pull("deep/er/it's here", tmp_path / "new" / "back.bin")
    assert (tmp_path / "new" / "back.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", b"\r\n\0\xff\n"], ids=["empty", "bytes"])
def test_no_byte_is_changed(board, tmp_path, content):
    (tmp_path / "in").write_bytes(content)
    with connect(board.address) as remote:
        assert Path(remote.push(tmp_path / "in", "in")).read_bytes() == content
        remote.pull("in", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content


def test_a_folder_goes_there_and_back(board, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more" / "empty").mkdir(parents=True)
    (folder / "more" / "a.txt").write_text("a")
    (folder / "b").symlink_to(folder / "more" / "a.txt")
    with connect(board.address) as remote:
        remote.push(folder, "in/photos")
        remote.pull("in", tmp_path / "back")
        remote.pull("in", tmp_path / "more" / "back")
    for back in (tmp_path / "back", tmp_path / "more" / "back"):
        found = sorted(str(path.relative_to(back)) for path in back.rglob("*"))
        assert found == ["photos", "photos/b", "photos/more", "photos/more/a.txt", "photos/more/empty"]
        assert (back / "photos" / "b").read_text() == "a"


def test_progress_counts_every_byte(board, source):
    counted = []
    with connect(board.address) as remote:
        remote.push(source, "in", on_bytes=counted.append)
    assert sum(counted) == len(CONTENT)


@pytest.mark.parametrize("path", ["/etc/boardfit", "../above", "a/../../above", ".", ".boardfit/board"])
def test_nothing_is_written_outside_of_the_workspace(board, source, path):
    with connect(board.address) as remote, pytest.raises(RemoteError, match="not below the workspace"):
        remote.push(source, path)


def test_a_file_that_is_not_here_is_not_sent(board, tmp_path):
    with connect(board.address) as remote, pytest.raises(RemoteError, match="cannot be read: No such file"):
        remote.push(tmp_path / "nothing", "in")


def test_what_is_not_there_leaves_the_old_file_here(board, tmp_path):
    (tmp_path / "old").write_text("old")
    with connect(board.address) as remote, pytest.raises(RemoteError, match=r"fetching .*nothing failed"):
        remote.pull("nothing", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def test_a_full_folder_here_is_not_replaced(board, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("old")
    with connect(board.address) as remote:
        remote.run(["mkdir", "out"])
        with pytest.raises(RemoteError, match="cannot be written"):
            remote.pull("out", tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text() == "old"


@pytest.mark.parametrize("times", [1, 3])
def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(ssh_board, source, tmp_path, times):
    counted = []
    with connect(ssh_board.address) as remote:
        ssh_board.befalls("cut", 200_000, times)
        there = remote.push(source, "in", on_bytes=counted.append)
        assert Path(there).read_bytes() == CONTENT
        offsets = [int(call[-1].split()[-2]) for call in ssh_board.calls if " put " in call[-1]]
        assert len(offsets) == times + 1
        assert offsets == sorted(set(offsets))
        ssh_board.befalls("cut", 200_000, times)
        remote.pull("in", tmp_path / "back")
        offsets = [int(call[-1].split()[-1]) for call in ssh_board.calls if " get " in call[-1]]
        assert len(offsets) == times + 1
        assert offsets == sorted(set(offsets))
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_a_transfer_that_breaks_off_again_and_again_leaves_nothing(ssh_board, source, tmp_path):
    with connect(ssh_board.address) as remote:
        ssh_board.befalls("cut", 1000, 100)
        with pytest.raises(RemoteError, match=r"lost during sending a file\.bin .*network was cut"):
            remote.push(source, "in")
        assert not (Path(remote.workspace()) / "in").exists()
        (Path(remote.workspace()) / "out").write_bytes(CONTENT)
        with pytest.raises(RemoteError, match="lost during fetching"):
            remote.pull("out", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file.bin", "carried"]


def test_a_bit_that_falls_over_on_the_way_is_sent_again(ssh_board, source, tmp_path):
    with connect(ssh_board.address) as remote:
        ssh_board.befalls("damage", 300_000, 1)
        assert Path(remote.push(source, "in")).read_bytes() == CONTENT
        ssh_board.befalls("damage", 300_000, 1)
        remote.pull("in", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_a_way_that_always_damages_is_told_and_leaves_nothing(ssh_board, source, tmp_path):
    with connect(ssh_board.address) as remote:
        ssh_board.befalls("damage", 3, 100)
        with pytest.raises(RemoteError, match="arrived with another SHA-256 4 times"):
            remote.push(source, "in")
        assert not (Path(remote.workspace()) / "in").exists()
        (Path(remote.workspace()) / "out").write_bytes(CONTENT)
        ssh_board.befalls("damage", 70_000, 100)
        with pytest.raises(RemoteError, match="arrived with another SHA-256 4 times"):
            remote.pull("out", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file.bin", "carried"]


def test_python_takes_the_hash_where_there_is_no_sha256sum(ssh_board, source):
    # Only what a small board has.
    for name in ("sh", "mkdir", "dirname", "cat", "mv", "rm", "wc", "env"):
        (ssh_board.home / "bin" / name).symlink_to(shutil.which(name))
    ssh_board.program("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    with connect(ssh_board.address) as remote:
        board = Path(remote.workspace()) / ".boardfit" / "board"
        board.write_text(f"PATH={ssh_board.home}/bin\n{board.read_text()}")
        assert remote.run(["sh", "-c", "command -v sha256sum"]).status != 0
        assert Path(remote.push(source, "in")).read_bytes() == CONTENT
        (ssh_board.home / "bin" / "python3").unlink()
        with pytest.raises(RemoteError, match="neither sha256sum nor python3 there"):
            remote.push(source, "again")


def test_a_full_disk_is_told(local_board, source):
    disk = local_board.home / "tmp"
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "t", disk]).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        with connect("local", need_bytes=0) as remote:
            with pytest.raises(RemoteError, match=r"disk is full \(0 MB were free at .*set TMPDIR there"):
                remote.push(source, "in")
            assert not (Path(remote.workspace()) / "in").exists()
        assert local_board.leftovers() == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_place_with_more_room_is_preferred(local_board):
    disk = local_board.home / "tmp"
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "t", disk]).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        with connect("local", need_bytes=1_000_000) as remote:
            assert remote.workspace().parent != disk
    finally:
        subprocess.run(["umount", disk], check=True)
