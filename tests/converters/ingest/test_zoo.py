"""Tiny nets of other families than plain classifiers: imported exactly, and exact in all formats."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from pathlib import Path

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE
from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import export
from boardfit.converters.verify import run_reference, verify

NETS = Path(__file__).with_name("zoo_nets.py")
TASKS = {
    "shuffle": "classify",
    "vit": "classify",
    "unet": "segment",
    "detector": "detect",
    "reader": "raw",
    "depth": "raw",
    "embed": "embed",
}
FREE = ("shuffle", "unet", "detector", "depth", "embed")
"""Nets that take any size, and must keep doing so."""


@pytest.fixture
def imported(request_for):
    """Import a net of the zoo at some sizes."""

    def make(name, *sizes):
        return ingest(request_for(f"{NETS}:{name}", *sizes, task=TASKS[name]))

    return make


@pytest.mark.parametrize("name", TASKS)
def test_the_import_is_exact(name, imported, difference):
    model = imported(name, 32)
    assert difference(model, 32) <= TOLERANCE
    assert model.task == TASKS[name]


@pytest.mark.parametrize("name", FREE)
def test_what_is_free_of_size_stays_so(name, imported, difference):
    model = imported(name, 32, 48, 64)
    assert model.fixed_size is None
    assert max(difference(model, size) for size in (32, 48, 64)) <= TOLERANCE


SHORT = ("vit", "detector", "unet")
EXPORTED = [pytest.param(name, marks=[] if name in SHORT else [pytest.mark.long]) for name in TASKS]


@pytest.mark.parametrize("format_name", ["tflite", "onnx", "ncnn"])
@pytest.mark.parametrize("name", EXPORTED)
def test_every_format_answers_like_the_source(name, format_name, imported):
    model = imported(name, 32)
    tensor = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    exported = export(model, format_name=format_name, sizes=(32,), precision="fp32")
    rows = verify(
        exported,
        samples=Samples(tensors={32: tensor}, photographs=3),
        expected={32: run_reference(model.reference, tensor)},
        gate=ParitySection(),
        task=model.task,
    )
    assert [row.fault for row in rows] == [""]
    assert [spec.name for spec in model.outputs] == (
        ["boxes", "scores"] if name == "detector" else ["output"]
    )
