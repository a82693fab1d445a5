from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from boardfit.bundle import write_bundle
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec, classic_policy

SIZES = (32, 48, 64)
CARRIER = Path(__file__).resolve().parents[2] / "boards" / "remote" / "carrier.py"


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle for the fake engine, with measurements."""
    artifact = fake_artifact(SIZES)
    files = fake_files()
    frame = np.random.RandomState(0).randint(0, 256, (96, 128, 3)).astype(np.uint8)
    engine = FakeEngine(artifact, files, threads=1)
    fit = Preprocessor(ImageSpec(), "NHWC").fit
    parity = {
        "artifact": artifact.name,
        "images": 40,
        "synthetic": 8,
        "max_abs": 2e-3,
        "mean_abs": 1e-4,
        "cosine": 0.99987,
        "flips": 1,
        "wide_flips": 0,
        "output_range": 20.0,
        "fault": "",
    }
    times = {"artifact": artifact.name, "engine": "fake", "threads": 1}
    path = tmp_path / "made" / "tiny.boardfit"
    path.parent.mkdir()
    write_bundle(
        path,
        name="tiny net",
        labels=[f"class {i}" for i in range(10)],
        image=ImageSpec(),
        policy=classic_policy("entropy", SIZES),
        artifacts=[artifact],
        files=files,
        golden_frame=frame,
        golden_outputs={size: engine.run({"image": fit(frame, size)[0]}) for size in SIZES},
        tools={"boardfit": "0.1.0", "keras": "3.15.1"},
        measurements={
            "schema": 1,
            "machine": "Testbench 3000 (x86_64, 2 cores)",
            "parity": [{**parity, "size": size} for size in SIZES],
            "times": [{**times, "size": size, "p50_s": size / 1e4} for size in SIZES],
        },
    )
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of three pictures: flat, plain and noisy, which get three different sizes."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 2, 3))
    noise = np.random.RandomState(1).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "flat.png"), np.full((48, 64, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "ramp.png"), ramp)
    cv2.imwrite(str(folder / "more" / "noise.png"), noise)
    return folder


@pytest.fixture
def film(tmp_path) -> Path:
    """A video of twelve frames at five frames a second."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write Motion JPEG")
    for index in range(12):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


@pytest.fixture
def kitchen(tmp_path, monkeypatch) -> Path:
    """A board behind a stand-in for ssh, with this Python."""
    folder = tmp_path / "carried"
    for inner in ("bin", "board/tmp", "board/bin"):
        (folder / inner).mkdir(parents=True)
    ssh = folder / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {sys.executable} -S {CARRIER} "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("CARRIER", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", sys.executable)
    return folder
