"""docker, podman or buildah: which of them is here, what it can build, and what it says when it cannot."""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boardfit.errors import ImageError

TOOLS = ("docker", "podman", "buildah")

_SHORT_S = 60.0
# Without the last word, podman's engine leaves a container behind.
_PLAIN = ("docker", "build", "--force-rm")
_ARCHES = {"linux/arm64": "arm64", "linux/amd64": "amd64", "linux/arm/v7": "arm"}
_MACHINES = {"x86_64": "linux/amd64", "aarch64": "linux/arm64", "armv7l": "linux/arm/v7"}
_EMULATOR = (
    "no emulator of its processor is registered here: sudo apt install qemu-user-static binfmt-support (in a "
    "virtual machine without it, first: mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc), or build "
    "on a board"
)


@dataclass(frozen=True, slots=True)
class Builder:
    """A program that builds images.

    Attributes:
        name: Of ``TOOLS``.
        buildx: Whether docker has its plug-in; without it, it builds other platforms only where its engine is
            podman's.
    """

    name: str
    buildx: bool = False

    def build_words(
        self, *, platform: str, tag: str, folder: str = ".", arguments: Sequence[str] = ()
    ) -> list[str]:
        """Return the command that builds a context; ``arguments`` are ``NAME=VALUE`` each."""
        words = {
            "docker": ["docker", "buildx", "build", "--load"] if self.buildx else [*_PLAIN],
            # OCI's own format has no health checks.
            "podman": ["podman", "build", "--format", "docker"],
            # Without these two, 1.28 leaves containers behind.
            "buildah": ["buildah", "build", "--format", "docker", "--layers", "--force-rm"],
        }[self.name]
        # Only BuildKit tells the Dockerfile where it is.
        told = [] if self.buildx else ["--build-arg", f"BUILD_PLATFORM={here()}"]
        told += [word for each in arguments for word in ("--build-arg", each)]
        return [*words, "--platform", platform, *told, "--tag", tag, folder]

    def inspect_words(self, image: str) -> list[str]:
        """Return the command that prints the processor of an image that is here."""
        if self.name == "buildah":
            return ["buildah", "inspect", "--type", "image", "--format", "{{.OCIv1.Architecture}}", image]
        return [self.name, "image", "inspect", "--format", "{{.Architecture}}", image]


def here() -> str:
    """Return this machine's platform; what has none of ours takes most laptops' by an emulator."""
    return _MACHINES.get(platform.machine(), "linux/amd64")


def find_builder(wanted: str = "") -> Builder:
    """Return what can build here.

    Args:
        wanted: One of ``TOOLS``; empty for the first that works.

    Raises:
        ImageError: It is not installed, or docker does not reach its engine.
    """
    reasons = []
    for name in (wanted,) if wanted else TOOLS:
        reason = _reason_against(name)
        if not reason:
            return Builder(name, buildx=name == "docker" and _works(["docker", "buildx", "version"]))
        reasons.append(reason)
    if wanted:
        raise ImageError(f"{reasons[0]}; or let another one build: {', '.join(TOOLS)}")
    raise ImageError(
        f"there is nothing to build an image with ({'; '.join(reasons)}): sudo apt install buildah, or "
        "podman, or install Docker with buildx; without --build the folder is written, to be built elsewhere"
    )


def check_base(builder: Builder, base: str, platform: str) -> None:
    """Refuse a base that is here and of another processor, and that could not be fetched in another form.

    Any other base is looked at in the first step of the Dockerfile.

    Raises:
        ImageError: It is of another processor.
    """
    # What was made here has no other form elsewhere.
    if not base.startswith("localhost/"):
        return
    told = _ask(builder.inspect_words(base))
    if told is None:
        raise ImageError(f"{builder.name} has no image {base}")
    if told.strip() != _ARCHES[platform]:
        raise ImageError(
            f"the base {base} is for {told.strip()}, and the board takes {platform}: make or name another one"
        )


