"""What is said of docker, podman and buildah, with small scripts in their place."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from boardfit.boards.cross import builders
from boardfit.boards.cross.builders import Builder, build, can_run, check_base, check_emulator, find_builder
from boardfit.errors import ImageError


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts a script of a name on an else empty path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


def test_without_any_it_is_said_what_to_install(tools):
    with pytest.raises(ImageError, match="sudo apt install buildah") as caught:
        find_builder()
    for name in builders.TOOLS:
        assert f"{name} is not installed" in str(caught.value)


def test_the_first_that_works_is_taken(tools):
    tools("buildah", "exit 0")
    assert find_builder() == Builder("buildah")
    tools("docker", "echo cannot connect to the engine >&2; exit 1")
    assert find_builder() == Builder("buildah")
    tools("docker", '[ "$1" = version ]')
    assert find_builder() == Builder("docker")
    tools("docker", "exit 0")
    assert find_builder() == Builder("docker", buildx=True)


def test_the_one_that_is_named_is_taken_or_refused(tools):
    tools("docker", "exit 0")
    tools("podman", "exit 0")
    assert find_builder("podman") == Builder("podman")
    with pytest.raises(ImageError, match="buildah is not installed"):
        find_builder("buildah")
    tools("docker", "echo Cannot connect to the Docker daemon >&2; exit 1")
    with pytest.raises(ImageError, match="Cannot connect to the Docker daemon"):
        find_builder("docker")


@pytest.mark.parametrize(
    ("builder", "first"),
    [
        (Builder("docker", buildx=True), ["docker", "buildx", "build", "--load"]),
        (Builder("docker"), ["docker", "build", "--force-rm"]),
        (Builder("podman"), ["podman", "build", "--format", "docker"]),
        (Builder("buildah"), ["buildah", "build", "--format", "docker", "--layers", "--force-rm"]),
    ],
)
def test_commands(builder, first):
    words = builder.build_words(platform="linux/arm64", tag="net:pi", folder="there")
    told = [] if builder.buildx else ["--build-arg", f"BUILD_PLATFORM={builders.here()}"]
    assert words == [*first, "--platform", "linux/arm64", *told, "--tag", "net:pi", "there"]


def test_a_local_base_of_another_processor_is_seen_before_the_build(tools):
    tools("buildah", "echo amd64")
    check_base(Builder("buildah"), "localhost/debian", "linux/amd64")
    with pytest.raises(ImageError, match="is for amd64, and the board takes linux/arm64"):
        check_base(Builder("buildah"), "localhost/debian", "linux/arm64")
    # Of this one, the builder fetches the form that the board takes.
    check_base(Builder("buildah"), "python:3.11-slim-bookworm", "linux/arm64")


def test_a_local_base_that_is_not_there_is_told(tools):
    tools("podman", "exit 125")
    with pytest.raises(ImageError, match="podman has no image localhost/none"):
        check_base(Builder("podman"), "localhost/none", "linux/arm64")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the tiny program is tried where it is at home")
def test_the_tiny_program_ends_well(tmp_path):
    program = tmp_path / "exit"
    program.write_bytes(builders.tiny_program("linux/amd64"))
    program.chmod(0o755)
    assert subprocess.run([str(program)]).returncode == 0


@pytest.mark.parametrize(("wanted", "handler"), [("linux/arm64", "aarch64"), ("linux/arm/v7", "arm")])
def test_an_emulator_is_found_by_trying_it(wanted, handler):
    """Compared with what the kernel lists, and with qemu itself, where these are there to be asked."""
    if platform.machine() != "x86_64":
        pytest.skip("other processors than x86-64 may run it by themselves")
    listed = Path(f"/proc/sys/fs/binfmt_misc/qemu-{handler}")
    if listed.parent.joinpath("status").exists():
        assert can_run(wanted) == (listed.exists() and listed.read_text().startswith("enabled"))
    elif not can_run(wanted):
        with pytest.raises(ImageError, match="qemu-user-static"):
            check_emulator(wanted)


def test_an_absent_emulator_is_told(monkeypatch):
    monkeypatch.setattr(builders, "can_run", lambda _: False)
    with pytest.raises(ImageError, match="sudo apt install qemu-user-static binfmt-support"):
        check_emulator("linux/arm/v7")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 1; echo 'boardfit image: error: the base is for x86_64' >&2; echo 'exit status 1'; exit 1",
            "the base is for x86_64",
        ),
        (
            "echo '#9 0.31 boardfit image: error: no network'; "
            """echo 'ERROR: RUN x || { echo "boardfit image: error: no base" >&2; }: exit 1'; exit 1""",
            "failed: no network",
        ),
        ("echo 'exec /bin/sh: Exec format error' >&2; exit 1", "qemu-user-static"),
        ("echo 'the --mount option requires BuildKit' >&2; exit 1", "docker-buildx"),
        ("echo first; echo 'Error: no such image'; echo; exit 125", "Error: no such image"),
        ("exit 3", "it does not say why"),
    ],
    ids=[
        "our own stage",
        "in BuildKit",
        "no emulator",
        "no BuildKit",
        "its last line",
        "silent",
    ],
)
def test_why_a_build_failed(tools, tmp_path, script, said):
    tools("buildah", script)
    with pytest.raises(ImageError, match="buildah failed: ") as caught:
        build(Builder("buildah"), tmp_path, platform="linux/arm64", tag="net:pi")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_build_gets_its_arguments_and_tells_its_lines(tools, tmp_path):
    tools("podman", 'for word; do echo "$word"; done')
    lines: list[str] = []
    build(
        Builder("podman"),
        tmp_path,
        platform="linux/arm64",
        tag="net:pi",
        arguments=["PIP_NO_INDEX=1", "BASE=other"],
        on_line=lines.append,
    )
    told = ["--build-arg", "PIP_NO_INDEX=1", "--build-arg", "BASE=other", "--tag", "net:pi"]
    assert lines[-7:] == [*told, os.fspath(tmp_path)]
