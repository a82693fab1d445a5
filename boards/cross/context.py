"""The folder that an image is built in: our Dockerfile with one board's arguments, and what goes with it.

The Dockerfiles of this folder are whole: each can be built as it stands, with ``--build-arg``. For one bundle
and one board, the defaults of their arguments and the two commands are set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from boardfit.boards.cross.texts import compose_text, readme_text
from boardfit.boards.profile import Profile
from boardfit.errors import ImageError
from boardfit.names import without_password

MODEL = "/opt/boardfit/model.boardfit"
"""The bundle's place in the image."""

APP = "/opt/boardfit/app.py"

_GPU = ("cuda", "tensorrt")
_OLDEST = (3, 10)

_WHEELS = {
    "linux/arm64": ("litert", "onnxruntime", "ncnn"),
    "linux/amd64": ("litert", "onnxruntime", "ncnn"),
    "linux/arm/v7": ("ncnn", "tflite"),
}
"""Engines that have a wheel for a platform on PyPI, best first (read on 2026-11-23)."""

# Host and port, path, tag: https://github.com/distribution/reference. The path has small letters only.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"

_MACHINES = {"linux/arm64": "aarch64", "linux/amd64": "x86_64", "linux/arm/v7": "armv7l"}
_WHEELS_TEXT = "Wheels that lie here are taken before those of the package index: see README.md.\n"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What an image will hold, and for which board.

    Attributes:
        profile: The board.
        bundle: Name of the bundle's model.
        content_id: Of the bundle as it is packed.
        engine: As registered, such as ``litert`` or ``onnxruntime:cuda``.
        libraries: Requirements for pip besides the engine's.
        engine_needs: Requirements of the engine; empty for one without a library.
        source: What ``boardfit watch`` or the app reads: a camera's number, an address, ``env:NAME``.
        app: Whether an ``app.py`` runs in the place of ``boardfit watch``.
        base: What the image stands on; empty for the Dockerfile's default.
        build_base: What its libraries are installed in; empty for the default.
        tag: Of the image; empty for one made of the bundle's name and the board's.
    """

    profile: Profile
    bundle: str
    content_id: str
    engine: str
    libraries: tuple[str, ...]
    engine_needs: tuple[str, ...]
    source: str = "0"
    app: bool = False
    base: str = ""
    build_base: str = ""
    tag: str = ""

    def __post_init__(self) -> None:
        for option, value in (("--base", self.base), ("--build-base", self.build_base)):
            # A line break or a space would be another instruction of the Dockerfile.
            if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", value):
                raise ImageError(f"{option} is {value!r}: expected the name of an image")
        if self.tag and not re.fullmatch(_TAG, self.tag):
            raise ImageError(
                f"--tag is {self.tag!r}: expected the name of an image, such as mine:1 (small letters)"
            )
        require_platform(self.profile)
        _require_source(self.source, own_base=bool(self.base))
        self._check_gpu()

    def _check_gpu(self) -> None:
        if not _is_gpu(self.engine) or self.base:
            return
        if self.platform != "linux/arm64":
            raise ImageError(f"{self.engine} needs a base with CUDA and cuDNN: name one with --base")
        pythons = [_numbers(system.python) for system in self.profile.systems if system.python]
        if pythons and max(pythons) < _OLDEST:
            raise ImageError(
                f"NVIDIA's base for {self.profile.title} has Python {'.'.join(map(str, max(pythons)))}, and "
                "boardfit needs 3.10: name a base with --base, or take an engine on the processor"
            )

    @property
    def platform(self) -> str:
        """As Docker names it."""
        return self.profile.build.docker

    @property
    def machine(self) -> str:
        """The platform's processor, as wheels name it."""
        return _MACHINES[self.platform]

    @property
    def dockerfile(self) -> str:
        """Name of our Dockerfile without its ending."""
        if self.platform == "linux/arm/v7":
            return "armhf"
        return "jetson" if _is_gpu(self.engine) and self.platform == "linux/arm64" else "runtime"

    @property
    def runs_programs(self) -> bool:
        """Whether programs of the board's processor run during the build, on an emulator elsewhere."""
        return self.dockerfile != "runtime"

    @property
    def image(self) -> str:
        """Name of the image."""
        if self.tag:
            return self.tag
        name = re.sub(r"[^a-z0-9]+", "-", self.bundle.lower()).strip("-") or "model"
        return f"{name}:{self.profile.name}"

    @property
    def command(self) -> tuple[str, ...]:
        """What the image runs."""
        if self.app:
            # What stands in a variable, the app reads there itself.
            given = () if self.source.startswith("env:") else (self.source,)
            return ("python3", APP, MODEL, *given)
        return ("boardfit", "watch", MODEL, self.source, "--engine", self.engine)

    @property
    def health(self) -> tuple[str, ...]:
        """What tells whether it is well: the golden frame's answers on the engine."""
        return ("boardfit", "verify", MODEL, "--engine", self.engine)


