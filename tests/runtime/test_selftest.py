from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from boardfit.bundle import open_bundle, write_bundle
from boardfit.errors import BundleError, RecipeError
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files, write_fake_bundle
from boardfit.runtime.preprocess import Preprocessor
from boardfit.runtime.selftest import _compare, _is_near, golden_or_grey, self_test
from boardfit.specs import ImageSpec, PolicySpec


def test_a_sound_bundle_passes_at_every_size(tmp_path):
    write_fake_bundle(tmp_path / "b", sizes=(16, 32))
    records = self_test(tmp_path / "b")
    assert [(r.artifact, r.engine, r.size, r.passed) for r in records] == [
        ("fake-fp32", "fake", 16, True),
        ("fake-fp32", "fake", 32, True),
    ]
    assert all(r.error <= 1e-6 and r.cosine > 0.999999 for r in records)


def bundle_that_expects(path, outputs):
    write_bundle(
        path,
        name="odd",
        labels=(),
        image=ImageSpec(),
        policy=PolicySpec("fixed", (16,)),
        artifacts=(fake_artifact((16,), classes=3),),
        files=fake_files(3),
        golden_frame=None if outputs is None else np.zeros((8, 8, 3), np.uint8),
        golden_outputs=None if outputs is None else {16: outputs},
    )


def test_another_answer_fails(tmp_path):
    bundle_that_expects(tmp_path / "b", [np.array([[1.0, 2.0, 3.0]], np.float32)])
    (record,) = self_test(tmp_path / "b")
    assert not record.passed
    assert record.error > 0.1


def test_another_number_of_outputs_is_a_damaged_bundle(tmp_path):
    bundle_that_expects(tmp_path / "b", [np.zeros((1, 4), np.float32)])
    with pytest.raises(BundleError, match=r"golden outputs have \[4\] numbers, the model's outputs \[3\]"):
        self_test(tmp_path / "b")


def test_without_a_golden_frame_there_is_nothing_to_test(tmp_path):
    bundle_that_expects(tmp_path / "b", None)
    with pytest.raises(BundleError, match="no golden frame"):
        self_test(tmp_path / "b")


def test_a_named_engine_that_runs_none_of_it_is_an_error(tmp_path):
    write_fake_bundle(tmp_path / "b", sizes=(16,))
    with pytest.raises(RecipeError, match="engine 'onnxruntime' runs onnx, but the bundle has fake only"):
        self_test(tmp_path / "b", engine="onnxruntime")


def test_the_comparison_is_relative_to_the_range():
    expected = np.array([[0.0, 50.0, 100.0]], np.float32)
    error, cosine = _compare([expected + np.float32(0.05)], [expected])
    assert error == pytest.approx(5e-4, rel=1e-3)
    assert cosine == pytest.approx(1.0, abs=1e-5)
    assert _compare([np.array([[np.nan, 1.0, 2.0]])], [expected]) == (float("inf"), -1.0)


def test_one_number_with_halved_weights_is_judged_by_its_error():
    assert _is_near(0.003, 0.99999)
    assert not _is_near(0.5, 1.0)
    assert not _is_near(0.003, 0.9)


def quantized_bundle(path, golden):
    """A bundle whose artifact is called int8, answers far from the source, and has its answer recorded."""
    write_fake_bundle(path.with_name("exact"), sizes=(16,))
    artifact = replace(fake_artifact((16,)), precision="int8")
    with open_bundle(path.with_name("exact")) as bundle:
        frame, source = bundle.golden_frame(), bundle.golden_outputs(16)
    own = FakeEngine(artifact, fake_files(), 1).run(
        {"image": Preprocessor(ImageSpec(), artifact.inputs[0].layout).fit(frame, 16)[0]}
    )
    found = golden(own[0])
    text = found if isinstance(found, str) else base64.b64encode(found.astype("<f4").tobytes()).decode()
    write_bundle(
        path,
        name="int8",
        labels=(),
        image=ImageSpec(),
        policy=PolicySpec("fixed", (16,)),
        artifacts=(artifact,),
        files=fake_files(),
        golden_frame=frame,
        golden_outputs={16: [-array for array in source]},
        measurements={"schema": 1, "quantized": {"artifacts": [{"artifact": artifact.name, "golden": text}]}},
    )


@pytest.mark.parametrize(
    ("golden", "passed"),
    [
        (lambda own: own, True),
        (lambda own: own + 0.05 * np.ptp(own) * np.resize([1, -1], own.shape), True),
        (lambda own: own * 0.5, False),
        (lambda own: -own, False),
    ],
    ids=["same", "rounded otherwise", "weaker", "reversed"],
)
def test_what_is_quantized_is_held_against_its_own_answer(golden, passed, tmp_path):
    quantized_bundle(tmp_path / "b", golden)
    (record,) = self_test(tmp_path / "b")
    assert record.passed is passed


def test_a_damaged_record_is_named(tmp_path):
    quantized_bundle(tmp_path / "b", lambda _: "not base64!")
    with pytest.raises(BundleError, match="recorded answer of fake-int8-16 is damaged"):
        self_test(tmp_path / "b")


def test_a_bundle_without_a_golden_frame_is_timed_with_grey(tmp_path, monkeypatch):
    write_fake_bundle(tmp_path / "fake.boardfit")
    with open_bundle(tmp_path / "fake.boardfit") as bundle:
        assert np.array_equal(golden_or_grey(bundle), bundle.golden_frame())
        monkeypatch.setattr(type(bundle), "golden_frame", lambda self: None)
        grey = golden_or_grey(bundle)
    assert (grey.dtype, grey.ndim, set(grey.ravel().tolist())) == (np.uint8, 3, {127})
