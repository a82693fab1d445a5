"""Real streams, from real servers that are killed, stopped and started again."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from boardfit.errors import CameraError
from boardfit.runtime import camera
from boardfit.runtime.camera.devices import LoginRefused
from boardfit.runtime.camera.devices.reach import unreachable

SERVERS = Path(__file__).with_name("servers.py")


class Server:
    """One of servers.py's, as a process."""

    def __init__(self, kind: str, password: str = "", gap_s: float = 0.05) -> None:
        with socket.socket() as link:
            link.bind(("127.0.0.1", 0))
            self.port = link.getsockname()[1]
        self.words = [sys.executable, str(SERVERS), kind, str(self.port), password, str(gap_s)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def mjpeg():
    server = Server("mjpeg")
    yield server
    server.kill()


def test_a_server_that_dies_and_comes_back(mjpeg, until, held):
    events = []
    with camera.open(f"http://127.0.0.1:{mjpeg.port}/x.mjpg", on_event=events.append) as source:
        frame = source.take(5.0)
        assert frame is not None and frame.image.shape == (240, 320, 3)
        before = held()
        for _ in range(3):
            mjpeg.kill()
            until(lambda: source.state == "unplugged")
            mjpeg.start()
            until(lambda: source.state == "live")
        assert held() == before
    assert [event.kind for event in events] == ["live", *["unplugged", "live"] * 3]


def test_a_server_that_stops_and_goes_on(mjpeg, until):
    with camera.open(f"http://127.0.0.1:{mjpeg.port}/x.mjpg") as source:
        mjpeg.process.send_signal(signal.SIGSTOP)
        until(lambda: source.state == "stalled")
        assert source.take(0.05) is None or source.take(0.05) is None
        mjpeg.process.send_signal(signal.SIGCONT)
        until(lambda: source.state == "live")


def test_a_stream_that_is_declared_slow_opens(until, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.devices.opencv.OPEN_TIMEOUT_S", 0.5)
    server = Server("mjpeg", gap_s=1.0)
    try:
        with camera.open(f"http://127.0.0.1:{server.port}/x.mjpg", fps=1.0) as source:
            until(lambda: source.counters["frames"] >= 3)
            assert set(source.counters) == {"frames", "dropped", "stuck", "live"}
    finally:
        server.kill()


LATE = """
import sys, time
class Late:
    def __del__(self, sleep=time.sleep):
        sleep(4.0)  # while the interpreter ends
late = Late()
from boardfit.cli import entry
sys.exit(entry())
"""


def test_the_command_ends_beside_a_stream_that_is_silent(mjpeg, fake_bundle, tmp_path, until):
    out = tmp_path / "out.jsonl"
    words = ["watch", str(fake_bundle), f"http://127.0.0.1:{mjpeg.port}/x.mjpg", "--quiet"]
    child = subprocess.Popen([sys.executable, "-c", LATE, *words, "--jsonl", str(out)])
    try:
        until(lambda: out.exists() and out.read_text().count("\n") > 3, 60.0)
        mjpeg.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert child.wait(20.0) == 0
        assert time.monotonic() - began < 3.5
    finally:
        child.kill()
        mjpeg.process.send_signal(signal.SIGCONT)


def test_a_password(capfd, caplog, until):
    server = Server("mjpeg", "me:geheim")
    try:
        address = f"127.0.0.1:{server.port}/x.mjpg"
        with camera.open(f"http://me:geheim@{address}") as source:
            assert source.name == f"http://***@{address}"
            server.kill()
            until(lambda: source.state == "unplugged")
            server.start()
        with pytest.raises(CameraError, match="does not take the user and password"):
            camera.open(f"http://me:geheim-falsch@{address}")
        with pytest.raises(CameraError, match="wants another user or password"):
            camera.open(f"http://{address}")
    finally:
        server.kill()
    out, err = capfd.readouterr()
    assert "geheim" not in out + err + caplog.text


@pytest.mark.parametrize("qop", ["", ', qop="auth", opaque="x"'], ids=["old", "counted"])
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(("answer", "said"), [("404 Not Found", "no stream"), ("403 Forbidden", "not now")])
def test_a_login_by_digest_is_known(answer, said, scheme, qop):
    """Whether the server refuses the user or has no picture: only the first is tried less and less."""
    challenge = f'realm="a, b", nonce="n"{qop}'

    def expected(target: str, method: str) -> str:
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        known.add_password(None, "http://camera/", "me", "ge heim")
        oracle = urllib.request.AbstractDigestAuthHandler(known)
        oracle.get_cnonce = lambda nonce: "boardfit"
        request = urllib.request.Request("http://camera/", method=method)
        request.selector = target
        fields = urllib.request.parse_keqv_list(urllib.request.parse_http_list(challenge))
        return re.search('response="(.*?)"', oracle.get_authorization(request, fields))[1]

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                link, _ = listener.accept()
                with link:
                    asked = link.recv(1000).decode()
                    method, target, _ = asked.split(" ", 2)
                    known = f'response="{expected(target, method)}"' in asked
                    status = "200 OK" if method == "OPTIONS" else answer if known else "401 No"
                    more = f"WWW-Authenticate: Digest {challenge}\r\nWWW-Authenticate: Basic\r\n"
                    link.sendall(f"X/1.0 {status}\r\n{more}\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}/x?y=1"
        found = unreachable(f"{scheme}://me:ge%20heim@{address}", "cam")
        assert said in str(found) and not isinstance(found, LoginRefused)
        found = unreachable(f"{scheme}://me:falsch@{address}", "cam")
        assert "does not take the user and password" in str(found) and isinstance(found, LoginRefused)
        found = unreachable(f"{scheme}://{address}", "cam")
        assert "wants another user" in str(found) and not isinstance(found, LoginRefused)
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("address", ["me:{}@cam", "cam?token={}"])
def test_an_address_that_is_too_long_for_a_file_shows_no_password(address):
    with pytest.raises(
        CameraError, match=r"\*\*\*.* cannot be opened as a file or folder: File name too long"
    ):
        camera.open(address.format("geheim" * 60))


def test_a_password_with_a_pipe_is_no_pipeline():
    with pytest.raises(CameraError, match=r"rtsp://\*\*\*@127.0.0.1:9/x cannot be opened: nobody listens"):
        camera.open("rtsp://admin:ge ! heim@127.0.0.1:9/x")


def test_a_login_that_is_refused_is_not_tried_twice_a_second(until):
    server = Server("mjpeg", "me:geheim")
    failures = []
    try:
        with camera.open(f"http://me:falsch@127.0.0.1:{server.port}/x", wait=True) as source:
            pause_s = source._watch.pause_s
            source._watch.pause_s = lambda: failures.append(pause_s()) or failures[-1]
            until(lambda: failures and failures[-1] > 0.75, 20.0)
    finally:
        server.kill()


def test_a_server_that_answers_drop_by_drop_does_not_hold_the_camera():
    def serve() -> None:
        link, _ = listener.accept()
        with link, contextlib.suppress(OSError):  # the client went away
            for _ in range(60):
                link.sendall(b"x")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        found = unreachable(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x", "cam")
        assert time.monotonic() - began < 4.0 and "does not answer" in str(found)


@pytest.mark.parametrize(
    "address",
    [
        "admin:12/34@cam.invalid/x",
        "admin:ge/heim@cam.invalid/x",
        "DOM/me:geheim@cam.invalid",
        "me:p@1/x@cam.invalid",
    ],
)
def test_a_slash_in_a_password_is_told_without_showing_it(address, monkeypatch):
    monkeypatch.setattr("socket.create_connection", lambda *_: (_ for _ in ()).throw(socket.gaierror()))
    said = str(unreachable(f"rtsp://{address}", "cam"))
    assert "If its user or password holds a /, write %2F" in said
    assert not any(part in said for part in ("12", "34", "heim", "admin", "DOM", "host"))


@pytest.mark.parametrize("address", ["host/img@2x.jpg", "host/?time=12:00&to=a@b", "me:p@host/img.jpg"])
def test_an_at_in_a_path_is_no_password(address, monkeypatch):
    monkeypatch.setattr("socket.create_connection", lambda *_: (_ for _ in ()).throw(socket.gaierror()))
    assert "there is no host host" in str(unreachable(f"http://{address}", "cam"))


def test_a_server_that_is_no_camera():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    link, _ = listener.accept()
                    with link:
                        link.recv(1000)
                        link.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n")
            except OSError:
                pass  # the listener was closed

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(CameraError, match="has no stream of this path"):
            camera.open(f"http://127.0.0.1:{listener.getsockname()[1]}/x")
        listener.shutdown(socket.SHUT_RDWR)
