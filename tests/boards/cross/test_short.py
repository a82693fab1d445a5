"""The short proof, for CI: a tiny bundle answers on an emulated Cortex-A72 what it answers here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_ins import answers as script
from stand_ins import kit
from stand_ins.roots import lacking, run_in, write_cpuinfo
from stand_ins.same import differences

pytestmark = pytest.mark.long

# float32 sums in another order; of a tiny net this is some units of the last place.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A function that runs a program on a Cortex-A72: an arm64 root with the engines, and our own package."""
    if reason := lacking("programs"):
        pytest.skip(reason)
    try:
        root = kit.root("arm64")
        engines = kit.as_here("numpy", "opencv-python-headless", *kit.ENGINE_PACKAGES.values())
        libraries = kit.libraries("arm64", engines, name="engines")
    except RuntimeError as error:
        pytest.skip(f"nothing to run for Arm: {error}")
    work = tmp_path_factory.mktemp("board")
    own = kit.own_package(tmp_path_factory.mktemp("own"))
    cpuinfo = write_cpuinfo(work / "cortex-a72")
    mounts = {"/srv/own": own, "/srv/engines": libraries, "/srv/work": work}

    def run(*words: str) -> str:
        env = {"PYTHONPATH": "/srv/own:/srv/engines"}
        done = run_in(root, words, cpuinfo=cpuinfo, mounts=mounts, env=env, timeout_s=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run.work = work
    return run


@pytest.fixture
def work(board, three_engines) -> Path:
    """The folder that both see: a bundle, frames, the script."""
    (board.work / "tiny.boardfit").write_bytes(three_engines.read_bytes())
    (board.work / "answers.py").write_bytes(Path(script.__file__).read_bytes())
    frames = board.work / "frames"
    frames.mkdir(exist_ok=True)
    chance = np.random.default_rng(11)
    for number in range(4):
        # Smoothed noise has histograms from narrow to wide; JPEG asks the decoder too.
        noise = cv2.GaussianBlur(chance.integers(0, 256, (90, 120, 3), np.uint8), (0, 0), 0.6 + number)
        cv2.imwrite(str(frames / f"{number}.{'jpg' if number % 2 else 'png'}"), noise)
    return board.work


def test_it_is_the_processor_that_was_asked_for(board):
    said = board("python3", "-c", "import platform; print(platform.machine(), open('/proc/cpuinfo').read())")
    assert said.startswith("aarch64")
    assert "0xd08" in said


def test_the_golden_input_passes_on_every_engine(board, work):
    said = board("python3", "-m", "boardfit", "verify", "/srv/work/tiny.boardfit")
    for engine in kit.ENGINE_PACKAGES:
        assert engine in said


@pytest.mark.parametrize("engine", kit.ENGINE_PACKAGES)
def test_the_answers_are_those_of_this_machine(board, work, engine):
    options = ["--engine", engine, "--look", "16:4", "--look", "31:2"]
    names = ("tiny.boardfit", "frames")
    words = [sys.executable, script.__file__, *(str(work / name) for name in names), str(work / "here.npz")]
    subprocess.run([*words, *options], check=True)
    there = [f"/srv/work/{name}" for name in (*names, "there.npz")]
    board("python3", "/srv/work/answers.py", *there, *options)
    with np.load(work / "here.npz") as here, np.load(work / "there.npz") as there:
        assert differences(dict(here), dict(there), tolerance=TOLERANCE) == []
