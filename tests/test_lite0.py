"""EfficientNet-Lite0 end to end: a real trained net on real photographs, on every engine."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import boardfit
from boardfit.benchmarks.store import read_report
from boardfit.bundle import verify_bundle
from boardfit.cli import main
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor

FACTORY = str(Path(__file__).resolve().parents[1] / "sdk/examples/efficientnet_lite.py") + ":lite0"
ENGINES = ("litert", "onnxruntime", "ncnn")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_demo_photographs_are_recognised(engine, demo_folder, lite0_bundle):
    photos = sorted((demo_folder / "photos").iterdir())
    with boardfit.load(lite0_bundle, engine=engine) as model:
        results = [model(read_image(photo)) for photo in photos]
    hits = sum(
        result.top(1)[0].index == int(photo.stem.rpartition("_")[2])
        for result, photo in zip(results, photos, strict=True)
    )
    # PyTorch itself names 18 of these 20 at 160 pixels.
    assert hits == 18
    assert all(result.size == 160 and result.entropy_bits is None for result in results)


def test_the_bundle_is_whole_and_passes_its_self_test(lite0_bundle, capsys):
    verify_bundle(lite0_bundle)
    assert main(["verify", str(lite0_bundle)]) == 0
    assert "litert" in capsys.readouterr().out


@pytest.mark.parametrize("scenario", ["single-stream", "camera", "offline"])
def test_a_benchmark_of_every_engine(scenario, demo_folder, lite0_bundle, tmp_path):
    command = ["bench", str(lite0_bundle), "--engine", "all", "--scenario", scenario, "--threads", "1"]
    command += ["--runs", "1", "--duration", "0.2", "--images", str(demo_folder / "photos")]
    assert main([*command, "--batch", "4", "--fps", "60", "--out", str(tmp_path / "out")]) in (0, 3)
    report = read_report(tmp_path / "out")
    assert [each.case.engine for each in report.measurements] == sorted(ENGINES)
    for measurement in report.measurements:
        assert measurement.case.engine_version
        inference = measurement.runs[0].stages_s["inference"]
        assert sum(inference) > 0.5 * sum(measurement.runs[0].latencies_s)


@pytest.mark.long
@pytest.mark.parametrize("size", [112, 160, 224])
def test_every_format_answers_like_pytorch_on_photos_score(size, full_bundle, data_folder):
    torch = pytest.importorskip("torch")
    from boardfit.converters.ingest.torch import load_factory

    with (data_folder / "photos_score.csv").open() as file:
        files = [row["file"] for row in csv.DictReader(file)]
    frames = [read_image(data_folder / "photos_score" / name) for name in files]
    with boardfit.load(full_bundle, engine="onnxruntime", size=size) as model:
        preprocessor = Preprocessor(model.manifest.image, "NCHW")
    tensors = np.concatenate([preprocessor.fit(frame, size)[0] for frame in frames])
    factory, _ = load_factory(FACTORY)
    net = factory(size).eval()
    with torch.no_grad():
        expected = np.concatenate([net(torch.from_numpy(part)).numpy() for part in np.split(tensors, 50)])
    for engine in ENGINES:
        with boardfit.load(full_bundle, engine=engine, size=size) as model:
            actual = np.array([model(frame).top(1)[0].index for frame in frames])
        assert int((actual != expected.argmax(axis=1)).sum()) <= 1, engine


@pytest.fixture(scope="module")
def full_bundle(data_folder, tmp_path_factory):
    """All formats, sizes and precisions, from PyTorch, compared on photos_fit."""
    for package in ("torch", "efficientnet_lite_pytorch"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("full") / "lite0.boardfit"
    command = ["build", "--torch", FACTORY]
    command += ["--images", str(data_folder / "photos_fit"), "--image-spec", "efficientnet-lite"]
    command += ["--labels", str(data_folder / "imagenet_labels.txt"), "-o", str(out)]
    assert main(command) == 0
    return out
