"""What stands beside a Dockerfile: a compose file, and what to type."""

from __future__ import annotations

import json
import re
import shlex
from string import Template
from typing import TYPE_CHECKING

from boardfit.boards.cross.builders import Builder

if TYPE_CHECKING:
    from boardfit.boards.cross.context import ImagePlan

VIDEO_GROUP = "44"
"""Number of the group that may read cameras: on Debian, Raspberry Pi OS and Ubuntu."""


NVIDIA_WHEEL = (
    "onnxruntime-gpu for this processor is not on PyPI: give NVIDIA's own for the board's JetPack (--wheel "
    "FILE, or into the folder wheels), or an index that has it (--build-arg PIP_INDEX_URL=)."
)


def compose_text(plan: ImagePlan) -> str:
    """Return the compose file: root read-only, nobody's rights, and the camera."""
    lines = [
        f"# {plan.bundle} on {plan.profile.title}: docker compose up -d",
        "services:",
        "  boardfit:",
        f"    image: {json.dumps(plan.image)}",
        f"    platform: {plan.platform}",
        "    build: .",
        "    restart: unless-stopped",
        "    init: true",
        "    read_only: true",
        "    tmpfs:",
        "      - /tmp",
        '    user: "65534:65534"',
        "    cap_drop:",
        "      - ALL",
        "    security_opt:",
        "      - no-new-privileges:true",
    ]
    if device := camera_device(plan.source):
        lines += [
            "    devices:",
            f"      - {json.dumps(f'{device}:{device}')}",
            "    group_add:",
            f'      - "{VIDEO_GROUP}"  # video, who may read the camera; see: stat -c %g {device}',
        ]
    if plan.source.startswith("env:"):
        lines += ["    environment:", f"      - {plan.source.removeprefix('env:')}"]
    if plan.dockerfile == "jetson":
        lines += ["    runtime: nvidia"]
    lines += [
        "    healthcheck:",
        f"      test: {json.dumps(['CMD', *plan.health])}",
        "      interval: 5m",
        "      timeout: 2m",
        "      start_period: 30s",
        "      retries: 2",
    ]
    return "\n".join(lines) + "\n"


def camera_device(source: str) -> str:
    """Return the device file of a V4L2 camera; empty for another source."""
    if source.isdecimal():
        return f"/dev/video{source}"
    return source if re.fullmatch(r"/dev/[\w/.-]+", source) else ""


def run_words(plan: ImagePlan, tool: str) -> list[str]:
    """Return the command that runs the image."""
    words = [tool, "run", "--rm", "--init", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    if device := camera_device(plan.source):
        words += ["--device", device, "--group-add", VIDEO_GROUP]
    if plan.source.startswith("env:"):
        words += ["--env", plan.source.removeprefix("env:")]
    if plan.dockerfile == "jetson":
        words += ["--runtime", "nvidia"]
    return [*words, plan.image]


def build_lines(plan: ImagePlan, folder: str = ".") -> list[str]:
    """Return the commands that build the context, one for each program."""
    builders = (Builder("docker", buildx=True), Builder("podman"), Builder("buildah"))
    told = {"platform": plan.platform, "tag": plan.image, "folder": folder}
    return [shlex.join(each.build_words(**told)) for each in builders]


def readme_text(plan: ImagePlan, template: str, *, base: str, build_base: str) -> str:
    """Return the page that goes with a context.

    Args:
        plan: What the image holds.
        template: The page with ``$names``.
        base: What the image stands on.
        build_base: What its libraries are installed in.
    """
    jetson = plan.dockerfile == "jetson"
    tags = [f"manylinux_2_{minor}_{plan.machine}" for minor in (34, 31, 28, 27, 17)]
    values = {
        "bundle": plan.bundle,
        "board": plan.profile.title,
        "platform": plan.platform,
        "engine": plan.engine,
        "base": base,
        "build_base": build_base,
        "python": _python_of(build_base),
        "content_id": plan.content_id,
        "standing": "Not run on hardware." if jetson else "",
        "build": "\n".join(build_lines(plan)),
        "emulation": _emulation(plan),
        "wheel": NVIDIA_WHEEL if jetson else "",
        "offline": _offline(plan),
        "tags": " ".join(f"--platform {tag}" for tag in (*tags, f"manylinux2014_{plan.machine}")),
        "image": plan.image,
        "docker_run": shlex.join(run_words(plan, "docker")),
        "podman_run": shlex.join(run_words(plan, "podman")),
        "health": shlex.join(plan.health),
        "camera": _camera(plan),
        "licence": "NVIDIA's base has its own licence: read it before you do." if jetson else "",
    }
    lines = Template(template).substitute(values).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _python_of(build_base: str) -> str:
    """Return the Python that Docker's own image of it is named after; ours is Debian 12's."""
    found = re.search(r"(?:^|/)python:(3\.\d+)", build_base)
    return found[1] if found else "3.11"


def _emulation(plan: ImagePlan) -> str:
    if not plan.runs_programs:
        return "Nothing of the board's processor runs during the build: no emulator is needed."
    return (
        "Programs of the board's processor run during the build: on another machine that takes an emulator "
        "(Docker Desktop has one; on Debian `apt install qemu-user-static binfmt-support`)."
    )


def _offline(plan: ImagePlan) -> str:
    if plan.dockerfile == "armhf":
        return (
            "Debian's numpy and OpenCV come by apt, unless `BASE` has them (python3-numpy, python3-opencv)."
        )
    return ""


def _camera(plan: ImagePlan) -> str:
    device = camera_device(plan.source)
    if not device:
        return ""
    text = (
        f"`{device}` is given to the container; its group must be {VIDEO_GROUP} (`stat -c %g {device}`). "
        "podman without root has no such group: there `--group-add keep-groups`, as one of the group video."
    )
    if plan.profile.camera.stack in ("libcamera", "argus"):
        text += (
            f" A camera on the board's own connector is served by {plan.profile.camera.stack}, which is not "
            "in the image: take a USB camera, or stream it and give its address."
        )
    return text
