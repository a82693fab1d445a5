"""boardfit image, typed as a user types it; what builds is a small script where it matters."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from boardfit.bundle import open_bundle, write_bundle
from boardfit.cli import main
from boardfit.specs import Artifact, ImageSpec, TensorSpec, classic_policy

PI = ("--board", "raspberry-pi-5")
MINE = "BUILD_PLATFORM=linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
NAMES = {
    *("Dockerfile", ".dockerignore", "compose.yaml", "README.md", "stage.py"),
    *("libraries.txt", "engine.txt", "app.txt", "wheels/README.txt", "boardfit.zip", "model.boardfit"),
}


def named_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def error_of(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("boardfit: error: ")
    return lines[0]


@pytest.fixture
def formats(tmp_path):
    """A bundle with files of three formats, that no engine is asked to run."""
    sizes = (32, 48)

    def artifact(kind: str, precision: str, *files: str) -> Artifact:
        return Artifact(
            format=kind,
            precision=precision,
            sizes=sizes,
            files=files,
            inputs=(TensorSpec("in", (None, 3, None, None), layout="NCHW"),),
            outputs=(TensorSpec("out", (None, 2), activation="softmax"),),
        )

    import numpy as np

    artifacts = [
        artifact("tflite", "fp32", "models/a.tflite"),
        artifact("onnx", "fp32", "models/a.onnx"),
        artifact("ncnn", "fp32", "models/a.param", "models/a.bin"),
        artifact("ncnn", "fp16", "models/b.param", "models/b.bin"),
    ]
    path = tmp_path / "formats.boardfit"
    write_bundle(
        path,
        name="Net zero",
        labels=("cat", "dog"),
        image=ImageSpec(),
        policy=classic_policy("entropy", sizes),
        artifacts=artifacts,
        files={file: file.encode() for item in artifacts for file in item.files},
        golden_frame=np.zeros((60, 80, 3), np.uint8),
        golden_outputs={size: [np.array([[0.5, 0.5]], np.float32)] for size in sizes},
    )
    return path


def test_a_context_is_written_whole(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["image", str(bundle), *PI, "--engine", "fake", "-o", str(out)]) == 0
    assert named_files(out) == NAMES
    told = capsys.readouterr().out
    assert "tiny-net:raspberry-pi-5 for Raspberry Pi 5, linux/arm64, engine fake" in told
    assert f"--tag tiny-net:raspberry-pi-5 {out}\n" in told
    for tool in ("docker buildx build --load", "podman build", "buildah build"):
        assert f"\n  {tool} " in told
    with open_bundle(out / "model.boardfit") as packed:
        assert packed.content_id in (out / "Dockerfile").read_text()


def test_the_commands_in_the_dockerfile_are_ones_that_boardfit_takes(bundle, tmp_path, capsys):
    """What the image will run, run here with the very files that it will have."""
    out = tmp_path / "out"
    assert main(["image", str(bundle), *PI, "--engine", "fake", "--source", "synthetic", "-o", str(out)]) == 0
    site = tmp_path / "site"
    with zipfile.ZipFile(out / "boardfit.zip") as archive:
        archive.extractall(site)
    lines = [line.strip() for line in (out / "Dockerfile").read_text().splitlines()]
    health, command = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ["))
    for words in (health, [*command, "--for", "1"]):
        assert words[0] == "boardfit"
        given = [str(out / "model.boardfit") if word.startswith("/opt/") else word for word in words[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "boardfit", *given],
            env={"PYTHONPATH": str(site), "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            cwd=site,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "answers: 3 right" in done.stdout or "class " in done.stdout


@pytest.mark.parametrize(
    ("board", "engine", "requirement"),
    [
        ("raspberry-pi-5", "litert", "ai-edge-litert"),
        ("generic-x86-64", "onnxruntime", "onnxruntime"),
        ("generic-armv7l", "ncnn", "ncnn"),
        ("jetson-orin-nano", "litert", "ai-edge-litert"),
    ],
)
def test_the_board_s_first_engine_is_taken_and_nothing_else_is_packed(
    formats, tmp_path, capsys, board, engine, requirement
):
    out = tmp_path / "out"
    assert main(["image", str(formats), "--board", board, "-o", str(out)]) == 0
    assert f"engine {engine}\n" in capsys.readouterr().out
    assert (out / "engine.txt").read_text().startswith(requirement)
    assert len((out / "engine.txt").read_text().splitlines()) == 1
    kind = {"litert": "tflite", "onnxruntime": "onnx"}.get(engine, engine)
    with open_bundle(out / "model.boardfit") as packed:
        assert {artifact.format for artifact in packed.manifest.artifacts} == {kind}


@pytest.mark.parametrize(
    ("board", "engine", "said"),
    [
        ("jetson-orin-nano", [], "litert runs on the processor; the GPU takes --engine onnxruntime:tensorrt"),
        ("jetson-orin-nano", ["--engine", "onnxruntime:cuda"], "is not on PyPI: give NVIDIA's own"),
        ("jetson-orin-nano", ["--engine", "litert"], ""),
        ("raspberry-pi-5", [], ""),
    ],
)
def test_what_a_gpu_takes_is_noted(formats, tmp_path, capsys, board, engine, said):
    assert main(["image", str(formats), "--board", board, *engine, "-o", str(tmp_path / "out")]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == bool(said)
    assert said in "".join(notes)
    page = (tmp_path / "out" / "README.md").read_text()
    assert ("NVIDIA's own" in page) == ("NVIDIA's own" in said)


@pytest.mark.parametrize(
    ("asked", "packed"),
    [
        ([], ["ncnn-fp32"]),
        (["--precision", "fp16"], ["ncnn-fp16"]),
        (["--precision", "fp16", "fp32"], ["ncnn-fp32", "ncnn-fp16"]),
    ],
    ids=["the most exact", "another", "two"],
)
def test_which_precision_is_packed(formats, tmp_path, asked, packed):
    out = tmp_path / "out"
    assert main(["image", str(formats), *PI, "--engine", "ncnn", *asked, "-o", str(out)]) == 0
    with open_bundle(out / "model.boardfit") as opened:
        assert [artifact.name for artifact in opened.manifest.artifacts] == packed


def test_an_app_with_what_it_needs_goes_along(bundle, tmp_path):
    (tmp_path / "mine.py").write_text("print('mine')\n")
    (tmp_path / "needs.txt").write_text("flask\n")
    (tmp_path / "some-1.0-py3-none-any.whl").write_bytes(b"wheel")
    out = tmp_path / "out"
    given = ["--app", str(tmp_path / "mine.py"), "--requirements", str(tmp_path / "needs.txt")]
    wheel = ["--wheel", str(tmp_path / "some-1.0-py3-none-any.whl")]
    assert main(["image", str(bundle), *PI, "--engine", "fake", *given, *wheel, "-o", str(out)]) == 0
    assert named_files(out) == NAMES | {"app.py", "wheels/some-1.0-py3-none-any.whl"}
    assert (out / "app.py").read_text() == "print('mine')\n"
    assert (out / "app.txt").read_text() == "flask\n"
    assert 'CMD ["python3", "/opt/boardfit/app.py"' in (out / "Dockerfile").read_text()


def test_nobody_may_read_what_a_careful_user_wrote(bundle, tmp_path):
    """COPY keeps the modes of files, and the image runs as another user."""
    (tmp_path / "mine.py").write_text("print('mine')\n")
    (tmp_path / "mine.py").chmod(0o600)
    out = tmp_path / "out"
    before = os.umask(0o077)
    try:
        words = [
            "image",
            str(bundle),
            *PI,
            "--engine",
            "fake",
            "--app",
            str(tmp_path / "mine.py"),
            "-o",
            str(out),
        ]
        assert main(words) == 0
    finally:
        os.umask(before)
    assert [(out / name).stat().st_mode & 0o777 for name in ("model.boardfit", "app.py")] == [0o644, 0o644]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--board", "rasberry-pi"], "there is no board 'rasberry-pi': did you mean"),
        (["--board", "ssh://me@pi"], "is one board's address"),
        (["--board", "android-arm64"], "Docker has no platform for Android"),
        ([*PI, "--engine", "lunar"], "there is no engine 'lunar'"),
        ([*PI, "--engine", "opencv:x"], "opencv"),
        (["--board", "generic-armv7l", "--engine", "litert"], "there is no wheel of engine 'litert' for"),
        ([*PI, "--engine", "tflite"], "there is no wheel of engine 'tflite' for Raspberry Pi 5"),
        ([*PI, "--engine", "onnxruntime:xnnpack"], "no image is made for the variant"),
        ([*PI, "--engine", "fake"], "engine 'fake' runs fake, but the bundle has ncnn, onnx, tflite only"),
        ([*PI, "--precision", "int8"], "the bundle has no precision int8"),
        ([*PI, "--app", "nowhere.py"], "--app nowhere.py: there is no such file"),
        ([*PI, "--requirements", __file__], "add --app"),
        ([*PI, "--wheel", __file__], "expected a file NAME.whl"),
        ([*PI, "--source", "rtsp://a:b@c/1"], "no place for a password"),
        ([*PI, "--source", "film.mp4"], "is a file or folder"),
        ([*PI, "--source", "/home/me/photos"], "is a file or folder"),
        ([*PI, "--source", "synthetic:big"], "is no source"),
        ([*PI, "--base", "two words"], "expected the name of an image"),
        ([*PI, "--build", "--build-arg", "=x"], "expected NAME=VALUE"),
        ([*PI, "--build-arg", "A=b"], "add --build"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_nothing_is_written(formats, tmp_path, capsys, words, said):
    out = tmp_path / "new" / "out"
    out.parent.mkdir()
    assert main(["image", str(formats), *words, "-o", str(out)]) == 1
    assert said in error_of(capsys)
    assert list(out.parent.iterdir()) == []


def test_a_bundle_without_a_golden_frame_is_refused(tmp_path, capsys):
    from boardfit.runtime.engines.fake import fake_artifact, fake_files

    path = tmp_path / "bare.boardfit"
    write_bundle(
        path,
        name="bare",
        labels=(),
        image=ImageSpec(),
        policy=classic_policy("entropy", (32, 48, 64)),
        artifacts=[fake_artifact((32, 48, 64))],
        files=fake_files(),
    )
    assert main(["image", str(path), *PI, "--engine", "fake", "-o", str(tmp_path / "out")]) == 1
    assert "no golden frame for the health check" in error_of(capsys)


def test_a_damaged_bundle_leaves_nothing(bundle, tmp_path, capsys):
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert main(["image", str(bundle), *PI, "--engine", "fake", "-o", str(tmp_path / "out")]) == 1
    error_of(capsys)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_place_that_is_taken_or_cannot_be_written(bundle, tmp_path, capsys):
    words = ["image", str(bundle), *PI, "--engine", "fake", "-o"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    assert main([*words, str(tmp_path / "taken")]) == 1
    assert "is there already" in error_of(capsys)
    assert (tmp_path / "taken/file").read_text() == "mine"
    # root may write everywhere but into the kernel's own folders
    assert main([*words, "/proc/self/out"]) == 1
    assert "cannot write /proc/self/out" in error_of(capsys)


def test_a_full_disk_is_told_with_the_folder_and_leaves_nothing(bundle, tmp_path, capsys, monkeypatch):
    from boardfit.boards.remote import package

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(package, "pack_package", full)
    out = tmp_path / "new" / "out"
    out.parent.mkdir()
    assert main(["image", str(bundle), *PI, "--engine", "fake", "-o", str(out)]) == 1
    assert f"cannot write {out} (No space left on device)" in error_of(capsys)
    assert list(out.parent.iterdir()) == []


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """A function that puts a script in the place of buildah, alone on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(script: str) -> None:
        (folder / "buildah").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "buildah").chmod(0o755)

    return put


