from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from boardfit.converters.recipe import ParitySection
from boardfit.converters.samples import Samples
from boardfit.converters.targets import Exported
from boardfit.converters.verify import compare, verify
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files
from boardfit.specs import Artifact, TensorSpec


def artifact(precision: str) -> Artifact:
    return Artifact(
        format="onnx",
        precision=precision,
        sizes=(8, 16),
        files=("net.onnx",),
        inputs=(TensorSpec(name="image", shape=(None, 3, None, None), layout="NCHW"),),
        outputs=(TensorSpec(name="logits", shape=(None, 3), activation="logits"),),
    )


def judged(actual, expected, precision="fp32", **changes):
    return compare(
        [np.asarray(actual, np.float32)],
        [np.asarray(expected, np.float32)],
        artifact=replace(artifact(precision), **changes),
        size=8,
        synthetic=0,
        gate=ParitySection(),
    )


CLEAR = np.eye(3) * 10.0


def test_equal_answers_pass_with_cosine_one():
    row = judged(CLEAR, CLEAR)
    assert (row.fault, row.max_abs, row.cosine, row.flips) == ("", 0.0, 1.0, 0)
    assert row.output_range == 10.0


def test_fp32_beyond_a_thousandth_of_the_range_fails():
    assert judged(CLEAR + np.array([0.009, 0, 0]), CLEAR).fault == ""
    assert "differs by 0.011" in judged(CLEAR + np.array([0.011, 0, 0]), CLEAR).fault


def test_a_flip_of_a_clear_answer_fails_and_a_flip_of_a_tie_does_not():
    tie = np.array([[5.0, 4.999, 0.0], [0.0, 0.0, 10.0]])
    flipped = tie.copy()
    flipped[0, :2] = 4.999, 5.0
    row = judged(flipped, tie)
    assert (row.flips, row.wide_flips, row.fault) == (1, 0, "")
    swapped = CLEAR[[1, 0, 2]]
    assert "2 clear answers changed" in judged(swapped, CLEAR).fault


def test_fp16_allows_one_flip_or_half_a_percent():
    many = np.tile(np.array([[1.0, 1.0001, 5.0]]), (400, 1))
    many[:, 2] = 0.0
    actual = many.copy()
    actual[:2, 0] = 1.0002
    assert judged(actual, many, "fp16").fault == ""
    actual[:3, 0] = 1.0002
    assert "3 answers changed: at most 2 may" in judged(actual, many, "fp16").fault


def test_fp16_with_a_low_cosine_fails():
    assert "cosine" in judged(CLEAR + 3.0, CLEAR, "fp16").fault


@pytest.mark.parametrize(("activation", "boundary"), [("sigmoid", 0.5), ("logits", 0.0)])
def test_of_one_output_yes_and_no_are_the_answers(activation, boundary):
    single = TensorSpec(name="score", shape=(None, 1), activation=activation)
    source = boundary + np.array([[0.3], [0.2], [0.00001], [-0.3]])
    actual = boundary + np.array([[-0.3], [-0.2], [-0.00001], [-0.3]])
    row = judged(actual, source, "fp16", outputs=(single,))
    assert (row.flips, row.wide_flips) == (3, 2)
    assert "3 answers changed: at most 1 may" in row.fault


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_fails(bad):
    actual = CLEAR.copy()
    actual[0, 0] = bad
    row = judged(actual, CLEAR)
    assert "NaN or infinity" in row.fault
    assert row.to_dict()["max_abs"] is None


def test_another_shape_fails():
    assert "shapes" in judged(CLEAR[:, :2], CLEAR).fault


@pytest.mark.parametrize(
    ("fault", "told"),
    [("crash", "did not survive it: .*SIGSEGV"), ("error", "refused it: .*fails, as it was told"), ("", "")],
    ids=["crash", "error", "none"],
)
def test_an_engine_that_dies_of_an_artifact_is_a_fault_of_that_size(fault, told):
    """ncnn died of Keras' MobileNetV3, and took the build with it."""
    made = fake_artifact((8, 16))
    tensors = {
        size: np.random.default_rng(size).random((4, size, size, 3), np.float32) for size in made.sizes
    }
    good = FakeEngine(made, fake_files(), 1)
    expected = {size: good.run({"image": tensor}) for size, tensor in tensors.items()}
    rows = verify(
        Exported(made, fake_files(fault=fault, after=4)),
        samples=Samples(tensors=tensors, photographs=4),
        expected=expected,
        gate=ParitySection(),
    )
    assert [row.size for row in rows] == [8, 16]
    assert rows[0].fault == ""
    assert re.search(told, rows[1].fault)
    assert bool(rows[1].fault) == bool(fault)
