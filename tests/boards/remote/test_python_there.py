from __future__ import annotations

import sys

import pytest

from boardfit.boards.remote import connect
from boardfit.boards.remote.python_there import PythonThere, find_python
from boardfit.errors import RemoteError


def python(**changes) -> PythonThere:
    known = {
        "path": "/usr/bin/python3",
        "version": (3, 11),
        "machine": "aarch64",
        "libc": "glibc",
        "libc_version": (2, 31),
        "free_threaded": False,
        "search_path": "",
        "modules": frozenset(),
    }
    return PythonThere(**{**known, **changes})


def test_a_board_s_python_tells_what_it_is(board, monkeypatch):
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", sys.executable)
    with connect(board.address) as remote:
        found = find_python(remote, ["json", "no_such_module", "numpy"])
    assert found.path == sys.executable
    assert found.version == sys.version_info[:2]
    assert found.modules == {"json", "numpy"}


def test_python3_is_taken_before_a_newer_one(ssh_board):
    good = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    ssh_board.program("python3", good)
    ssh_board.program("python3.15", good)
    with connect(ssh_board.address) as remote:
        assert find_python(remote, []).path == str(ssh_board.home / "bin" / "python3")


def test_where_python3_is_too_old_the_newest_beside_it_is_taken(ssh_board):
    good = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    ssh_board.program("python3", "#!/bin/sh\necho 3.8\n")
    ssh_board.program("python3.15", good)
    with connect(ssh_board.address) as remote:
        assert find_python(remote, []).path == str(ssh_board.home / "bin" / "python3.15")


@pytest.mark.parametrize("version", ["3.9", "2.7"])
def test_a_python_that_is_too_old_is_refused(ssh_board, monkeypatch, version):
    ssh_board.program("old", f"#!/bin/sh\necho {version}\n")
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", "old")
    with connect(ssh_board.address) as remote, pytest.raises(RemoteError, match=rf"{version} .*needs 3\.10"):
        find_python(remote, [])


def test_a_board_without_python_says_so(ssh_board, monkeypatch):
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", "/no/such/python")
    with connect(ssh_board.address) as remote:
        with pytest.raises(RemoteError, match="no Python at '/no/such/python'"):
            find_python(remote, [])
        monkeypatch.delenv("BOARDFIT_BOARD_PYTHON")
        for name in ("python3", *(f"python3.{minor}" for minor in range(10, 16))):
            ssh_board.program(name, "#!/bin/sh\nexit 1\n")
        with pytest.raises(RemoteError, match=r"no Python there: boardfit needs Python 3\.10 or newer"):
            find_python(remote, [])


def test_a_python_that_does_not_work_says_why(ssh_board, monkeypatch):
    program = "#!/bin/sh\ncase $2 in *json*) echo 'no module json' >&2; exit 1 ;; *) echo 3.11 ;; esac\n"
    ssh_board.program("ill", program)
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", "ill")
    with (
        connect(ssh_board.address) as remote,
        pytest.raises(RemoteError, match=r"ill does not work: no module"),
    ):
        find_python(remote, [])


def test_a_32_bit_userland_on_a_64_bit_kernel_takes_armv7l_wheels(ssh_board, monkeypatch):
    said = (
        '{"version": [3, 11], "machine": "aarch64", "bits": 32, "libc": "glibc", "libc_version": "2.36", '
        '"free_threaded": false, "search_path": "", "modules": []}'
    )
    ssh_board.program(
        "pi",
        f"""#!/bin/sh
case $2 in *json*) echo '{said}' ;; *) echo 3.11 ;; esac
""",
    )
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", "pi")
    with connect(ssh_board.address) as remote:
        assert find_python(remote, []).machine == "armv7l"


@pytest.mark.parametrize(
    ("there", "first", "last"),
    [
        (python(), "manylinux_2_31_aarch64", "linux_aarch64"),
        (python(libc_version=(2, 36), machine="armv7l"), "manylinux_2_36_armv7l", "linux_armv7l"),
        (python(libc_version=(2, 39), machine="x86_64"), "manylinux_2_39_x86_64", "linux_x86_64"),
        (python(libc="musl", libc_version=(0, 0)), "musllinux_1_2_aarch64", "musllinux_1_1_aarch64"),
    ],
    ids=["glibc", "armv7l", "x86_64", "musl"],
)
def test_the_wheel_platforms_follow_the_libc(there, first, last):
    assert (there.platforms[0], there.platforms[-1]) == (first, last)


def test_an_older_libc_takes_no_newer_wheel():
    assert not any("2_34" in each for each in python().platforms)
    assert "manylinux_2_28_aarch64" in python().platforms
    assert "manylinux2014_aarch64" in python().platforms


@pytest.mark.parametrize("libc", ["bionic", ""])
def test_android_s_libc_has_no_wheels_of_ours(libc):
    assert python(libc=libc).platforms == ()
