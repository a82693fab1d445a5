"""Build contexts: every board that Docker knows, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest

from boardfit.boards.cross.context import (
    ImagePlan,
    argument,
    context_texts,
    dockerfile_text,
    engines_for,
    require_platform,
    shipped,
)
from boardfit.boards.profile import find_profile, profiles
from boardfit.errors import ImageError

DOCKERFILES = ("runtime", "armhf", "jetson")
BOARDS = [profile.name for profile in profiles() if profile.build.docker]


def plan_for(board: str, **given: object) -> ImagePlan:
    told = {
        "profile": find_profile(board),
        "bundle": "Net zero",
        "content_id": "ab" * 32,
        "engine": "litert",
        "libraries": ("numpy>=1.24", "opencv-python-headless>=4.6"),
        "engine_needs": ("ai-edge-litert>=2.1",),
        **given,
    }
    return ImagePlan(**told)


def instructions(text: str) -> list[str]:
    """Return a Dockerfile's instructions, one a line."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if line[:1] != "#"))
    return [line for line in joined.splitlines() if line.strip()]


def exec_form(text: str, name: str) -> list[str]:
    (line,) = [each for each in instructions(text) if each.startswith(name)]
    return json.loads(line[line.index("[") :])


@pytest.mark.parametrize("board", BOARDS)
def test_every_board_of_docker_s_has_a_context(board):
    plan = plan_for(board)
    texts = context_texts(plan)
    text = texts["Dockerfile"]
    assert exec_form(text, "CMD")[:2] == ["boardfit", "watch"]
    assert exec_form(text, "HEALTHCHECK") == [*plan.health]
    assert plan.health[-2:] == ("--engine", "litert")
    assert "USER 65534:65534" in instructions(text)
    assert f"platform: {plan.platform}" in texts["compose.yaml"]
    assert "read_only: true" in texts["compose.yaml"]
    assert '"/dev/video0:/dev/video0"' in texts["compose.yaml"]
    for tool in ("docker buildx build", "podman build", "buildah build"):
        assert f"\n{tool} " in texts["README.md"]
    assert "$" not in texts["README.md"]
    assert texts["engine.txt"] == "ai-edge-litert>=2.1\n"


def test_what_the_dockerfile_copies_is_in_the_context():
    texts = context_texts(plan_for("raspberry-pi-5", app=True))
    others = {"boardfit.zip", "model.boardfit", "app.py", "wheels"}
    for line in instructions(texts["Dockerfile"]):
        words = shlex.split(line)
        if words[0] == "COPY" and not words[1].startswith("--from"):
            assert set(words[1:-1]) <= set(texts) | others, line


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_stages_are_the_same_in_every_dockerfile(name):
    """They differ in what they stand on; the rest is one text, of which there are three copies."""
    marker = "FROM --platform="
    assert shipped(f"{name}.Dockerfile").split(marker)[1] == shipped("runtime.Dockerfile").split(marker)[1]


def test_nothing_runs_in_the_image_for_arm64():
    """The strong point of it: no program of the board's processor is needed for the build."""
    last = shipped("runtime.Dockerfile").rpartition("\nFROM ")[2]
    first = shipped("runtime.Dockerfile").partition("FROM --platform=")[0]
    assert not [line for line in instructions(first + last) if line.startswith("RUN")]
    assert "--platform=${BUILD_PLATFORM}" in shipped("runtime.Dockerfile")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_is_whole_without_a_plan(name):
    text = shipped(f"{name}.Dockerfile")
    for argument_name in ("BASE", "BUILD_BASE"):
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", argument(text, argument_name))
    assert exec_form(text, "CMD") == ["boardfit", "watch", "/opt/boardfit/model.boardfit", "0"]


@pytest.mark.parametrize(
    ("board", "engine", "expected"),
    [
        ("raspberry-pi-5", "litert", "runtime"),
        ("generic-x86-64", "onnxruntime", "runtime"),
        ("generic-armv7l", "ncnn", "armhf"),
        ("jetson-orin-nano", "ncnn", "runtime"),
        ("jetson-orin-nano", "onnxruntime:tensorrt", "jetson"),
    ],
)
def test_which_dockerfile(board, engine, expected):
    plan = plan_for(board, engine=engine)
    assert plan.dockerfile == expected
    assert plan.runs_programs == (expected != "runtime")


def test_armhf_takes_numpy_and_opencv_from_debian():
    texts = context_texts(plan_for("generic-armv7l", engine="ncnn", engine_needs=("ncnn",)))
    assert texts["libraries.txt"] == ""
    assert "python3-numpy python3-opencv" in texts["Dockerfile"]
    assert engines_for(find_profile("generic-armv7l")) == ("ncnn", "tflite")


def test_engines_stand_in_the_board_s_own_order():
    assert engines_for(find_profile("generic-x86-64"))[0] == "onnxruntime"
    assert engines_for(find_profile("generic-aarch64"))[0] == "litert"
    assert not any(":" in name for name in engines_for(find_profile("jetson-orin-nano")))


def test_a_jetson_s_gpu_takes_nvidia_s_base_and_runtime():
    texts = context_texts(plan_for("jetson-orin-nano", engine="onnxruntime:cuda"))
    assert argument(texts["Dockerfile"], "BASE").startswith("nvcr.io/nvidia/l4t-")
    assert "runtime: nvidia" in texts["compose.yaml"]
    assert "--runtime nvidia" in texts["README.md"]
    assert "Not run on hardware" in texts["README.md"]
    # Ubuntu 22.04's, which JetPack 6 stands on.
    assert "--python-version 3.10 " in texts["README.md"]


