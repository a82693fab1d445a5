"""The examples of embedding, each run as a user runs it; what is not installed is skipped with the reason."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

import boardfit
from boardfit.runtime.engines.fake import write_fake_bundle

EXAMPLES = Path(__file__).resolve().parents[3] / "sdk" / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("embed_*.py"))
ANSWER = re.compile(r"^\d+ .*class \d \d\.\d\d$")
SOURCE = "synthetic:320x240@30"
DEBIAN = Path("/usr/lib/python3/dist-packages")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "fake.boardfit"
    write_fake_bundle(path, labels=10)
    return path


def start(script: str, *words: object, code: str = "", **env: str) -> subprocess.Popen[str]:
    """Start an example, or code that takes its path first."""
    program = ["-c", code, str(EXAMPLES / script)] if code else [str(EXAMPLES / script)]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), **env},
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def run(script: str, *words: object, code: str = "", **env: str) -> tuple[int, str, str]:
    """Run it to its end; exit status, stdout, stderr."""
    process = start(script, *words, code=code, **env)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture
def gi(tmp_path) -> dict[str, str]:
    """Debian's python3-gi alone, put on the path of the Python that runs the tests."""
    if not (DEBIAN / "gi").is_dir():
        pytest.skip("there is no python3-gi here: apt install python3-gi gir1.2-gstreamer-1.0")
    folder = tmp_path / "debian"
    folder.mkdir()
    (folder / "gi").symlink_to(DEBIAN / "gi")
    check = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); "
    check += "assert all(map(Gst.ElementFactory.find, ('appsink', 'videotestsrc', 'videoconvert')))"
    done = subprocess.run(
        [sys.executable, "-c", check], env={**environment(), "PYTHONPATH": str(folder)}, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"python3-gi or GStreamer's base plugins are not usable: {done.stderr.decode()[-200:]}")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def qt(tmp_path) -> dict[str, str]:
    pytest.importorskip("PySide6", reason="pip install PySide6-Essentials")
    done = subprocess.run([sys.executable, "-c", "import PySide6.QtWidgets"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"PySide6 lacks a library: {done.stderr.strip().splitlines()[-1]}")
    return {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": str(tmp_path)}


NEEDS = {"embed_fastapi.py": "fastapi", "embed_pyside6.py": "qt", "embed_gstreamer.py": "gi"}


@pytest.fixture(params=[name for name in SCRIPTS if name != "embed_ros2.py"])
def script(request) -> tuple[str, dict[str, str]]:
    """Each example that can run, with the environment that it needs."""
    needed = NEEDS.get(request.param)
    if needed == "fastapi":
        pytest.importorskip("fastapi")
        pytest.importorskip("uvicorn")
    return request.param, request.getfixturevalue(needed) if needed in ("qt", "gi") else {}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_is_short(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60


def test_there_is_one_of_each_kind():
    kinds = {name.removeprefix("embed_").removesuffix(".py") for name in SCRIPTS}
    assert kinds == {"loop", "asyncio", "fastapi", "pyside6", "gstreamer", "ros2"}


def test_an_example_helps(script):
    name, env = script
    status, out, _ = run(name, "--help", **env)
    assert status == 0
    assert "BUNDLE" in out
    assert "SOURCE" in out


def test_a_missing_bundle_is_told_in_one_line(script, tmp_path):
    name, env = script
    status, out, err = run(name, tmp_path / "absent.boardfit", **env)
    assert status == 1
    assert out == ""
    assert [line for line in err.splitlines() if "absent.boardfit does not exist" in line] == [err.strip()]


def test_the_plain_loop_answers_frame_after_frame(bundle):
    status, out, err = run("embed_loop.py", bundle, SOURCE, "--frames", 12)
    lines = out.splitlines()
    assert status == 0, err
    assert all(ANSWER.match(line) for line in lines[:12])
    numbers = [int(line.split()[0]) for line in lines[:12]]
    assert numbers == sorted(set(numbers))
    assert re.fullmatch(r"12 answers, \d+ frames dropped", lines[12])
    assert len(lines) == 13


def test_the_plain_loop_ends_with_the_film(bundle, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), 80 * number, np.uint8))
    status, out, _ = run("embed_loop.py", bundle, folder)
    assert status == 0
    assert out.splitlines()[-1].startswith("3 answers")


def test_asyncio_goes_round_beside_the_answers(bundle):
    status, out, err = run("embed_asyncio.py", bundle, SOURCE, "--frames", 30)
    assert status == 0, err
    lines = out.splitlines()
    assert all(ANSWER.match(line) for line in lines[:30])
    answers, rounds = map(int, re.findall(r"\d+", lines[30]))
    assert answers == 30
    assert rounds > answers  # an event loop that waited for frames would come round no more often


@pytest.mark.parametrize("name", ["embed_loop.py", "embed_asyncio.py"])
def test_ctrl_c_ends_it_at_once_and_in_silence(name, bundle):
    with start(name, bundle, SOURCE) as process:
        assert ANSWER.match(process.stdout.readline().strip())
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert time.monotonic() - asked < 3.0
    assert process.returncode == 0
    assert err == ""


def test_asyncio_is_cancelled_by_sigterm(bundle):
    with start("embed_asyncio.py", bundle, SOURCE) as process:
        process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""


@pytest.fixture(scope="module")
def served(bundle):
    """The address of the FastAPI example, which runs under uvicorn."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with start("embed_fastapi.py", bundle, SOURCE, "--port", 0) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            raise AssertionError("".join(said))
        yield found[1]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err


def ask(address: str, data: bytes | None = None) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(address, data, timeout=20) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_fastapi_answers_as_the_model_does(served, bundle):
    frame = np.random.RandomState(3).randint(0, 256, (60, 80, 3)).astype(np.uint8)
    with boardfit.load(bundle) as model:
        expected = model(frame)
    png = cv2.imencode(".png", frame)[1].tobytes()
    status, found = ask(f"{served}/answer", png)
    assert status == 200
    assert [label for label, _ in found["top"]] == [best.label for best in expected.top(5)]
    assert [score for _, score in found["top"]] == pytest.approx([best.score for best in expected.top(5)])
    assert found["size"] == expected.size
    until = time.monotonic() + 10.0
    while not (newest := ask(f"{served}/newest")[1]) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(newest["top"]) == 5


def test_fastapi_says_that_the_camera_ended(bundle):
    """What was seen last must not stand for what is seen now."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    make_app = runpy.run_path(str(EXAMPLES / "embed_fastapi.py"))["make_app"]
    with boardfit.load(bundle) as model:
        app = make_app(model, iter(()))
        newest = next(route.endpoint for route in app.routes if route.path == "/newest")
        until = time.monotonic() + 10.0
        while "error" not in newest() and time.monotonic() < until:
            time.sleep(0.01)
        assert newest() == {"error": "the camera's loop has ended"}


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 422, "is not an image"),
        (b"GIF89a", 422, "is not an image"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10", 422, "damaged or cut short"),
        (bytes(20_000_001), 413, "at most 20 MB"),
    ],
    ids=["empty", "another format", "cut short", "too long"],
)
def test_fastapi_refuses_what_is_no_image(served, data, status, reason):
    code, found = ask(f"{served}/answer", data)
    assert code == status
    assert reason in found["detail"]


