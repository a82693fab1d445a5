"""Real clients and servers: OpenSSH on a link that is cut, arm64 by chroot, a virtual board, real adb."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_ins.roots import RASPBERRY_PI_4B, lacking, make_root, write_cpuinfo
from stand_ins.virtual_board import VirtualBoard, on_path

from boardfit.benchmarks.records import Report
from boardfit.benchmarks.store import read_report
from boardfit.benchmarks.tuning import read_tuning
from boardfit.boards.remote import connect
from boardfit.cli import main
from boardfit.errors import RemoteError
from boardfit.runtime.engines.fake import write_fake_bundle

pytestmark = pytest.mark.long

needs_sshd = pytest.mark.skipif(
    not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()), reason="OpenSSH's server is not installed"
)


@pytest.fixture
def sshd(cuts):
    with cuts["Stand"]() as stand:
        yield stand.server


@needs_sshd
def test_a_real_link_that_is_cut_leaves_nothing(cuts):
    assert cuts["main"](["--cuts", "3", "--seed", str(time.time_ns())]) == 0


@needs_sshd
def test_a_key_that_the_server_does_not_know(sshd):
    (sshd.folder / "authorized").write_text("")
    with pytest.raises(RemoteError, match=r"refused every key: `ssh-copy-id board`"):
        connect("ssh://board")


@needs_sshd
def test_a_server_with_another_key_than_it_had(sshd):
    (sshd.folder / "known").write_text("board " + (sshd.folder / "key.pub").read_text())
    with pytest.raises(RemoteError, match="host key is not known here, or not the one that was"):
        connect("ssh://board")


@needs_sshd
def test_a_server_that_allows_one_session_a_connection_is_served_too(cuts, tmp_path, monkeypatch):
    server = cuts["Sshd"](tmp_path, extra="MaxSessions 1")
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    try:
        with connect("ssh://board") as remote:
            assert remote.run(["echo", "here"]).stdout == "here\n"
        assert cuts["leftovers"](server) == []
    finally:
        server.close()


@pytest.fixture(scope="session")
def arm64_root(tmp_path_factory) -> Path:
    if reason := lacking("programs"):
        pytest.skip(reason)
    return make_root(tmp_path_factory.mktemp("arm64") / "root")


@pytest.fixture
def pi(arm64_root, cuts):
    """An OpenSSH server whose logins are in an arm64 root that shows a Raspberry Pi 4's processor."""
    with cuts["Stand"](arm64_root) as stand:
        shown = write_cpuinfo(stand.folder / "cpuinfo", board=RASPBERRY_PI_4B)
        target = next(Path("/run").glob("boardfit-board-*")) / "proc/cpuinfo"
        subprocess.run(["mount", "--bind", str(shown), str(target)], check=True)
        yield stand.server


@needs_sshd
def test_an_arm64_board_by_chroot(pi, cuts, tmp_path):
    with connect("ssh://board") as remote:
        assert remote.machine == "aarch64"
        assert "Raspberry Pi 4 Model B" in remote.run(["cat", "/proc/cpuinfo"]).stdout
        (tmp_path / "in").write_bytes(os.urandom(3_000_000))
        remote.push(tmp_path / "in", "in")
        remote.pull("in", tmp_path / "out")
    assert (tmp_path / "in").read_bytes() == (tmp_path / "out").read_bytes()
    assert cuts["leftovers"](pi) == []