def check_emulator(platform: str) -> None:
    """Refuse to build for a processor whose programs do not run here.

    Raises:
        ImageError: They do not, and no emulator is registered.
    """
    if not can_run(platform):
        raise ImageError(f"the image for {platform} runs programs while it is built, and {_EMULATOR}")


def can_run(wanted: str) -> bool:
    """Return whether programs of a platform run on this machine: a tiny one is tried."""
    if here() == wanted:
        return True
    with tempfile.TemporaryDirectory(prefix="boardfit-") as folder:
        program = Path(folder) / "exit"
        program.write_bytes(tiny_program(wanted))
        program.chmod(0o755)
        try:
            return subprocess.run([str(program)], timeout=_SHORT_S, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def tiny_program(platform: str) -> bytes:
    """Return a static program that does nothing but end well.

    An ELF header, one segment and ``exit(0)`` (https://refspecs.linuxfoundation.org/elf/gabi4+).
    """
    if platform == "linux/arm/v7":
        code = struct.pack("<3I", 0xE3A00000, 0xE3A07001, 0xEF000000)  # mov r0, #0; mov r7, #1; svc 0
        base, size = 0x10000, 52 + 32 + len(code)
        ident = b"\x7fELF\x01\x01\x01" + bytes(9)
        # 0x05000400: EABI 5, hard float.
        head = struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, base + 84, 52, 0, 0x05000400, 52, 32, 1, 0, 0, 0)
        return ident + head + struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000) + code
    if platform == "linux/arm64":
        machine = 183
        code = struct.pack("<3I", 0xD2800000, 0xD2800BA8, 0xD4000001)  # mov x0, #0; mov x8, #93; svc 0
    else:
        machine = 62
        code = bytes.fromhex("31ff b83c000000 0f05")  # xor edi, edi; mov eax, 60; syscall
    base, size = 0x400000, 64 + 56 + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


def build(
    builder: Builder,
    folder: Path,
    *,
    platform: str,
    tag: str,
    arguments: Sequence[str] = (),
    on_line: Callable[[str], None] = lambda _: None,
) -> None:
    """Build a context.

    Args:
        builder: The program.
        folder: The context.
        platform: As Docker names it.
        tag: Of the image.
        arguments: ``NAME=VALUE`` each, for the Dockerfile.
        on_line: Gets every line that the program writes.

    Raises:
        ImageError: It fails; the message says why, as far as the program does.
    """
    words = builder.build_words(platform=platform, tag=tag, folder=str(folder), arguments=arguments)
    tail: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            tail.append(line.rstrip())
            on_line(line.rstrip())
    if running.returncode != 0:
        raise ImageError(f"{builder.name} failed: {_why(tail, platform)}")


def _why(said: Sequence[str], platform: str) -> str:
    """Return the reason that stands in a builder's output."""
    for line in reversed(said):
        # At the start of a line, after BuildKit's numbers: builders also show the command that would say it.
        if found := re.match(r"(?:#\d+ )?(?:\d+\.\d+ )?boardfit image: error: (.*)", line):
            return found[1]
    text = "\n".join(said)
    if re.search("exec format error", text, re.IGNORECASE):
        return f"a program for {platform} does not run here, since {_EMULATOR}"
    if "BuildKit" in text and "--mount" in text:
        return "this docker builds without BuildKit: sudo apt install docker-buildx (or docker-buildx-plugin)"
    told = [line for line in said if line.strip()]
    return told[-1].strip() if told else "it does not say why"


def _reason_against(name: str) -> str:
    if shutil.which(name) is None:
        return f"{name} is not installed"
    if name == "docker":
        done = _run(["docker", "version", "--format", "{{.Server.Version}}"])
        if done is None or done.returncode != 0:
            said = (done.stderr if done else "it does not answer").strip().splitlines()
            return f"docker does not reach its engine ({said[-1] if said else 'no reason given'})"
    return ""


def _works(words: Sequence[str]) -> bool:
    done = _run(words)
    return done is not None and done.returncode == 0


def _ask(words: Sequence[str]) -> str | None:
    done = _run(words)
    return done.stdout if done is not None and done.returncode == 0 else None


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SHORT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