WINDOW = """
import runpy, sys, time
import boardfit
from boardfit.runtime import camera
names = runpy.run_path(sys.argv[1])
app = names["QApplication"]([])
with boardfit.load(sys.argv[2]) as model, camera.open("synthetic:320x240@30") as source:
    window = names["Window"](camera.loop(source, model))
    window.resize(480, 420)
    window.show()
    shown, until = None, time.monotonic() + 10.0
    while not (shown and window.statusBar().currentMessage()) and time.monotonic() < until:
        shown = window.newest or shown
        app.processEvents()
        time.sleep(0.005)
    print(window.statusBar().currentMessage())
    window.grab().save(sys.argv[3])
    names["QTimer"].singleShot(300, window.close)
    app.exec()
    window.running.close()
    print(window.running.stats.results)
    before = sys.getrefcount(None)
    for _ in range(200):
        window.newest = shown
        window.draw()
    print(before - sys.getrefcount(None))
"""


def test_a_window_shows_the_camera_and_its_answer(bundle, tmp_path, qt):
    picture = tmp_path / "window.png"
    status, out, err = run("embed_pyside6.py", bundle, picture, code=WINDOW, **qt)
    assert status == 0, err
    message, results, lost = out.splitlines()
    assert re.match(r"class \d 0\.\d\d   class \d", message)
    assert int(results) > 1
    assert int(lost) < 100, "this PySide6 loses references to None, and would abort the process after minutes"
    shown = cv2.imread(str(picture))
    assert shown.shape == (420, 480, 3)
    assert shown[20:320].std() > 20.0  # the camera's picture, not a grey label


