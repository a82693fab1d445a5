from __future__ import annotations

import logging

import pytest

from boardfit.errors import EngineMissing, RecipeError
from boardfit.runtime import choose
from boardfit.runtime.choose import choose_engine
from boardfit.specs import Artifact, TensorSpec

SIZES = (112, 160, 224)


def artifact(format: str, precision: str = "fp32", sizes: tuple[int, ...] = SIZES) -> Artifact:
    return Artifact(
        format=format,
        precision=precision,
        sizes=sizes,
        files=(f"{format}-{precision}-{sizes[0]}",),
        inputs=(TensorSpec("image", (None, None, None, 3), layout="NHWC"),),
        outputs=(TensorSpec("scores", (None, 10), activation="logits"),),
    )


ALL = [artifact(format, precision) for format in ("ncnn", "onnx", "tflite") for precision in ("fp16", "fp32")]


@pytest.fixture
def installed(monkeypatch):
    """Say which engines' libraries are installed."""

    def say(*names: str) -> None:
        monkeypatch.setattr(
            choose, "is_installed", lambda made: any(choose.find_engine(name) is made for name in names)
        )

    return say


@pytest.mark.parametrize(
    ("have", "name"),
    [
        (("litert", "onnxruntime", "ncnn", "fake"), "litert"),
        (("ncnn", "onnxruntime"), "onnxruntime"),
        (("ncnn",), "ncnn"),
        (("tflite", "onnxruntime"), "tflite"),
        (("opencv", "ncnn"), "ncnn"),
    ],
)
def test_the_first_installed_engine_serves(installed, have, name):
    installed(*have)
    choice = choose_engine(ALL)
    assert (choice.name, choice.precision, choice.sizes) == (name, "fp32", SIZES)
    assert {a.format for a in choice.artifacts} == set(choice.engine.formats)


def test_a_fallback_is_said_aloud_with_what_is_missing(installed, caplog):
    installed("ncnn")
    with caplog.at_level(logging.WARNING, "boardfit"):
        choose_engine(ALL)
    assert [record.getMessage() for record in caplog.records] == [
        "falling back to engine ncnn, since the library of litert (ai_edge_litert) and tflite "
        "(tflite_runtime) and onnxruntime (onnxruntime) is not installed"
    ]


def test_an_engine_without_a_file_in_the_bundle_is_passed_over_silently(installed, caplog):
    installed("onnxruntime", "ncnn")
    with caplog.at_level(logging.WARNING, "boardfit"):
        assert choose_engine([artifact("onnx")]).name == "onnxruntime"
    assert caplog.records == []


def test_no_engine_at_all_names_the_commands(installed):
    installed()
    with pytest.raises(EngineMissing, match=r"no engine for it is installed: litert .* pip install"):
        choose_engine(ALL)


def test_an_engine_by_name_only_is_not_chosen_but_taken_when_named(installed):
    installed("opencv")
    with pytest.raises(EngineMissing, match="no engine for it is installed"):
        choose_engine(ALL)
    assert choose_engine(ALL, engine="opencv").name == "opencv"


def test_formats_that_nobody_runs(installed):
    installed("litert")
    with pytest.raises(EngineMissing, match=r"no registered engine runs the bundle's formats \(lunar\)"):
        choose_engine([artifact("lunar")])


def test_a_named_engine_is_not_replaced(installed):
    installed("ncnn", "litert")
    assert choose_engine(ALL, engine="ncnn").name == "ncnn"
    with pytest.raises(RecipeError, match="'ncnn' runs ncnn, but the bundle has onnx, tflite only"):
        choose_engine([artifact("onnx"), artifact("tflite")], engine="ncnn")


@pytest.mark.parametrize(
    ("have", "asked", "got"),
    [(("fp32", "fp16"), None, "fp32"), (("fp32", "fp16"), "fp16", "fp16"), (("fp16",), None, "fp16")],
)
def test_precision(installed, have, asked, got):
    installed("onnxruntime")
    choice = choose_engine([artifact("onnx", precision) for precision in have], precision=asked)
    assert choice.precision == got
    assert {a.precision for a in choice.artifacts} == {got}


def test_one_file_per_size_serves_each_by_its_own(installed):
    installed("ncnn")
    choice = choose_engine([artifact("ncnn", sizes=(size,)) for size in SIZES])
    assert choice.sizes == SIZES
    assert [choice.artifact_for(size).sizes for size in SIZES] == [(size,) for size in SIZES]


def test_a_precision_that_one_format_has_leads_to_its_engine(installed):
    installed("litert", "ncnn")
    bundle = [artifact("tflite"), artifact("ncnn"), artifact("ncnn", "fp16")]
    assert choose_engine(bundle, precision="fp16").name == "ncnn"
    with pytest.raises(RecipeError, match="tflite files are fp32, not int8"):
        choose_engine(bundle, precision="int8")


INT8 = [artifact("onnx", "int8", (size,)) for size in (112, 224)]
RESCUED = [artifact("onnx", "mixed", (160,)), artifact("onnx", "fp16")]


def test_int8_is_never_the_default(installed):
    installed("onnxruntime")
    assert choose_engine([*INT8, *RESCUED, artifact("onnx")]).precision == "fp32"
    assert choose_engine([*INT8, *RESCUED]).precision == "fp16"
    assert choose_engine([*INT8, RESCUED[0]]).precision == "int8"


def test_one_int8_file_per_size_serves_all_sizes(installed):
    installed("onnxruntime")
    three = [artifact("onnx", "int8", (size,)) for size in SIZES]
    choice = choose_engine([artifact("onnx"), *three], precision="int8")
    assert choice.sizes == SIZES
    assert [choice.artifact_for(size) for size in SIZES] == three


def test_what_did_not_survive_int8_has_a_stand_in_that_is_named(installed, caplog):
    installed("onnxruntime")
    with caplog.at_level(logging.WARNING, "boardfit"):
        choice = choose_engine([artifact("onnx"), *INT8, *RESCUED], precision="int8")
    assert choice.sizes == SIZES
    assert choice.artifact_for(160).precision == "mixed"
    assert {a.precision for a in choice.artifacts} == {"int8", "mixed"}
    assert "no int8 file for 160 pixels: onnx-mixed-160 stands in" in caplog.text


def test_fp16_stands_in_last(installed, caplog):
    installed("onnxruntime")
    choice = choose_engine([artifact("onnx"), *INT8, artifact("onnx", "fp16")], precision="int8")
    assert choice.artifact_for(160).precision == "fp16"
    assert choice.artifact_for(112).precision == "int8"


def test_without_any_int8_file_none_stands_in(installed):
    installed("onnxruntime")
    with pytest.raises(RecipeError, match="files are fp16 and mixed, not int8"):
        choose_engine(RESCUED, precision="int8")
