from __future__ import annotations

import os

import numpy as np
import pytest

from boardfit.errors import EngineError

pytest.importorskip("ncnn", reason="the ncnn library is not installed")

from boardfit.runtime.engines.ncnn import NcnnEngine, _as_file
from boardfit.runtime.engines.ncnn_stores import check_length
from boardfit.specs import Artifact, TensorSpec


@pytest.fixture
def tiny(tiny_of):
    return tiny_of("ncnn")


@pytest.mark.parametrize("lost", [1, 4, 100])
def test_a_short_bin_is_refused_before_ncnn_reads_it(tiny, lost):
    files = {**tiny.files, "net.bin": tiny.files["net.bin"][:-lost]}
    with pytest.raises(EngineError, match=r"of ncnn-fp32 makes no sense \(it reads \d+ numbers"):
        NcnnEngine(tiny.artifact, files, 1)


def test_a_long_bin_is_refused(tiny):
    files = {**tiny.files, "net.bin": tiny.files["net.bin"] + bytes(4)}
    with pytest.raises(EngineError, match=r"has \d+ bytes, the layers of its \.param read \d+"):
        NcnnEngine(tiny.artifact, files, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("6=216", "6=-216"),
        ("6=216", "6=2147483647"),
        ("6=216", "6=99999999999999999999"),
        ("6=216", "6=1.5"),
        ("6=216", "6=217"),
        ("4 4", "5 4"),
        ("7767517", "7767518"),
        ("1 1 image", "x 1 image"),
        ("1 1 image", "99999999 1 image"),
    ],
)
def test_a_param_that_asks_for_other_numbers_is_refused(tiny, old, new):
    text = tiny.files["net.param"].decode()
    assert old in text
    files = {**tiny.files, "net.param": text.replace(old, new, 1).encode()}
    with pytest.raises(EngineError, match="ncnn-fp32"):
        NcnnEngine(tiny.artifact, files, 1)


def test_what_stands_behind_an_unknown_layer_is_left_to_ncnn():
    param = "7767517\n2 2\nInput a 0 1 a\nLSTM b 1 1 a b 0=4 1=64\n"
    check_length(param, bytes(10), "net")
    with pytest.raises(EngineError, match="read 0"):
        check_length("7767517\n1 1\nInput a 0 1 a\n", bytes(10), "net")


def test_a_param_that_is_no_text_is_refused(tiny):
    files = {**tiny.files, "net.param": b"\xff\xfe\x00"}
    with pytest.raises(EngineError, match=r"\.param of ncnn-fp32 is no text"):
        NcnnEngine(tiny.artifact, files, 1)


@pytest.mark.parametrize("memory", [True, False], ids=["memfd", "temporary-file"])
def test_weights_are_lent_as_a_file_that_leaves_nothing_behind(memory, monkeypatch):
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this platform has no memfd_create")
    with _as_file(b"weights") as path, open(path, "rb") as file:  # noqa: PTH123 - what a C library does
        assert file.read() == b"weights"
    assert memory or not os.path.exists(path)  # noqa: PTH110


def test_planes_that_are_not_aligned_to_16_bytes_are_read_right(tiny):
    batch = np.random.RandomState(0).standard_normal((1, 17, 17, 3)).astype(np.float32)
    engine = NcnnEngine(tiny.artifact, tiny.files, 1)
    assert np.abs(engine.run(tiny.feed(batch))[0] - tiny.reference(batch)).max() <= 1e-4


@pytest.mark.parametrize("offset", [0, 1, 3], ids=lambda n: f"{4 * n} bytes off")
def test_a_first_layer_that_works_in_place_leaves_the_callers_array_alone(offset):
    """Such as the rescaling that Keras' MobileNetV3 begins with: ncnn wrote into it, or crashed."""
    param = "7767517\n2 2\nInput image 0 1 image\nBinaryOp double 1 1 image out 0=2 1=1 2=2.0\n"
    artifact = Artifact(
        format="ncnn",
        precision="fp32",
        sizes=(32,),
        files=("net.param", "net.bin"),
        inputs=(TensorSpec("image", (None, 3, 32, 32), layout="NCHW"),),
        outputs=(TensorSpec("out", (None, 3, 32, 32), layout="NCHW"),),
    )
    engine = NcnnEngine(artifact, {"net.param": param.encode(), "net.bin": b""}, 1)
    memory = np.arange(3 * 32 * 32 + offset, dtype=np.float32)
    image = memory[offset:].reshape(1, 3, 32, 32)
    before = image.copy()
    (doubled,) = engine.run({"image": image})
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(doubled, 2.0 * before)
    engine.close()