def test_without_a_builder_nothing_is_written(bundle, tmp_path, capsys, builder):
    out = tmp_path / "out"
    assert main(["image", str(bundle), *PI, "--engine", "fake", "-o", str(out), "--build"]) == 1
    assert "there is nothing to build an image with" in error_of(capsys)
    assert not out.exists()


def test_the_context_is_built(bundle, tmp_path, capsys, builder):
    out = tmp_path / "out"
    builder(f'echo "$@" > {tmp_path}/said; [ -f {out}/Dockerfile ]')
    words = [
        "--engine",
        "fake",
        "--tag",
        "mine:1",
        "--build-arg",
        "A=b",
        "-o",
        str(out),
        "--build",
        "buildah",
    ]
    assert main(["image", str(bundle), *PI, *words]) == 0
    said = (tmp_path / "said").read_text().strip()
    assert said.startswith("build --format docker ")
    assert said.endswith(f" --platform linux/arm64 --build-arg {MINE} --build-arg A=b --tag mine:1 {out}")
    assert "built mine:1 with buildah" in capsys.readouterr().out


def test_a_build_that_fails_is_told_with_its_reason(bundle, tmp_path, capsys, builder):
    builder("echo pulling; echo 'Error: no network' >&2; exit 125")
    out = tmp_path / "out"
    words = ["--engine", "fake", "-o", str(out), "--build", "--build-arg", "A=b c"]
    assert main(["image", str(bundle), *PI, *words]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("boardfit: error: buildah failed: Error: no network; ")
    assert "is whole, try again: buildah build" in last
    assert f" --build-arg 'A=b c' --tag tiny-net:raspberry-pi-5 {out}" in last
    assert named_files(out) == NAMES


def test_a_local_base_of_another_processor_is_seen_first(bundle, tmp_path, capsys, builder):
    builder(f'[ "$1" = inspect ] && echo amd64 || : > {tmp_path}/built')
    words = ["--engine", "fake", "--base", "localhost/debian:1", "-o", str(tmp_path / "out"), "--build"]
    assert main(["image", str(bundle), *PI, *words]) == 1
    assert "the base localhost/debian:1 is for amd64, and the board takes linux/arm64" in error_of(capsys)
    assert not (tmp_path / "built").exists()
    assert not (tmp_path / "out").exists()


def test_without_an_emulator_an_armhf_image_is_not_begun(bundle, tmp_path, capsys, builder, monkeypatch):
    from boardfit.boards.cross import builders

    builder(f": > {tmp_path}/built")
    monkeypatch.setattr(builders, "can_run", lambda _: False)
    words = ["--board", "generic-armv7l", "--engine", "fake", "-o", str(tmp_path / "out"), "--build"]
    assert main(["image", str(bundle), *words]) == 1
    assert "no emulator of its processor is registered" in error_of(capsys)
    assert not (tmp_path / "built").exists()
    # for arm64 nothing of the board's runs, and none is needed
    words[1] = "raspberry-pi-5"
    assert main(["image", str(bundle), *words]) == 0
    assert (tmp_path / "built").exists()