def require_platform(profile: Profile) -> None:
    """Refuse a board that Docker has no platform for.

    Raises:
        ImageError: There is none.
    """
    if profile.build.docker not in _WHEELS:
        raise ImageError(
            f"Docker has no platform for {profile.title}: run the bundle there with "
            "boardfit run --board adb://SERIAL, or choose another board (boardfit boards lists them)"
        )


def engines_for(profile: Profile) -> tuple[str, ...]:
    """Return the engines whose wheels a build can fetch for a board, the profile's order first."""
    able = _WHEELS[profile.build.docker]
    preferred = [choice.name for choice in profile.engines if choice.name in able]
    return tuple(dict.fromkeys([*preferred, *able]))


def engine_packages(engine: str) -> tuple[str, ...]:
    """Return the packages that take the place of an engine's own, for a variant that needs others."""
    return ("onnxruntime-gpu",) if _is_gpu(engine) else ()


def context_texts(plan: ImagePlan) -> dict[str, str]:
    """Return the texts of a build context by name: all but bundle, app, wheels and our package."""
    text = dockerfile_text(plan)
    return {
        "Dockerfile": text,
        ".dockerignore": "compose.yaml\nREADME.md\n",
        "compose.yaml": compose_text(plan),
        "README.md": _readme(plan, text),
        "stage.py": shipped("stage.py"),
        "libraries.txt": _lines(() if plan.dockerfile == "armhf" else plan.libraries),
        "engine.txt": _lines(plan.engine_needs),
        "app.txt": "",
        "wheels/README.txt": _WHEELS_TEXT,
    }


def dockerfile_text(plan: ImagePlan) -> str:
    """Return our Dockerfile with the arguments and commands of a plan."""
    text = shipped(f"{plan.dockerfile}.Dockerfile")
    for name, value in (("BASE", plan.base), ("BUILD_BASE", plan.build_base)):
        if value:
            text = _replaced(text, rf"^ARG {name}=.*$", f"ARG {name}={value}")
    text = _replaced(text, r"^    CMD \[.*\]$", f"    CMD {json.dumps(plan.health)}")
    copied = f"COPY app.py {APP}\n" if plan.app else ""
    labels = {
        "org.opencontainers.image.title": plan.bundle,
        "io.boardfit.board": plan.profile.name,
        "io.boardfit.engine": plan.engine,
        "io.boardfit.content-id": plan.content_id,
    }
    label = "LABEL " + " ".join(f"{key}={_quoted(value)}" for key, value in labels.items())
    return _replaced(text, r"^CMD \[.*\]$", f"{copied}{label}\nCMD {json.dumps(plan.command)}")


def _readme(plan: ImagePlan, text: str) -> str:
    told = {"base": argument(text, "BASE"), "build_base": argument(text, "BUILD_BASE")}
    return readme_text(plan, shipped("image.md"), **told)


def argument(text: str, name: str) -> str:
    """Return the default of an argument of a Dockerfile."""
    found = re.search(rf"^ARG {name}=(.*)$", text, re.MULTILINE)
    assert found is not None, name
    return found[1]


def shipped(name: str) -> str:
    """Return the text of a file that stands beside this one."""
    return (files("boardfit.boards.cross") / name).read_text(encoding="utf-8")


def _replaced(text: str, pattern: str, line: str) -> str:
    new, count = re.subn(pattern, lambda _: line, text, flags=re.MULTILINE)
    assert count == 1, f"{pattern}: {count} times in the Dockerfile"
    return new


def _quoted(text: str) -> str:
    """Return a text as a Dockerfile takes it between quotation marks, on one line and with no variables."""
    clean = "".join(each if each.isprintable() else " " for each in text)
    return '"' + re.sub(r'(["\\$])', r"\\\1", clean) + '"'


def _require_source(source: str, *, own_base: bool) -> None:
    if without_password(source) != source:
        raise ImageError(
            "an image is no place for a password or a user's name: give --source env:CAMERA, and the address "
            "in the variable CAMERA where it runs"
        )
    if not own_base and re.match("picamera|gst:|.* ! ", source):
        raise ImageError(
            f"the image has nothing to read {source!r} with: take a USB camera (--source 0) or a stream, or "
            "name a base that has it with --base"
        )
    if source.startswith("env:") and not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", source):
        raise ImageError(f"{source!r} names no variable: expected env:NAME, such as env:CAMERA")
    if not source.strip() or not source.isprintable():
        raise ImageError(f"{source!r} is no source: expected a camera's number, an address or env:NAME")


def _is_gpu(engine: str) -> bool:
    return engine.partition(":")[2] in _GPU


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split("."))


def _lines(requirements: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in requirements)
