"""What ssh and adb complain of becomes a sentence with something to do."""

from __future__ import annotations

import shutil
import socket

import pytest

from boardfit.boards.remote import connect
from boardfit.errors import RemoteError


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ssh: Could not resolve hostname kitchen: Name or service not known\n", "host name is not known"),
        ("ssh: connect to host kitchen port 22: Connection refused\n", "refused the connection"),
        ("ssh: connect to host kitchen port 22: Connection timed out\n", "did not answer in time"),
        ("ssh: connect to host kitchen port 22: No route to host\n", "no way leads to it"),
        ("pi@kitchen: Permission denied (publickey,password).\n", "ssh-copy-id pi@kitchen"),
        ("Host key verification failed.\n", "connect once by hand with `ssh pi@kitchen`"),
        ("Connection closed by 10.0.0.7 port 22\n", "rebooted"),
        ("kex_exchange_identification: read: Connection reset by peer\n", "reset the connection"),
        ("no such cipher\n", "no such cipher"),
        ("", "the connection ended"),
    ],
)
def test_what_ssh_complains_of(ssh_board, said, expected):
    ssh_board.says(said)
    with pytest.raises(RemoteError, match=f"^ssh://pi@kitchen: .*{expected}"):
        connect(ssh_board.address)


def test_a_complaint_that_comes_after_the_end_is_heard(ssh_board):
    """It comes through another pipe than the news that the connection ended."""
    late = "ssh: connect to host kitchen port 22: Connection refused"
    program = ssh_board.folder / "bin" / "ssh"
    program.write_text(f"#!/bin/sh\n(exec >&-; sleep 0.3; echo '{late}' >&2) &\nexit 255\n")
    with pytest.raises(RemoteError, match="refused the connection"):
        connect(ssh_board.address)


def test_no_password_is_asked_and_the_user_s_forwardings_are_left_out(ssh_board):
    with connect(ssh_board.address) as remote:
        remote.run(["true"])
    first, *others = ssh_board.calls
    for call in (first, *others):
        assert {"BatchMode=yes", "ClearAllForwardings=yes", "ServerAliveInterval=10"} <= set(call)
        assert call[-3:-1] == ["--", "pi@kitchen"]
    assert "ControlMaster=yes" in first
    assert all("ControlMaster=no" in call for call in others)


def test_the_control_folder_is_gone_afterwards(ssh_board, tmp_path):
    with connect(ssh_board.address):
        (path,) = {word for call in ssh_board.calls for word in call if word.startswith("ControlPath=")}
    assert not (tmp_path / path.removeprefix("ControlPath=")).parent.exists()
    ssh_board.says("Host key verification failed.\n")
    with pytest.raises(RemoteError):
        connect(ssh_board.address)
    paths = {word for call in ssh_board.calls for word in call if word.startswith("ControlPath=")}
    assert len(paths) == 2
    assert not any((tmp_path / path.removeprefix("ControlPath=")).parent.exists() for path in paths)


def test_a_port_is_passed_on(ssh_board):
    with connect("ssh://kitchen:2222"):
        pass
    (call,) = ssh_board.calls
    assert call[call.index("-p") + 1] == "2222"
    assert call[-2] == "kitchen"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("error: device 'emulator-5554' not found\n", "`adb devices` lists"),
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n", "unlock its screen"),
        ("error: device offline\n", "it is offline"),
        ("error: insufficient permissions for device: no permissions\n", "udev rules"),
        ("error: cannot connect to daemon\n", "adb start-server"),
    ],
)
def test_what_adb_complains_of(adb_board, said, expected):
    adb_board.says(said)
    with pytest.raises(RemoteError, match=f"^adb://emulator-5554: .*{expected}"):
        connect(adb_board.address)


def test_an_android_that_tells_no_exit_status_is_refused(adb_board):
    (adb_board.folder / "features").write_text("cmd\nstat_v2\n")
    with pytest.raises(RemoteError, match="Android 7 or newer"):
        connect(adb_board.address)


@pytest.mark.parametrize("address", ["ssh://kitchen", "adb://serial"])
def test_a_client_that_is_not_installed(address, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RemoteError, match="was not found on this machine: install"):
        connect(address)


def test_a_board_without_a_place_to_work(ssh_board, monkeypatch):
    ssh_board.program("mkdir", "#!/bin/sh\necho 'Read-only file system' >&2; exit 1\n")
    with pytest.raises(RemoteError, match="no folder where we may write"):
        connect(ssh_board.address)


def test_a_banner_before_the_first_word_does_no_harm(ssh_board):
    profile = ssh_board.home / "bin" / "uname"
    profile.write_text("#!/bin/sh\necho 'Welcome to kitchen' >&2\necho armv7l\n")
    profile.chmod(0o755)
    with connect(ssh_board.address) as remote:
        assert remote.machine == "armv7l"


real_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")


@real_ssh
def test_the_real_client_at_a_closed_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(RemoteError, match="refused the connection"):
        connect(f"ssh://nobody@127.0.0.1:{port}")


@real_ssh
def test_the_real_client_and_a_host_that_does_not_exist():
    with pytest.raises(RemoteError, match="host name is not known"):
        connect("ssh://board.invalid")
