"""The native runner, cross-built for ARM and run under emulation, against ncnn's wheel on this machine.

`make cross` builds it and runs all of this. Its times would be an emulator's: none is taken.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from boardfit.bundle import open_bundle
from boardfit.cli import main
from boardfit.cli.unpack import plain_names
from boardfit.runtime.engines.ncnn import NcnnEngine
from boardfit.runtime.images import read_image
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import Artifact

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "boards" / "cross" / "build_native.sh"
EMULATORS = {"aarch64": "qemu-aarch64-static", "armhf": "qemu-arm-static"}
CPUS = [
    *(("aarch64", cpu) for cpu in ("cortex-a53", "cortex-a72", "cortex-a76", "max")),
    *(("armhf", cpu) for cpu in ("cortex-a7", "cortex-a15", "max")),
]
PLAIN = (("aarch64", "cortex-a72"), ("armhf", "cortex-a7"))
FP32 = {"rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True)
class Runner:
    """The cross-built program, on a processor that is emulated."""

    command: tuple[str, ...]

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    def answer(
        self, model: list[Path], feeds: dict[str, np.ndarray], outputs: list[str], *more: str
    ) -> list[np.ndarray]:
        """Run a model on arrays without a batch axis, and return the outputs, flat."""
        folder = model[0].parent
        words: list[object] = [*model, *more]
        for name, array in feeds.items():
            array.astype("<f4").tofile(folder / f"{name}.f32")
            words += ["--input", name, "x".join(map(str, array.shape)), folder / f"{name}.f32"]
        for name in outputs:
            words += ["--output", name, folder / f"{name}.out"]
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return [np.fromfile(folder / f"{name}.out", "<f4") for name in outputs]


@pytest.fixture
def runner(request) -> Runner:
    arch, cpu = request.param
    program = ROOT / "build" / "cross" / arch / "bin" / "boardfit-ncnn"
    if not program.is_file():
        pytest.skip(f"{program.relative_to(ROOT)} is not built: make cross")
    emulator = shutil.which(EMULATORS[arch])
    if emulator is None:
        pytest.skip(f"{EMULATORS[arch]} is not installed: apt-get install qemu-user-static")
    return Runner((emulator, "-cpu", cpu, str(program)))


every_cpu = pytest.mark.parametrize("runner", CPUS, ids="-".join, indirect=True)
each_arch = pytest.mark.parametrize("runner", PLAIN, ids="-".join, indirect=True)


def unpack(bundle: Path, folder: Path) -> Path:
    """Write a bundle's plain files, as a user does."""
    assert main(["unpack", str(bundle), "-o", str(folder)]) == 0
    return folder


def of_wheel(bundle: Path, precision: str, size: int, image: np.ndarray) -> tuple[Artifact, np.ndarray]:
    """Return an ncnn artifact, and what ncnn's wheel makes here of an image as the net takes it."""
    with open_bundle(bundle) as opened:
        (artifact,) = (
            each
            for each in opened.manifest.artifacts
            if (each.format, each.precision) == ("ncnn", precision) and size in each.sizes
        )
        engine = NcnnEngine(artifact, opened.artifact_files(artifact), 1)
    return artifact, engine.run({artifact.inputs[0].name: image[None]})[0][0]


@every_cpu
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_bundle_is_answered_as_by_the_wheel(runner, threads, three_engines, tmp_path):
    folder = unpack(three_engines, tmp_path / "plain")
    model = [folder / "tiny-fp32.ncnn.param", folder / "tiny-fp32.ncnn.bin"]
    for size in (16, 24, 31):
        image = np.random.RandomState(size).uniform(0, 1, (3, size, size)).astype(np.float32)
        _, expected = of_wheel(three_engines, "fp32", size, image)
        (scores,) = runner.answer(model, {"image": image}, ["scores"], "--threads", threads)
        np.testing.assert_allclose(scores, expected, **FP32)


