from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from boardfit.runtime import camera
from boardfit.runtime.camera.records import WatchSettings
from boardfit.runtime.camera.service import Notifier, stopped_by_signals
from boardfit.runtime.camera.source import Source
from boardfit.runtime.engines.fake import write_fake_bundle


@pytest.fixture
def systemd(tmp_path):
    """A socket as systemd opens it for a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(5.0)
        yield link, str(tmp_path / "notify")


def test_ready_is_told_once(systemd):
    link, path = systemd
    notifier = Notifier({"NOTIFY_SOCKET": path})
    for _ in range(3):
        notifier.ready()
    notifier.stopping()
    assert [link.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_the_watchdog_hears_as_often_as_it_must(systemd):
    link, path = systemd
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000"})
    until = time.monotonic() + 0.55
    while time.monotonic() < until:
        notifier.alive()
        time.sleep(0.01)
    link.setblocking(False)
    heard = 0
    with pytest.raises(BlockingIOError):
        while link.recv(100) == b"WATCHDOG=1":
            heard += 1
    assert 4 <= heard <= 7


def test_an_abstract_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        name = f"boardfit-test-{os.getpid()}"
        link.bind(f"\0{name}")
        link.settimeout(5.0)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert link.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/no/such/socket"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
    ],
    ids=["none", "no-socket", "no-number", "another-process"],
)
def test_without_systemd_nothing_happens(environment):
    notifier = Notifier(environment)
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert notifier.watchdog_s is None


def test_a_loop_tells_that_it_lives_and_one_that_hangs_does_not(systemd, bench, model, monkeypatch):
    link, path = systemd
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    hang = []

    def hanging(frame):
        if hang:
            time.sleep(1.5)
            hang.clear()
        return model(frame)

    with camera.open(bench) as source, camera.loop(source, hanging) as running:
        for _ in running:
            if running.stats.results == 20:
                assert link.recv(100) == b"READY=1" and link.recv(100) == b"WATCHDOG=1"
                link.setblocking(False)
                while True:
                    try:
                        link.recv(100)
                    except BlockingIOError:
                        break
                hang.append(True)
            if running.stats.results > 20 and not hang:
                break
        told = 0
        try:
            while link.recv(100) == b"WATCHDOG=1":
                told += 1
        except BlockingIOError:
            pass
        assert told <= 5, "a model that hangs must not look alive"


def test_a_loop_whose_sinks_finish_lives(systemd, new_bench, model, monkeypatch):
    link, path = systemd
    link.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    settings = WatchSettings(stall_s=None, frozen_s=None)
    with Source(new_bench(0.001, 4), name="film", settings=settings, live=False) as source:
        for count, _ in enumerate(camera.loop(source, model, sinks=[lambda answer: time.sleep(0.3)])):
            if count == 3:
                ended = time.monotonic()
    assert time.monotonic() - ended > 0.8
    told = [link.recv(100)]
    with pytest.raises(BlockingIOError):
        while True:
            told.append(link.recv(100))
    assert told.count(b"WATCHDOG=1") >= 4


def test_only_a_signal_tells_that_the_service_ends(systemd, bench, model, monkeypatch):
    link, path = systemd
    link.settimeout(0.2)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with camera.open(bench) as source:
        camera.loop(source, model).close()  # one that never ran
        with pytest.raises(TimeoutError):
            link.recv(100)
        with camera.loop(source, model) as running, stopped_by_signals(running):
            next(iter(running))
            assert link.recv(100) == b"READY=1"
            running.close()
            with pytest.raises(TimeoutError):
                link.recv(100)
            os.kill(os.getpid(), signal.SIGTERM)
            assert link.recv(100) == b"STOPPING=1"


def test_a_loop_with_a_camera_that_is_lost_is_not_alive(systemd, bench, model, until, monkeypatch):
    link, path = systemd
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    settings = WatchSettings(stuck_s=0.2, open_s=0.3, first_frame_s=0.1)
    with camera.open(bench, settings=settings) as source, camera.loop(source, model) as running:
        threading.Thread(target=lambda: list(running), daemon=True).start()
        until(lambda: running.stats.results > 3)
        assert not source.is_lost
        bench.fault = "stuck"
        until(lambda: source.is_lost)
        time.sleep(0.3)
        link.setblocking(False)
        with pytest.raises(BlockingIOError):
            while link.recv(100):
                pass
        time.sleep(0.5)
        with pytest.raises(BlockingIOError):
            link.recv(100)
        bench.fault = ""
        bench.mended.set()
        until(lambda: not source.is_lost)
        link.settimeout(5.0)
        assert link.recv(100) == b"WATCHDOG=1"


def test_signals_end_a_loop_and_come_back_to_what_they_were(bench, model):
    before = signal.getsignal(signal.SIGTERM)
    with camera.open(bench) as source, camera.loop(source, model) as running, stopped_by_signals(running):
        for _ in running:
            if running.stats.results == 3:
                os.kill(os.getpid(), signal.SIGTERM)
        assert 3 <= running.stats.results < 50
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_command_ends_beside_an_engine_that_hangs(tmp_path):
    write_fake_bundle(tmp_path / "bad.boardfit", fault="hang", after=30)
    out = tmp_path / "out.jsonl"
    words = ["watch", str(tmp_path / "bad.boardfit"), "synthetic:64x48@50", "--jsonl", str(out), "--quiet"]
    child = subprocess.Popen([sys.executable, "-m", "boardfit", *words], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60.0
        while not out.exists() or len(out.read_text().splitlines()) < 15:
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.02)
        time.sleep(1.0)  # the engine hangs by now
        child.send_signal(signal.SIGTERM)
        _, told = child.communicate(timeout=20)
        assert child.returncode == 0 and "in the middle of a frame" in told
        assert all(json.loads(line) for line in out.read_text().splitlines())
    finally:
        child.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_the_command_ends_within_a_second(tmp_path, fake_bundle, number):
    words = ["watch", str(fake_bundle), "synthetic:64x48@50", "--jsonl", str(tmp_path / "out.jsonl")]
    words += ["--record", str(tmp_path / "out.mp4")]
    child = subprocess.Popen([sys.executable, "-m", "boardfit", *words], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60.0
        while not (tmp_path / "out.jsonl").exists() or (tmp_path / "out.jsonl").stat().st_size < 5000:
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.02)
        began = time.monotonic()
        child.send_signal(number)
        assert child.wait(20) == 0
        assert time.monotonic() - began < 10.0  # one second, on a machine that does nothing else
    finally:
        child.kill()
        assert child.stderr is not None
        child.stderr.close()
