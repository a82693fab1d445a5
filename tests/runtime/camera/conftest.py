from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import CameraError
from boardfit.runtime.camera.devices import StreamEnded
from boardfit.runtime.camera.records import Frame
from boardfit.runtime.camera.sinks import Answer
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.session import load


def picture(index: int, size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A noisy picture that differs from that of every other index."""
    width, height = size_wh
    return np.random.RandomState(index).randint(0, 256, (height, width, 3)).astype(np.uint8)


class Bench:
    """A camera on the test bench: a fault is switched on and off while threads read it.

    Attributes:
        fault: Empty, ``unplugged``, ``stalled``, ``frozen``, ``garbage``, ``wrong-size``, ``stuck``.
        opened: How often a device was opened; ``closed`` how often one was closed.
    """

    def __init__(self, interval_s: float = 0.01, frames: int | None = None) -> None:
        self.fault = ""
        self.opened = self.closed = 0
        self.interval_s = interval_s
        self.frames = frames
        self.count = 0
        self.mended = threading.Event()

    def __call__(self) -> BenchDevice:
        if self.fault == "unplugged":
            raise CameraError("no such camera")
        self.opened += 1
        return BenchDevice(self)


class BenchDevice:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def read(self) -> object:
        bench = self.bench
        if bench.fault == "stuck":
            bench.mended.wait(20.0)  # no timeout helps against a driver that hangs
        deadline = time.monotonic() + 0.3
        while bench.fault == "stalled":
            time.sleep(0.005)
            if time.monotonic() > deadline:
                raise CameraError("no frame")
        if bench.fault == "unplugged":
            raise CameraError("gone")
        if bench.frames is not None and bench.count >= bench.frames:
            raise StreamEnded
        time.sleep(bench.interval_s)
        if bench.fault != "frozen":
            bench.count += 1
        if bench.fault == "garbage":
            return None
        return picture(bench.count, (32, 32) if bench.fault == "wrong-size" else (64, 48))

    def close(self) -> None:
        self.bench.closed += 1


@pytest.fixture
def fake_bundle(tmp_path) -> Path:
    write_fake_bundle(tmp_path / "fake.boardfit")
    return tmp_path / "fake.boardfit"


@pytest.fixture
def model(fake_bundle):
    with load(fake_bundle) as session:
        yield session


@pytest.fixture
def answer(model):
    """Makes the answer to a picture that came at some second."""

    def make(index: int = 0, time_s: float | None = None, size_wh: tuple[int, int] = (64, 48)) -> Answer:
        image = np.full((size_wh[1], size_wh[0], 3), (37 * index) % 256, np.uint8)
        frame = Frame(image, time.monotonic() if time_s is None else time_s, index, "cam")
        return Answer(frame, model(image), age_s=0.01)

    return make


@pytest.fixture
def new_bench():
    """The class of the camera on the test bench."""
    return Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def held():
    """A function that counts what this process holds, but for models that are open: threads, open files."""

    def count() -> tuple[int, int]:
        threads = [thread for thread in threading.enumerate() if thread.name != "engine"]
        return len(threads), len(list(Path("/proc/self/fd").iterdir()))

    return count


@pytest.fixture
def until():
    """A function that waits until a condition holds."""

    def wait(condition, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.005)

    return wait