@every_cpu
def test_half_precision_is_computed_where_it_is_asked_for(runner, three_engines, tmp_path):
    folder = unpack(three_engines, tmp_path / "plain")
    model = [folder / "tiny-fp32.ncnn.param", folder / "tiny-fp32.ncnn.bin"]
    image = np.random.RandomState(5).uniform(0, 1, (3, 24, 24)).astype(np.float32)
    _, expected = of_wheel(three_engines, "fp32", 24, image)
    (scores,) = runner.answer(model, {"image": image}, ["scores"], "--fp16")
    np.testing.assert_allclose(scores, expected, rtol=5e-3, atol=5e-3)
    assert np.abs(scores - expected).max() > 1e-5


def write_sum(folder: Path, shape: tuple[int, ...]) -> tuple[list[Path], dict[str, np.ndarray]]:
    """Write a net of two inputs and two outputs, sum and doubled sum, and arrays for it."""
    folder.mkdir(exist_ok=True)
    lines = ["7767517", "5 6", "Input a 0 1 a", "Input b 0 1 b", "BinaryOp add 2 1 a b sum 0=0"]
    lines += ["Split split 1 2 sum total again", "BinaryOp twice 1 1 again double 0=2 1=1 2=2.0"]
    (folder / "net.param").write_text("\n".join(lines) + "\n")
    (folder / "net.bin").write_bytes(b"")
    random = np.random.RandomState(len(shape))
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name in "ab"}
    return [folder / "net.param", folder / "net.bin"], feeds


@each_arch
@pytest.mark.parametrize("shape", [(7,), (3, 5), (3, 5, 7), (2, 3, 5, 7)], ids=str)
def test_several_inputs_and_outputs_of_any_shape(runner, shape, tmp_path):
    model, feeds = write_sum(tmp_path, shape)
    double, total = runner.answer(model, feeds, ["double", "total"])
    expected = (feeds["a"] + feeds["b"]).ravel()
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(double, 2 * expected)


@each_arch
def test_help_names_the_ncnn_inside(runner):
    done = runner("--help")
    assert done.returncode == 0
    pin = (ROOT / "boards/cross/ncnn.txt").read_text().split("ncnn==")[1].split()[0]
    assert f"ncnn {pin}" in done.stdout


TINY = ["--input", "image", "3x24x24", "image.f32", "--output", "scores", "scores.out"]


def swapped(old: str, new: str) -> list[str]:
    return [word.replace(old, new) for word in TINY]


