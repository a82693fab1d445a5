from __future__ import annotations

import pytest

from boardfit.bundle import open_bundle, verify_bundle, write_bundle
from boardfit.cli import main
from boardfit.cli.subset import restrict_policy
from boardfit.cli.unpack import _engine_notes, plain_names
from boardfit.specs import Artifact, FitSummary, ImageSpec, PolicySpec, TensorSpec, classic_policy

FIT = FitSummary(
    images=100,
    labelled=False,
    drop_points=0.4,
    time_ratio=0.6,
    gain_points=2.0,
    gain_low=0.5,
    gain_high=3.5,
    machine="a test",
)

SIZES = (112, 160, 224)


def artifact(format_name: str, precision: str, sizes: tuple[int, ...], *files: str) -> Artifact:
    return Artifact(
        format=format_name,
        precision=precision,
        sizes=sizes,
        files=files,
        inputs=(TensorSpec("in", (None, 3, None, None), layout="NCHW"),),
        outputs=(TensorSpec("out", (None, 2), activation="softmax"),),
    )


@pytest.fixture
def full(tmp_path):
    artifacts = [
        artifact("tflite", "fp32", SIZES, "models/tflite-fp32.tflite"),
        artifact("tflite", "fp16", SIZES, "models/tflite-fp16.tflite"),
        artifact("ncnn", "fp16", SIZES, "models/ncnn-fp16.param", "models/ncnn-fp16.bin"),
        artifact("onnx", "fp32", (224,), "models/onnx-fp32-224.onnx"),
    ]
    path = tmp_path / "full.boardfit"
    write_bundle(
        path,
        name="net zero",
        labels=("cat", "dög"),
        image=ImageSpec(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
        policy=classic_policy("entropy", SIZES),
        artifacts=artifacts,
        files={file: file.encode() for item in artifacts for file in item.files},
        measurements={
            "schema": 1,
            "machine": "m",
            "parity": [{"artifact": a.name, "size": s, "flips": 0} for a in artifacts for s in a.sizes],
            "times": [{"artifact": a.name, "size": s, "p50_s": 1.0} for a in artifacts for s in a.sizes],
        },
    )
    return path


def pack(full, *words: str):
    out = full.with_name("part.boardfit")
    assert main(["pack", str(full), "-o", str(out), *words]) == 0
    verify_bundle(out)
    return open_bundle(out)


def test_one_format_and_precision(full):
    with pack(full, "--format", "tflite", "--precision", "fp16") as part, open_bundle(full) as whole:
        assert [a.name for a in part.manifest.artifacts] == ["tflite-fp16"]
        assert [entry.path for entry in part.manifest.files] == ["models/tflite-fp16.tflite"]
        assert part.read("models/tflite-fp16.tflite") == b"models/tflite-fp16.tflite"
        assert part.manifest.policy == whole.manifest.policy
        assert part.content_id != whole.content_id
        rows = part.measurements["parity"] + part.measurements["times"]
        assert [(row["artifact"], row["size"]) for row in rows] == [("tflite-fp16", s) for s in SIZES] * 2


def test_one_size_means_the_fixed_policy_and_new_names(full):
    with pack(full, "--size", "224", "--format", "ncnn", "onnx") as part:
        assert [a.name for a in part.manifest.artifacts] == ["ncnn-fp16-224", "onnx-fp32-224"]
        assert part.manifest.policy.kind == "fixed" and part.manifest.policy.sizes == (224,)
        assert [row["artifact"] for row in part.measurements["times"]] == ["ncnn-fp16-224", "onnx-fp32-224"]


def test_without_a_choice_all_stays(full):
    with pack(full) as part, open_bundle(full) as whole:
        assert part.content_id == whole.content_id
        assert part.measurements == whole.measurements


def test_the_golden_outputs_follow_the_sizes(bundle):
    out = bundle.with_name("part.boardfit")
    assert main(["pack", str(bundle), "-o", str(out), "--size", "32", "64"]) == 0
    with open_bundle(out) as part:
        assert len(part.golden_outputs(32)) == 1 and part.golden_outputs(48) == []
        assert part.golden_frame() is not None
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--format", "tflite", "coreml"], "no format coreml"),
        (["--precision", "int8"], "no precision int8"),
        (["--size", "96"], "no size 96"),
        (["--format", "onnx", "--size", "112"], "no artifact is all of"),
    ],
    ids=str,
)
def test_a_selection_that_is_not_there_lists_what_there_is(full, capsys, words, named):
    out = full.with_name("part.boardfit")
    assert main(["pack", str(full), "-o", str(out), *words]) == 1
    error = capsys.readouterr().err
    assert named in error
    assert "tflite-fp16 at 112, 160, 224" in error and "onnx-fp32-224 at 224" in error
    assert not out.exists()


