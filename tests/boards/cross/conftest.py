from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_ins import answers, kit


@pytest.fixture(scope="session")
def frames(tmp_path_factory) -> Path:
    """Frames of 0.6 to 7.9 bits, as PNG and JPEG: smoothed noise on grey."""
    folder = tmp_path_factory.mktemp("frames")
    chance = np.random.default_rng(11)
    for number, spread in enumerate((0, 3, 40, 255)):
        noise = chance.integers(128 - spread // 2, 129 + spread // 2, (90, 120, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.{'jpg' if number % 2 else 'png'}"), noise)
    return folder


@pytest.fixture(scope="session")
def photographs() -> Path:
    return kit.photographs()


@pytest.fixture(scope="session")
def answered_here(tmp_path_factory) -> Callable[..., dict[str, np.ndarray]]:
    """A function that writes down this machine's answers, as ``answers.py`` does on a board."""
    folder = tmp_path_factory.mktemp("here")

    def run(bundle: Path, frames: Path, *options: str) -> dict[str, np.ndarray]:
        words = [sys.executable, answers.__file__, str(bundle), str(frames), str(folder / "here.npz")]
        subprocess.run([*words, *options], check=True)
        with np.load(folder / "here.npz") as loaded:
            return dict(loaded)

    return run


@pytest.fixture
def board_folder(tmp_path) -> Callable[[Path, Path], Path]:
    """A function that lays out what a board gets: a bundle, frames, the script, a folder to write to."""

    def fill(bundle: Path, frames: Path) -> Path:
        work = tmp_path / "work"
        work.mkdir()
        shutil.copyfile(bundle, work / "bundle.boardfit")
        shutil.copytree(frames, work / "frames")
        (work / "frames").chmod(0o755)  # who reads and writes there may be nobody
        shutil.copyfile(answers.__file__, work / "answers.py")
        (work / "out").mkdir()
        (work / "out").chmod(0o777)
        return work

    return fill


@pytest.fixture(scope="session")
def script_words() -> Callable[[Sequence[str]], list[str]]:
    """A function that returns the words which run ``answers.py`` where that folder is ``/srv/work``."""
    names = ("answers.py", "bundle.boardfit", "frames", "out/there.npz")
    return lambda options: ["python3", *(f"/srv/work/{name}" for name in names), *options]