@needs_sshd
def test_boardfit_runs_on_an_arm64_board_that_has_none_of_it(pi, cuts, tmp_path, capfd):
    from boardfit.cli.remote import run_remotely

    bundle = tmp_path / "fake.boardfit"
    write_fake_bundle(bundle)
    words = ["verify", str(bundle), "--engine", "fake"]
    assert run_remotely("ssh://board", words, bundle=bundle) == 0
    said = capfd.readouterr()
    assert "sending numpy" in said.err
    assert "aarch64.whl" in said.err
    assert cuts["leftovers"](pi) == []


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """A net of a few layers for all three engines, through the command line."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("tiny")
    image = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    keras.Model(image, keras.layers.Dense(5, activation="softmax")(pooled)).save(folder / "tiny.keras")
    (folder / "photos").mkdir()
    for seed in range(8):
        picture = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{seed}.png"), picture)
    words = ["build", str(folder / "tiny.keras"), "--sizes", "64", "--precisions", "fp32", "--no-fit"]
    assert main([*words, "--images", str(folder / "photos"), "-o", str(folder / "tiny.boardfit")]) == 0
    return folder / "tiny.boardfit"


ENGINES = {"litert", "onnxruntime", "ncnn"}


def bench_elsewhere(bundle: Path, out: Path) -> Report:
    words = ["bench", str(bundle), "--board", "ssh://board", "--engine", ",".join(sorted(ENGINES))]
    words += ["--precision", "fp32", "--threads", "1", "--quick", "--runs", "1", "--out", str(out)]
    assert main(words) in (0, 3)
    report = read_report(out)
    assert {each.case.engine for each in report.measurements} == ENGINES
    assert report.environment.command == ("boardfit", *words)
    assert report.environment.emulated
    assert "emulated" in (out / "report.html").read_text()
    return report


@needs_sshd
def test_the_whole_bench_on_an_arm64_board_by_chroot(pi, cuts, tiny_bundle, tmp_path):
    report = bench_elsewhere(tiny_bundle, tmp_path / "report")
    assert report.environment.board == "raspberry-pi-4b"
    assert cuts["leftovers"](pi) == []


def test_the_whole_bench_on_a_virtual_board(booted, tiny_bundle, tmp_path):
    bench_elsewhere(tiny_bundle, tmp_path / "report")
    assert left_on(booted) == ""


@needs_sshd
def test_a_board_is_tuned_from_here(pi, cuts, tiny_bundle, tmp_path):
    out = tmp_path / "tuning.json"
    words = ["tune", str(tiny_bundle), "--board", "ssh://board", "--runs", "8", "--threads", "1"]
    assert main([*words, "--out", str(out)]) == 0
    assert {trial.setup.engine for trial in read_tuning(out).trials} == ENGINES
    assert cuts["leftovers"](pi) == []


@pytest.fixture(scope="session")
def virtual(tmp_path_factory):
    if reason := lacking("programs", "board"):
        pytest.skip(reason)
    return VirtualBoard(tmp_path_factory.mktemp("virtual"))


@pytest.fixture
def booted(virtual):
    """A virtual board that has just been switched on; its disk is as new."""
    with on_path(virtual.bin):
        virtual.start()
        yield virtual
        virtual.stop()


def left_on(board) -> str:
    return board.shell("ls -d /var/tmp/boardfit-* /root/boardfit-* /tmp/boardfit-* 2>/dev/null || true")


def test_a_virtual_board_over_a_slow_network(booted, tmp_path):
    booted.shell("tc qdisc add dev eth0 root netem delay 60ms loss 1%")
    (tmp_path / "in").write_bytes(os.urandom(1_000_000))
    with connect("ssh://board") as remote:
        assert remote.machine == "aarch64"
        remote.push(tmp_path / "in", "in")
        remote.pull("in", tmp_path / "out")
    assert (tmp_path / "in").read_bytes() == (tmp_path / "out").read_bytes()
    assert left_on(booted) == ""


def test_a_board_that_reboots_in_the_middle(virtual, tmp_path):
    with on_path(virtual.bin):
        virtual.start(keep=True)
        try:
            threading.Timer(3.0, virtual.stop).start()
            with (
                pytest.raises(RemoteError, match=r"lost during `sleep 60`: it .*rebooted"),
                connect("ssh://board", patience_s=10) as remote,
            ):
                remote.run(["sh", "-c", "echo half >half; sync"])
                remote.run(["sleep", "60"])
            virtual.start(keep=True)
            assert left_on(virtual) != ""  # the plug was pulled: nobody could tidy up
            with connect("ssh://board") as remote:
                assert left_on(virtual).split() == [str(remote.workspace())]
            assert left_on(virtual) == ""
        finally:
            virtual.stop()


def test_a_board_whose_disk_is_full(booted, tmp_path):
    free = "df -Pk /var/tmp | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4"
    booted.shell(f"fallocate -l $((($({free}) - 2000) * 1024)) /var/tmp/full")
    (tmp_path / "in").write_bytes(os.urandom(9_000_000))
    with (
        connect("ssh://board", need_bytes=10**12) as remote,
        pytest.raises(RemoteError, match="disk is full"),
    ):
        remote.push(tmp_path / "in", "in")
    assert left_on(booted) == ""


@pytest.fixture
def android(tmp_path, monkeypatch):
    """A stand-in for Android behind the real adb: its serial number, its folder, its process."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed")
    folder = tmp_path / "android"
    folder.mkdir()
    daemon = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("adb_daemon.py")), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    serial = f"127.0.0.1:{daemon.stdout.readline().strip()}"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        subprocess.run(["adb", "connect", serial], check=True, capture_output=True)
        yield serial, folder, daemon
    finally:
        subprocess.run(["adb", "kill-server"], capture_output=True)
        daemon.kill()
        daemon.wait()


def test_the_real_adb_pushes_runs_and_pulls(android, tmp_path):
    serial, folder, _ = android
    (tmp_path / "in").write_bytes(os.urandom(3_000_000))
    with connect(f"adb://{serial}") as remote:
        remote.push(tmp_path / "in", "in")
        done = remote.run(["sh", "-c", "cat in in >out; echo 'it''s' done; exit 7"])
        assert (done.status, done.stdout) == (7, "its done\n")
        remote.pull("out", tmp_path / "out")
        assert remote.workspace().parent == folder
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes() * 2
    assert list(folder.iterdir()) == []


def test_the_real_adb_and_a_serial_that_it_does_not_see(android):
    with pytest.raises(RemoteError, match="adb does not see it: `adb devices` lists"):
        connect("adb://emulator-5999")


def test_the_real_adb_and_a_device_that_is_unplugged(android, eventually):
    serial, folder, daemon = android
    threading.Timer(1.5, daemon.kill).start()
    with pytest.raises(RemoteError, match="lost during"), connect(f"adb://{serial}", patience_s=5) as remote:
        remote.run(["sleep", "40"])
    assert eventually(lambda: list(folder.iterdir()) == [])