def test_gstreamer_answers_what_comes_through_its_appsink(bundle, gi):
    pipeline = "videotestsrc num-buffers=40 is-live=true ! video/x-raw,width=322,height=240,framerate=30/1"
    status, out, err = run("embed_gstreamer.py", bundle, pipeline, **gi)
    assert status == 0, err
    lines = out.splitlines()
    assert len(lines) > 3
    assert all(ANSWER.match(line) for line in lines)


APPSINK = """
import runpy, sys
names = runpy.run_path(sys.argv[1])
names["Gst"].init(None)
sink = names["AppSink"]("videotestsrc num-buffers=2 pattern=red ! video/x-raw,width=322,height=240")
image = sink.read()
print(image.shape, image.dtype, image.reshape(-1, 3).min(0).tolist(), image.reshape(-1, 3).max(0).tolist())
sink.close()
"""


def test_an_appsink_reads_rows_that_are_padded(gi):
    status, out, err = run("embed_gstreamer.py", code=APPSINK, **gi)
    assert status == 0, err
    assert out.strip() == "(240, 322, 3) uint8 [0, 0, 255] [0, 0, 255]"


def test_a_pipeline_that_is_malformed_is_told_in_one_line(bundle, gi):
    status, _, err = run("embed_gstreamer.py", bundle, "nosuchsource", **gi)
    assert status == 1
    assert 'no element "nosuchsource"' in err.splitlines()[-1]
    assert "Traceback" not in err


class Node:
    """Stands for rclpy's node: keeps what is subscribed, published and logged."""

    def __init__(self, name: str) -> None:
        self.name, self.published, self.logged = name, [], []

    def create_publisher(self, kind, topic, depth):
        return types.SimpleNamespace(publish=self.published.append)

    def create_subscription(self, kind, topic, callback, qos):
        self.topic, self.qos = topic, qos

    def get_logger(self):
        return types.SimpleNamespace(error=self.logged.append)


@pytest.fixture
def ros(monkeypatch) -> dict:
    """The names of the ROS 2 example, made over stand-ins of rclpy and the messages."""
    record = types.SimpleNamespace
    stand_ins = {
        "rclpy": {},
        "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {})},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"QoSProfile": record, "ReliabilityPolicy": record(BEST_EFFORT="best effort")},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": record},
        "vision_msgs": {},
        "vision_msgs.msg": {"Classification": record, "ObjectHypothesis": record},
    }
    for name, attributes in stand_ins.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(EXAMPLES / "embed_ros2.py"))


def image_message(frame: np.ndarray, encoding: str, padding: int = 0) -> types.SimpleNamespace:
    height, width = frame.shape[:2]
    rows = np.pad(frame.reshape(height, -1), ((0, 0), (0, padding)), constant_values=99)
    return types.SimpleNamespace(
        header="the header",
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        data=rows.tobytes(),
    )


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8"])
def test_a_message_of_ros_becomes_a_frame(ros, encoding, padding):
    frame = np.random.RandomState(1).randint(0, 256, (6, 7, 3)).astype(np.uint8)
    if encoding == "mono8":
        frame[:] = frame[..., :1]
    sent = {"bgr8": frame, "rgb8": frame[..., ::-1], "mono8": frame[..., 0]}[encoding]
    assert np.array_equal(ros["as_bgr"](image_message(sent, encoding, padding)), frame)


def test_the_node_publishes_the_models_answer_and_logs_what_it_cannot_read(ros, bundle):
    frame = np.random.RandomState(2).randint(0, 256, (60, 80, 3)).astype(np.uint8)
    with boardfit.load(bundle) as model:
        node = ros["Classifier"](model, "/camera")
        node.answer(image_message(frame, "bgr8"))
        node.answer(image_message(frame, "yuv422"))
        expected = model(frame).top(5)
    assert (node.topic, node.qos.depth, node.qos.reliability) == ("/camera", 1, "best effort")
    (message,) = node.published
    assert message.header == "the header"
    assert [(each.class_id, each.score) for each in message.results] == [(b.label, b.score) for b in expected]
    assert node.logged == ["no answer to an image in yuv422: KeyError('yuv422')"]


def test_the_node_that_was_not_run_says_so():
    assert "NOT RUN" in (EXAMPLES / "embed_ros2.py").read_text(encoding="utf-8").splitlines()[0]
