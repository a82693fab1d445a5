from __future__ import annotations

import pytest

from boardfit.converters.targets import ncnn
from boardfit.errors import ExportError, ToolMissing

PARAM = """7767517
2 2
Input in0 0 1 in0
ReLU relu_in0 1 1 in0 out0 0=0.1
"""


def test_blobs_are_renamed_and_layer_names_are_not():
    renamed = ncnn.rename_blobs(PARAM, {"in0": "image", "out0": "logits"})
    assert renamed.splitlines()[2:] == ["Input in0 0 1 image", "ReLU relu_in0 1 1 image logits 0=0.1"]


def test_a_dropped_output_is_refused():
    with pytest.raises(ExportError, match="dropped out1"):
        ncnn.rename_blobs(PARAM, {"in0": "image", "out1": "logits"})


def test_a_text_that_is_no_param_file_is_refused():
    with pytest.raises(ExportError, match="7767517"):
        ncnn.rename_blobs("nonsense", {})


def test_a_line_that_pnnx_ignored_is_an_error():
    with pytest.raises(ExportError, match="ignore Pad"):
        ncnn._raise_if_dropped("pass_level2\nignore Pad pad_0 param mode=reflect\n")


def test_pnnx_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(ncnn, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match="pip install --no-deps pnnx"):
        ncnn._pnnx()


def test_a_layer_that_ncnn_has_not_is_named():
    text = "7767517\n2 2\nInput in0 0 1 in0\nF.softsign act 1 1 in0 out0\n"
    with pytest.raises(ExportError, match=r"no layer for F\.softsign"):
        ncnn.rename_blobs(text, {"in0": "image", "out0": "scores"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('Reshape r 1 1 a b 12=0 13=0 6="1,1,//(1280,0n),0n"', 'Reshape r 1 1 a b 6="1,1,//(1280,1)"'),
        ('Reshape r 1 1 a b 12=0 13=0 6="*(0w,0h),//(0c,0n),0n"', 'Reshape r 1 1 a b 6="*(0w,0h),//(0c,1)"'),
        ('Reshape r 1 1 a b 12=1 13=0 6="1,//(8,0n),0n"', 'Reshape r 1 1 a b 12=1 13=0 6="1,//(8,0n),0n"'),
        ('Reshape r 1 1 a b 12=0 13=0 6="0w,*(0h,0n)"', 'Reshape r 1 1 a b 12=0 13=0 6="0w,*(0h,0n)"'),
        ("Reshape r 1 1 a b 0=5 1=7", "Reshape r 1 1 a b 0=5 1=7"),
    ],
)
def test_a_reshape_does_not_speak_of_the_batch(line, expected):
    assert (
        ncnn.without_batch(f"7767517\n{line}\nReLU x 1 1 b c\n") == f"7767517\n{expected}\nReLU x 1 1 b c\n"
    )