@each_arch
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "expected --input and --output"),
        (TINY[:4], 2, "expected --input and --output"),
        (TINY[:3], 2, "--input lacks an argument"),
        ([*TINY, "third.bin"], 2, "expected two model files"),
        ([*TINY, "--thread", "2"], 2, "there is no option --thread"),
        ([*TINY, "--threads", "0"], 2, "--threads is '0'"),
        ([*TINY, "--threads", "two"], 2, "--threads is 'two'"),
        ([*TINY, "--threads"], 2, "--threads lacks an argument"),
        (swapped("3x24x24", "3x24"), 1, "image.f32 has 6912 bytes: the shape of image takes 288"),
        (swapped("3x24x24", "3x24x"), 2, "an extent of the shape '3x24x' is ''"),
        (swapped("3x24x24", "3x-24x24"), 2, "an extent of the shape '3x-24x24' is '-24'"),
        (swapped("3x24x24", ""), 2, "an extent of the shape '' is ''"),
        (swapped("3x24x24", "1x1x3x24x24"), 2, "over 4 extents"),
        (swapped("3x24x24", "99999x99999x99999"), 2, "2^28 numbers"),
        (swapped("3x24x24", "99999999999"), 2, "is '99999999999'"),
        (swapped("3x24x24", "4x24x18"), 1, "the layer conv wants 3 channels: image has 4"),
        (swapped("image.f32", "absent.f32"), 1, "cannot read absent.f32"),
        (swapped("image.f32", "."), 1, "cannot read ."),
        ([word if word != "image" else "img" for word in TINY], 1, "the net has no input img"),
        ([*TINY, *TINY[:4]], 1, "the net has no input image, or it is given twice"),
        (swapped("scores", "skores"), 1, "the net has no output skores"),
        (swapped("scores.out", "absent/scores.out"), 1, "cannot write absent/scores.out"),
        (swapped("scores.out", "."), 1, ". is no file"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(
    runner, words, status, message, three_engines, tmp_path, monkeypatch
):
    folder = unpack(three_engines, tmp_path / "plain")
    monkeypatch.chdir(folder)
    np.zeros((3, 24, 24), np.float32).tofile("image.f32")
    before = sorted(folder.rglob("*"))
    done = runner("tiny-fp32.ncnn.param", "tiny-fp32.ncnn.bin", *words)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("boardfit-ncnn: ") and message in line
    assert sorted(folder.rglob("*")) == before


@each_arch
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("param", lambda data: b"garbage\n" + data, "ncnn refused net.param"),
        ("param", lambda data: data[:70], "ncnn refused net.param"),
        ("param", lambda data: data.replace(b"Pooling", b"Spectrogram"), "has a layer that was left out"),
        ("param", lambda data: b"", "ncnn refused net.param"),
        ("bin", lambda data: data[:-1], "net.bin does not belong to net.param"),
        ("bin", lambda data: data + b"x", "net.bin does not belong to net.param"),
        ("bin", lambda data: b"", "net.bin does not belong to net.param"),
    ],
    ids=["not first", "cut", "unknown layer", "empty", "short", "long", "no weights"],
)
def test_damaged_models_are_refused(runner, name, change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.zeros((3, 24, 24), np.float32).tofile("image.f32")
    for kind in ("param", "bin"):
        data = (ROOT / f"tests/fuzz/corpus/net.{kind}").read_bytes()
        Path(f"net.{kind}").write_bytes(change(data) if kind == name else data)
    done = runner("net.param", "net.bin", *TINY)
    assert done.returncode == 1
    # What ncnn itself says stands before.
    assert message in done.stderr.splitlines()[-1]
    assert not Path("scores.out").exists()


@each_arch
def test_an_input_that_is_not_given_is_named(runner, tmp_path):
    model, feeds = write_sum(tmp_path, (4,))
    feeds["a"].tofile(tmp_path / "a.f32")
    done = runner(
        *model, "--input", "a", "4", tmp_path / "a.f32", "--output", "total", tmp_path / "total.out"
    )
    assert (done.returncode, done.stderr) == (1, "boardfit-ncnn: the net wants the input b\n")


@each_arch
def test_a_number_is_broadcast_as_ncnn_does(runner, tmp_path):
    model, feeds = write_sum(tmp_path, (4,))
    feeds["b"] = feeds["b"][:1]
    (total,) = runner.answer(model, feeds, ["total"])
    np.testing.assert_array_equal(total, feeds["a"] + feeds["b"])


@each_arch
def test_int8_is_answered_as_by_the_wheel(runner, three_engines, tmp_path):
    from boardfit.converters.calibrate import estimate, observe
    from boardfit.converters.targets import Exported, ncnn_int8

    with open_bundle(three_engines) as bundle:
        (artifact,) = (each for each in bundle.manifest.artifacts if each.format == "ncnn")
        floats = Exported(replace(artifact, sizes=(24,)), bundle.artifact_files(artifact))
    images = np.random.RandomState(1).uniform(0, 1, (8, 24, 24, 3)).astype(np.float32)
    probe = ncnn_int8.open_probe(floats)
    ranges = {name: estimate(each, "min-max") for name, each in observe(probe, images).items()}
    probe.close()
    made = ncnn_int8.quantize(floats, ranges=ranges)
    model = [tmp_path / Path(path).name for path in made.artifact.files]
    for path, data in zip(model, made.files.values(), strict=True):
        path.write_bytes(data)
    image = np.ascontiguousarray(images[0].transpose(2, 0, 1))
    expected = NcnnEngine(made.artifact, made.files, 1).run({"image": image[None]})[0][0]
    (scores,) = runner.answer(model, {"image": image}, ["scores"])
    assert made.artifact.precision == "int8"
    np.testing.assert_allclose(scores, expected, **FP32)


@pytest.fixture(scope="module")
def lite0_at_112(demo_folder) -> Path:
    out = demo_folder / "native.boardfit"
    command = ["build", str(demo_folder / "lite0.keras"), "--images", str(demo_folder / "photos")]
    command += [
        "--labels",
        str(demo_folder / "labels.txt"),
        "--image-spec",
        "efficientnet-lite",
        "--sizes",
        "112",
    ]
    assert main([*command, "--formats", "ncnn", "--precisions", "fp32,fp16", "-o", str(out)]) == 0
    return out


@pytest.mark.long
@each_arch
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-2)])
def test_lite0_is_answered_as_by_the_wheel(runner, precision, tolerance, lite0_at_112, demo_folder, tmp_path):
    folder = unpack(lite0_at_112, tmp_path / "plain")
    photo = read_image(sorted((demo_folder / "photos").iterdir())[0])
    with open_bundle(lite0_at_112) as bundle:
        name = bundle.manifest.name
        image = Preprocessor(bundle.manifest.image, "NCHW").fit(photo, 112)[0][0]
    artifact, expected = of_wheel(lite0_at_112, precision, 112, image)
    model = [folder / plain for plain in plain_names(name, artifact).values()]
    more = ["--fp16"] if precision == "fp16" else []
    (answer,) = runner.answer(model, {artifact.inputs[0].name: image}, [artifact.outputs[0].name], *more)
    assert np.abs(answer - expected).max() <= tolerance * np.ptp(expected)
    assert answer.argmax() == expected.argmax()


