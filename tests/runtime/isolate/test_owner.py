"""What an isolated engine's process does to its owner, and what becomes of it when the owner goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from boardfit.errors import EngineError, EngineLost
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import load

FRAME = np.random.RandomState(1).randint(0, 256, (40, 50, 3)).astype(np.uint8)

OWNER = """
import sys, threading, time
import numpy as np
print("main module runs", flush=True)
import boardfit
model = boardfit.load(sys.argv[1], isolate=True)
frame = np.zeros((20, 30, 3), np.uint8)
model(frame)
threading.Thread(target=model, args=(frame,), daemon=True).start()   # it hangs
time.sleep(0.3)
print(model.isolation.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=str)
def test_an_engine_in_an_endless_loop_dies_with_its_owner(tmp_path, watch, end):
    write_fake_bundle(tmp_path / "b", fault="hang", after=1)
    (tmp_path / "owner.py").write_text(OWNER)
    command = [sys.executable, str(tmp_path / "owner.py"), str(tmp_path / "b")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout.readline() == "main module runs\n"
        pid = int(owner.stdout.readline())  # and not a second time, by the engine's process
        assert watch.is_alive(pid)
        owner.send_signal(end)
        owner.wait(10)
    assert watch.wait_until(lambda: not watch.is_alive(pid))


def test_an_owner_that_forgets_to_close_ends_in_time(tmp_path):
    write_fake_bundle(tmp_path / "b")
    code = (
        "import sys, boardfit, numpy as np; model = boardfit.load(sys.argv[1], isolate=True); "
        "print(model(np.zeros((9, 9, 3), np.uint8)).size, model.isolation.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "b")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout.split()[1]), 0)


ENGINE = """
import os, socket
from boardfit.runtime.engines.fake import FakeEngine

def sockets():
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                yield socket.socket(fileno=os.dup(int(entry)))
        except OSError:
            pass

class Engine(FakeEngine):
    formats = ("fake",)
    def run(self, feeds):
        return super().run(feeds)

class CrashesOnLoad(Engine):
    def __init__(self, *given):
        os.abort()

class HangsOnLoad(Engine):
    def __init__(self, *given):
        while True: pass

class Exits(Engine):
    def run(self, feeds):
        os._exit(3)

class Raises(Engine):
    def run(self, feeds):
        raise KeyError("nobody's business")

class Babbles(Engine):
    def run(self, feeds):
        for channel in sockets():
            channel.send(b"\\x80\\x04nonsense")
        return super().run(feeds)

class Lies(Engine):
    def run(self, feeds):
        for channel in sockets():
            channel.send(b'{"seq": 2, "outputs": [["<f4", [1000000000], 0]]}')
        return super().run(feeds)

class AnswersMuch(Engine):
    def run(self, feeds):
        import numpy as np
        batch = next(iter(feeds.values())).shape[0]
        return [np.arange(batch * 3_000_000, dtype=np.float32).reshape(batch, -1)]
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """Lends a function that loads a bundle on an engine of another package."""
    (tmp_path / "stranger.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_fake_bundle(tmp_path / "b", sizes=(32,))
    sessions = []

    def open_on(name: str, **limits):
        folder = tmp_path / "stranger-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[boardfit.engines]\nstranger = stranger:{name}\n")
        options = Isolation(**limits) if limits else True
        sessions.append(load(tmp_path / "b", engine="stranger", isolate=options))
        return sessions[-1]

    yield open_on
    sys.modules.pop("stranger", None)
    for session in sessions:
        session.close()


def test_an_engine_of_another_package_is_found(stranger, tmp_path):
    model = stranger("Engine")
    with load(tmp_path / "b", engine="fake") as fake:
        assert np.array_equal(model(FRAME).scores, fake(FRAME).scores)


@pytest.mark.parametrize(
    ("name", "message"),
    [("CrashesOnLoad", "was ended by SIGABRT"), ("HangsOnLoad", "no answer within 1 s")],
)
def test_a_file_that_kills_its_engine_is_refused_by_load(stranger, name, message, nothing_left):
    with pytest.raises(EngineLost, match=message):
        stranger(name, load_deadline_s=1.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Exits", "ended with status 3"),
        ("Babbles", "answered nonsense"),
        ("Lies", "answered nonsense .*exceeds the block"),
    ],
)
def test_whatever_the_process_does_is_an_error_of_the_engine(stranger, name, message):
    model = stranger(name)
    for _ in range(2):
        with pytest.raises(EngineLost, match=message):
            model(FRAME)
    assert model.isolation.crashed == 2


def test_what_an_engine_raises_is_told(stranger):
    with pytest.raises(EngineError, match='KeyError: "nobody\'s business"'):
        stranger("Raises")(FRAME)


def test_large_answers_and_batches_pass(stranger):
    model = stranger("AnswersMuch")
    for frames in ([FRAME], [FRAME] * 3, [FRAME]):
        answers = model(frames)
        expected = np.arange(len(frames) * 3_000_000, dtype=np.float32).reshape(len(frames), -1)
        assert all(np.array_equal(one.outputs[0][0], row) for one, row in zip(answers, expected, strict=True))
