"""Every target, found through its entry point, on one small net: a new one gets these for free."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest

from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import export, find_target
from boardfit.converters.verify import run_reference, verify
from boardfit.errors import RecipeError
from boardfit.specs import PRECISIONS

FORMATS = sorted(point.name for point in entry_points(group="boardfit.targets"))
SIZES = (28, 40, 56)  # 28 / 4 = 7 is odd where 56 / 4 = 14 is even: strided "same" pads differ


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.default_rng(0)
    tensors = {size: rng.normal(size=(33, size, size, 3)).astype(np.float32) for size in SIZES}
    return Samples(tensors=tensors, photographs=33)


@pytest.fixture(scope="module")
def expected(tiny_model, samples):
    return {size: run_reference(tiny_model.reference, samples.tensors[size]) for size in SIZES}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_one_file_answers_like_the_source_at_every_size(
    format_name, precision, tiny_model, samples, expected
):
    exported = export(tiny_model, format_name=format_name, sizes=SIZES, precision=precision)
    rows = verify(exported, samples=samples, expected=expected, gate=ParitySection())
    assert [row.fault for row in rows] == [""] * 3
    assert [row.size for row in rows] == list(SIZES)
    if precision == "fp32":
        assert max(row.max_abs / row.output_range for row in rows) < 1e-5


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_file_for_one_size_answers_like_the_source(format_name, tiny_model, samples, expected):
    exported = export(tiny_model, format_name=format_name, sizes=(28,), precision="fp32")
    assert exported.artifact.sizes == (28,)
    assert 28 in exported.artifact.inputs[0].shape
    rows = verify(exported, samples=samples, expected=expected, gate=ParitySection())
    assert [row.fault for row in rows] == [""]


@pytest.mark.parametrize("format_name", FORMATS)
def test_half_weights_make_a_smaller_file(format_name, tiny_model):
    full, half = (
        sum(
            map(
                len,
                export(tiny_model, format_name=format_name, sizes=SIZES, precision=precision).files.values(),
            )
        )
        for precision in ("fp32", "fp16")
    )
    assert half < full


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_artifact_describes_its_files(format_name, tiny_model):
    exported = export(tiny_model, format_name=format_name, sizes=SIZES, precision="fp32")
    artifact = exported.artifact
    assert artifact.format == format_name
    assert set(artifact.files) == set(exported.files)
    assert artifact.inputs[0].layout in ("NHWC", "NCHW")
    assert artifact.outputs[0].activation == "logits"
    assert artifact.outputs[0].shape == (None, 7)


def test_an_unknown_format_is_named():
    with pytest.raises(RecipeError, match="installed are"):
        find_target("coreml")
