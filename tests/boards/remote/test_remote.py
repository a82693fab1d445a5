"""What every way to a board promises, by real shells behind stand-ins for ssh and adb."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from boardfit.boards.remote import connect
from boardfit.errors import RemoteError


def test_a_command_tells_status_output_and_complaint(board):
    with connect(board.address) as remote:
        done = remote.run(["sh", "-c", "echo out; echo bad >&2; exit 3"])
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "bad\n")


def test_lines_come_one_by_one(board):
    lines, notes = [], []
    with connect(board.address) as remote:
        remote.run(
            ["sh", "-c", "echo one; echo two; echo oh >&2"], on_line=lines.append, on_note=notes.append
        )
    assert (lines, notes) == (["one", "two"], ["oh"])


@pytest.mark.parametrize("status", [0, 1, 127, 255])
def test_every_status_is_the_command_s_own(board, status):
    with connect(board.address) as remote:
        assert remote.run(["sh", "-c", f"exit {status}"]).status == status


def test_words_arrive_as_they_are(board):
    words = ["a b", "it's", '"$HOME"', "*", "\\n", "", "!x", "ä→", "two\nlines"]
    with connect(board.address) as remote:
        done = remote.run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words])
    assert done.stdout == f"{words}\n"


def test_commands_run_in_the_workspace_with_their_own_temporary_folder(board):
    with connect(board.address) as remote:
        done = remote.run(["sh", "-c", 'pwd; echo "$TMPDIR $COLOUR"'], env={"COLOUR": "dark red"})
        assert done.stdout == f"{remote.workspace()}\n{remote.workspace()}/tmp dark red\n"


def test_a_program_that_is_not_there_is_no_error_of_the_link(board):
    with connect(board.address) as remote:
        assert remote.run(["no-such-program"]).status == 127


def test_a_command_over_its_time_is_stopped_there_with_its_children(board, eventually):
    with connect(board.address) as remote:
        words = ["sh", "-c", "sleep 77 & echo $! >pid; sleep 78"]
        with pytest.raises(RemoteError, match=r"took over 1 s and was stopped"):
            remote.run(words, timeout_s=1)
        pid = int(remote.run(["cat", "pid"]).stdout)
        assert eventually(lambda: not is_alive(pid))
        assert remote.run(["true"]).status == 0


def test_nobody_else_may_enter_the_workspace_and_it_goes(board):
    with connect(board.address) as remote:
        work = Path(remote.workspace())
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
        assert work.parent == board.home / "tmp"
    assert board.leftovers() == []


def test_the_workspace_goes_after_an_error(board):
    with pytest.raises(KeyError), connect(board.address) as remote:
        (Path(remote.workspace()) / "deep" / "er").mkdir(parents=True)
        raise KeyError
    assert board.leftovers() == []


def test_the_machine_and_the_room_are_told(board):
    with connect(board.address) as remote:
        assert remote.machine == os.uname().machine
        assert remote.free_bytes > 0
        assert remote.name == board.address


def test_places_that_cannot_be_used_are_passed_over(board, monkeypatch):
    (board.home / "tmp").rmdir()
    (board.home / "tmp").write_text("not a folder")
    with connect(board.address) as remote:
        assert remote.workspace().parent != board.home / "tmp"


OWNER = """
import sys, time
from boardfit.boards.remote import connect
remote = connect(sys.argv[1], patience_s=2)
print(remote.workspace(), flush=True)
remote.run(["sh", "-c", "echo $$; exec sleep 79"], on_line=lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_the_board_tidies_up_when_the_other_end_is_gone(board, how, eventually):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, board.address],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    work, pid = Path(owner.stdout.readline().strip()), int(owner.stdout.readline())
    assert work.is_dir()
    assert is_alive(pid)
    try:
        owner.send_signal(how)
        assert eventually(lambda: not work.exists())
        assert eventually(lambda: not is_alive(pid))
    finally:
        owner.kill()
        owner.wait()


def test_what_a_reboot_left_goes_with_the_next_connection(board):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = board.home / "tmp" / f"boardfit-work-0123456789abcdef-{dead.pid}"
    (left / "site").mkdir(parents=True)
    with connect(board.address):
        assert not left.exists()


def test_another_connection_s_workspace_stays(board):
    with connect(board.address) as one, connect(board.address) as other:
        assert one.workspace() != other.workspace()
        assert one.run(["true"]).status == other.run(["true"]).status == 0


def test_a_process_of_that_number_that_is_not_ours_keeps_nothing(board):
    left = board.home / "tmp" / f"boardfit-work-0123456789abcdef-{os.getpid()}"
    left.mkdir()
    with connect(board.address):
        assert not left.exists()


def test_a_link_that_leads_elsewhere_is_not_followed(board, tmp_path):
    (tmp_path / "precious").mkdir()
    (board.home / "tmp" / "boardfit-work-0123456789abcdef-999999").symlink_to(tmp_path / "precious")
    with connect(board.address):
        pass
    assert (tmp_path / "precious").is_dir()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "mksh"])
def test_the_shells_of_small_boards_will_do(ssh_board, tmp_path, shell, eventually):
    """mksh is Android's, busybox that of small distributions."""
    if (found := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    words = f"{found} sh" if shell == "busybox" else found
    ssh_board.program(
        "sh",
        f'#!{sys.executable} -S\nimport os, sys\nwords = "{words}".split()\n'
        "os.execv(words[0], [*words, *sys.argv[1:]])\n",
    )
    (tmp_path / "in").write_bytes(os.urandom(300_000))
    with connect(ssh_board.address, patience_s=2) as remote:
        remote.push(tmp_path / "in", "deep/in")
        remote.pull("deep", tmp_path / "back")
        assert remote.run(["sh", "-c", "echo $$ >pid; exit 9"]).status == 9
        with pytest.raises(RemoteError, match="took over 1 s"):
            remote.run([sys.executable, "-S", "-c", "import time; time.sleep(60)"], timeout_s=1)
    assert (tmp_path / "back" / "in").read_bytes() == (tmp_path / "in").read_bytes()
    assert ssh_board.leftovers() == []
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, ssh_board.address], stdout=subprocess.PIPE, text=True
    )
    work, pid = Path(owner.stdout.readline().strip()), int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    assert eventually(lambda: not work.exists() and not is_alive(pid))