THREE = PolicySpec("two-look", SIZES, (4.0, 7.0), second_look_bits=1.5, fit=FIT)


@pytest.mark.parametrize(
    ("kept", "sizes", "thresholds", "kind"),
    [
        (SIZES, SIZES, (4.0, 7.0), "two-look"),
        ((112, 160), (112, 160), (4.0,), "two-look"),
        ((112, 224), (112, 224), (4.0,), "two-look"),
        ((160, 224), (160, 224), (7.0,), "two-look"),
        ((160,), (160,), (), "fixed"),
        ((96, 128), (128,), (), "fixed"),
    ],
    ids=str,
)
def test_a_frame_whose_size_is_gone_gets_the_next_larger_one(kept, sizes, thresholds, kind):
    found = restrict_policy(THREE, kept)
    assert (found.sizes, found.thresholds_bits, found.kind) == (sizes, thresholds, kind)
    assert (found.second_look_bits, found.fitted) == (1.5, kept == SIZES)


@pytest.mark.parametrize(("kept", "third"), [((112, 160), None), (SIZES, 0.9)], ids=["two", "all"])
def test_a_third_look_needs_a_third_size(kept, third):
    policy = PolicySpec("two-look", SIZES, (9.0, 9.0), second_look_bits=0.5, third_look_bits=0.9)
    assert restrict_policy(policy, kept).third_look_bits == third


def test_a_fixed_policy_stays_fixed():
    found = restrict_policy(PolicySpec("fixed", SIZES), (112, 160))
    assert found == PolicySpec("fixed", (112, 160))


def test_plain_files_have_speaking_names(full, tmp_path):
    out = tmp_path / "plain"
    assert main(["unpack", str(full), "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.txt",
        "labels.txt",
        "net-zero-fp16.ncnn.bin",
        "net-zero-fp16.ncnn.param",
        "net-zero-fp16.tflite",
        "net-zero-fp32-224.onnx",
        "net-zero-fp32.tflite",
    ]
    assert (out / "net-zero-fp16.ncnn.bin").read_bytes() == b"models/ncnn-fp16.bin"
    assert (out / "labels.txt").read_text(encoding="utf-8") == "cat\ndög\n"


def test_the_readme_says_what_goes_in_and_out(full, tmp_path):
    assert main(["unpack", str(full), "-o", str(tmp_path / "plain")]) == 0
    text = (tmp_path / "plain" / "README.txt").read_text(encoding="utf-8")
    for part in (
        "(pixel - [127, 127, 127]) / [128, 128, 128]",
        "centre crop 0.875",
        "RGB",
        "net-zero-fp16.ncnn.param, net-zero-fp16.ncnn.bin",
        "in: float32 ?x3x?x?, NCHW",
        "out: float32 ?x2, probabilities (softmax applied)",
        "112, 160, 224 pixels",
        "bound to 224 pixels and a batch of one until resize_tensor_input",
    ):
        assert part in text
    assert "use_fp16" not in text, "fp16 ncnn files run as ncnn does by default"


def test_the_readme_of_a_full_precision_ncnn_file_names_the_options(tmp_path):
    plain = artifact("ncnn", "fp32", SIZES, "models/ncnn-fp32.param", "models/ncnn-fp32.bin")
    assert "opt.use_fp16_arithmetic" in "\n".join(_engine_notes(plain))


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "   ", "...", "模型"], ids=repr)
def test_a_bundles_name_leads_nowhere_else(name):
    found = plain_names(name, artifact("tflite", "fp32", SIZES, "models/x.tflite"))["models/x.tflite"]
    assert "/" not in found and not found.startswith((".", "-"))
    assert found.endswith("-fp32.tflite")


def test_a_folder_in_use_is_kept_unless_forced(full, tmp_path, capsys):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "mine.txt").write_text("mine")
    words = ["unpack", str(full), "-o", str(tmp_path / "plain")]
    assert main(words) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["mine.txt"]
    assert main([*words, "--force"]) == 0
    assert (tmp_path / "plain" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "plain" / "net-zero-fp32.tflite").is_file()


def test_a_file_in_place_of_the_folder_is_named(full, tmp_path, capsys):
    (tmp_path / "plain").write_text("x")
    assert main(["unpack", str(full), "-o", str(tmp_path / "plain")]) == 1
    assert "is a file" in capsys.readouterr().err