def build(*words: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script that builds it; with ``path``, where only those programs are found."""
    environment = {**os.environ, **variables, **({"PATH": str(path)} if path else {})}
    return subprocess.run(
        [str(SCRIPT), *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def tools(tmp_path) -> Path:
    """A folder of programs: the shell's, and compilers that do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "dirname", "sed", "mktemp", "mkdir", "rm", "sha256sum", "grep", "tail", "tr"):
        (folder / name).symlink_to(shutil.which(name))
    for name in ("aarch64-linux-gnu-g++", "cmake", "ninja", "python3"):
        (folder / name).write_text("#!/bin/bash\necho ERROR: no network >&2; exit 1\n")
        (folder / name).chmod(0o755)
    return folder


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("build_native.sh: ")
    return line


@pytest.mark.parametrize("words", [(), ("x86_64",), ("",)], ids=str)
def test_an_architecture_that_is_not_known_is_refused(words):
    assert "expected aarch64 or armhf" in refused(build(*words))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("aarch64-linux-gnu-g++", "crossbuild-essential-arm64"),
        ("cmake", "cmake"),
        ("ninja", "ninja-build"),
        ("python3", "python3-pip"),
    ],
)
def test_what_is_not_installed_is_named(name, package, tools, tmp_path):
    (tools / name).unlink()
    line = refused(build("aarch64", str(tmp_path / "out"), path=tools))
    assert f"{name} is not installed: sudo apt install" in line and package in line
    assert not (tmp_path / "out").exists()


def test_without_a_network_the_source_can_be_given(tools, tmp_path):
    line = refused(build("aarch64", str(tmp_path / "out"), path=tools))
    assert "ERROR: no network" in line and "NCNN_SDIST" in line


def test_another_source_than_the_pinned_one_is_refused(tools, tmp_path):
    (tmp_path / "ncnn.tar.gz").write_bytes(b"something else")
    line = refused(
        build("aarch64", str(tmp_path / "out"), path=tools, NCNN_SDIST=str(tmp_path / "ncnn.tar.gz"))
    )
    assert "its SHA-256 is not the one in ncnn.txt" in line
    assert not list((tmp_path / "out").glob("*ncnn*"))


def test_a_folder_that_cannot_be_written_is_told(tools, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert "cannot write to" in refused(build("aarch64", str(tmp_path / "out"), path=tools))