def test_a_base_of_one_s_own_is_the_default_then():
    text = dockerfile_text(plan_for("raspberry-pi-5", base="localhost/mine:1", build_base="other@sha256:ab"))
    assert argument(text, "BASE") == "localhost/mine:1"
    assert argument(text, "BUILD_BASE") == "other@sha256:ab"


@pytest.mark.parametrize("board", BOARDS)
def test_the_page_tells_how_to_bring_what_any_program_built(board):
    plan = plan_for(board)
    page = context_texts(plan)["README.md"]
    assert f"docker save {plan.image} |" in page
    # "podman save" would name it localhost/..., which compose.yaml does not.
    assert f"buildah push {plan.image} docker-archive:image.tar:{plan.image}\n" in page
    assert "-r app.txt" in page
    assert ("come by apt" in page) == (plan.dockerfile == "armhf")


def test_an_app_is_copied_and_run():
    plan = plan_for("raspberry-pi-5", app=True, source="rtsp://camera/1")
    text = dockerfile_text(plan)
    assert "COPY app.py /opt/boardfit/app.py" in instructions(text)
    assert exec_form(text, "CMD") == [
        "python3",
        "/opt/boardfit/app.py",
        "/opt/boardfit/model.boardfit",
        "rtsp://camera/1",
    ]


def test_what_has_no_device_asks_for_none():
    texts = context_texts(plan_for("raspberry-pi-5", source="env:CAMERA"))
    assert "devices:" not in texts["compose.yaml"]
    assert "      - CAMERA\n" in texts["compose.yaml"]
    assert "--env CAMERA" in texts["README.md"]


@pytest.mark.parametrize("name", ['quo"ted', "a\nRUN rm -rf /", "cash $HOME", "back\\slash", "ümlaut"])
def test_a_bundle_s_name_cannot_leave_its_label(name):
    plain = dockerfile_text(plan_for("raspberry-pi-5"))
    text = dockerfile_text(plan_for("raspberry-pi-5", bundle=name))
    kinds = [line.split()[0] for line in instructions(text)]
    assert kinds == [line.split()[0] for line in instructions(plain)]
    (label,) = [line for line in instructions(text) if line.startswith("LABEL")]
    assert shlex.split(label.replace("\\$", "$"))[1] == f"org.opencontainers.image.title={name}".replace(
        "\n", " "
    )


@pytest.mark.parametrize("name", ["Net zero", "---", "ÄÖÜ", "a/b:c"])
def test_the_image_s_name_is_one_that_docker_takes(name):
    image = plan_for("raspberry-pi-5", bundle=name).image
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*:[a-z0-9-]+", image)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base": "two words"}, "expected the name of an image"),
        ({"base": "a\nRUN x"}, "expected the name of an image"),
        ({"tag": "--push"}, "expected the name of an image"),
        ({"tag": "Mine:1"}, "small letters"),
        ({"tag": "mine::1"}, "expected the name of an image"),
        ({"source": "env:"}, "names no variable"),
        ({"source": "env:A: b"}, "names no variable"),
        ({"source": "rtsp://me:secret@camera/1"}, "no place for a password"),
        ({"source": "rtsp://me@camera/1"}, "or a user's name"),
        ({"source": "rtsp://me:se/cr@et@camera/1"}, "no place for a password"),
        ({"source": "http://camera/?user=me&password=secret"}, "no place for a password"),
        ({"source": "picamera"}, "nothing to read 'picamera' with"),
        ({"source": "gst:nvarguscamerasrc ! nvvidconv"}, "nothing to read"),
        ({"source": ""}, "is no source"),
        ({"source": "0\n1"}, "is no source"),
    ],
)
def test_what_cannot_be_made_is_refused(given, said):
    with pytest.raises(ImageError, match=said):
        plan_for("raspberry-pi-5", **given)


@pytest.mark.parametrize("given", [{"base": "mine:1"}, {"app": True}], ids=str)
def test_a_base_or_an_app_may_have_files(given):
    assert plan_for("raspberry-pi-5", source="/photos", **given).source == "/photos"


@pytest.mark.parametrize(
    "source", ["1", "/dev/video2", "rtsp://camera:554/1", "http://camera/?user=me", "synthetic:640x480@30"]
)
def test_a_source_that_the_image_can_read_is_taken(source):
    assert plan_for("raspberry-pi-5", source=source).source == source


@pytest.mark.parametrize(
    "tag", ["mine", "mine:V1.2_x", "Registry.local:5000/some/a-b__c.d:1", "localhost/x:1"]
)
def test_a_tag_that_docker_takes_is_taken(tag):
    assert plan_for("raspberry-pi-5", tag=tag).image == tag


def test_a_password_is_in_no_message():
    with pytest.raises(ImageError) as caught:
        plan_for("raspberry-pi-5", source="rtsp://me:secret@camera/1")
    assert "secret" not in str(caught.value)


def test_a_gpu_needs_a_base_with_its_libraries():
    with pytest.raises(ImageError, match="CUDA"):
        plan_for("generic-x86-64", engine="onnxruntime:cuda")
    assert plan_for("generic-x86-64", engine="onnxruntime:cuda", base="mine:1").dockerfile == "runtime"
    with pytest.raises(ImageError, match=r"has Python 3\.8"):
        plan_for("jetson-xavier-nx", engine="onnxruntime:cuda")


@pytest.mark.parametrize(
    "profile", [each for each in profiles() if not each.build.docker], ids=lambda p: p.name
)
def test_a_board_without_a_platform_is_refused(profile):
    with pytest.raises(ImageError, match="Docker has no platform for"):
        require_platform(profile)


def test_a_platform_that_we_have_no_dockerfile_for_is_refused():
    profile = find_profile("raspberry-pi-5")
    with pytest.raises(ImageError, match="Docker has no platform for"):
        require_platform(replace(profile, build=replace(profile.build, docker="linux/riscv64")))
