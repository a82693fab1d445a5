"""What the first stage of our Dockerfiles runs: it reads the base of the image, and installs for it.

A copy of this file lies in every build context and is run by the Python of the machine that builds, so it
imports nothing but the standard library. What the base is (processor, Python, C library) is read from its
files; none of its programs is run.
"""

from __future__ import annotations

import argparse
import compileall
import csv
import os
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

OLDEST = (3, 10)
SITE = "/opt/boardfit/site"
"""Where the image has its libraries."""

# e_machine of the ELF header, as wheels name the processor: https://refspecs.linuxfoundation.org/elf/gabi4+
_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l"}
_PLATFORMS = {
    "linux/amd64": "x86_64",
    "linux/arm64": "aarch64",
    "linux/arm64/v8": "aarch64",
    "linux/arm/v7": "armv7l",
}
"""Processors by Docker's TARGETPLATFORM."""

_LOWEST = {"x86_64": 5, "aarch64": 17, "armv7l": 17}
"""Minor versions of the glibc 2 from which on wheels are made (PEP 600)."""

_UNUSED = ("libLiteRtWebGpuAccelerator.so",)
"""Libraries that only an accelerator would load, which our engines do not ask for."""

_TEXTS = ("", ".txt", ".md", ".rst")
_COMMAND = """\
#!/usr/bin/env python3
import sys

from boardfit.cli import entry

sys.exit(entry())
"""

_HEADER = """\
Third-party software in /opt/boardfit/site of this image, with its licences.

OpenCV's wheel carries FFmpeg, under the GNU LGPL 2.1 or later, as shared libraries that can be replaced by
others; its source is at https://ffmpeg.org. numpy's wheel carries OpenBLAS and GCC's runtime libraries. What
the base of the image holds comes with its own notices: of Debian and Ubuntu in /usr/share/doc/*/copyright, of
Python in its library folder (LICENSE.txt).
"""


class StageError(Exception):
    """The image cannot be made; the message is the line to print."""


@dataclass(frozen=True)
class Base:
    """What an image stands on.

    Attributes:
        machine: As wheels name it: ``aarch64``, ``armv7l`` or ``x86_64``.
        python: Major and minor number of its ``python3``.
        glibc: Major and minor number.
    """

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]

    @property
    def platforms(self) -> tuple[str, ...]:
        """Wheel platforms that it takes, the newest first."""
        named = range(self.glibc[1], _LOWEST[self.machine] - 1, -1)
        return (
            *(f"manylinux_2_{minor}_{self.machine}" for minor in named),
            f"manylinux2014_{self.machine}",
            f"linux_{self.machine}",
        )

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.machine}, Python {_dotted(self.python)}, glibc {_dotted(self.glibc)}"


def read_base(root: Path) -> Base:
    """Read what the base is, from its files.

    Args:
        root: Its root folder.

    Raises:
        StageError: It lacks what the runtime needs.
    """
    found = _libc(root)
    if found is None:
        musl = any(root.glob("lib/ld-musl-*"))
        raise StageError(
            f"the base has {'musl' if musl else 'no glibc'}, and OpenCV has no wheel for that: take a base "
            "with glibc, such as python:3.11-slim-bookworm"
        )
    machine, glibc = found
    python = _python(root)
    if python is None:
        raise StageError(
            "the base has no python3 in /usr/local/bin or /usr/bin: take one that has, such as "
            "python:3.11-slim-bookworm"
        )
    if python < OLDEST:
        raise StageError(f"the base has Python {_dotted(python)}: boardfit needs {_dotted(OLDEST)} or newer")
    if not any(_below(root, "lib*", "libstdc++.so.6*")):
        raise StageError("the base has no libstdc++.so.6, which OpenCV and the engines need")
    return Base(machine, python, glibc)


def check(root: Path, platform: str) -> Base:
    """Read the base and compare its processor with the one that the image is built for.

    Args:
        root: Root folder of the base.
        platform: That the image is built for, such as ``linux/arm64``.

    Raises:
        StageError: It is another one, or the base lacks something.
    """
    base = read_base(root)
    wanted = _PLATFORMS.get(platform)
    if wanted is None:
        raise StageError(f"no image can be made for {platform or 'an unnamed platform'}: use --platform")
    if base.machine != wanted:
        raise StageError(
            f"the base is for {base.machine}, and the image is to be for {wanted}: give --build-arg BASE= an "
            f"image of {wanted}"
        )
    if base.python != sys.version_info[:2]:
        print(
            f"note: this stage has Python {_dotted(sys.version_info[:2])}, the base {_dotted(base.python)}: "
            "the image's modules are compiled at each start (give BUILD_BASE the base's version)",
            flush=True,
        )
    return base


def install(base: Base, wanted: Path, target: Path, wheels: Path, *, beside: Sequence[Path] = ()) -> None:
    """Install wheels for the base with this stage's pip.

    Args:
        base: Where they will run.
        wanted: A requirements file; nothing is installed if it names nothing.
        target: Folder, made if absent.
        wheels: Folder with wheels that are taken before those of the package index.
        beside: Folders that the image lays under this one: their packages stay as they are, and what the
            wanted ones declare to need is installed, too.

    Raises:
        StageError: pip fails, or would bring a package of theirs in another form.
    """
    target.mkdir(parents=True, exist_ok=True)
    lines = (line.partition("#")[0].strip() for line in wanted.read_text("utf-8").splitlines())
    if not any(lines):
        return
    words = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-compile", "--progress-bar=off"]
    words += ["--only-binary=:all:", "--implementation", "cp", "--python-version", _dotted(base.python)]
    words += [word for platform in base.platforms for word in ("--platform", platform)]
    words += [] if beside else ["--no-deps"]
    words += ["--find-links", str(wheels), "--target", str(target), "--requirement", str(wanted)]
    if beside:
        pins = target.with_name(f"{target.name}-constraints.txt")
        pins.write_text("".join(f"{each}\n" for each in _pins(beside)), "utf-8")
        words += ["--constraint", str(pins)]
    env = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(words, env=env, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        raise StageError(f"{wanted.name}: {_why(done.stderr, base)}")
    # Programs that name this stage's Python; python3 -m serves.
    shutil.rmtree(target / "bin", ignore_errors=True)
    if beside:
        _leave_to(beside, target, wanted.name)
    else:
        _leave_out(target)
    compile_for(base, target)


def _pins(folders: Sequence[Path]) -> Iterator[str]:
    """Yield what is in some folders as requirements."""
    for info in (each for folder in folders for each in sorted(folder.glob("*.dist-info"))):
        told = HeaderParser().parsestr((info / "METADATA").read_text("utf-8", "replace"))
        yield f"{told['Name']}=={told['Version']}"


def _leave_to(beside: Sequence[Path], target: Path, wanted: str) -> None:
    """Remove packages that other folders have, and refuse files of theirs in another form."""
    there = {info.name for folder in beside for info in folder.glob("*.dist-info")}
    for info in [each for each in target.glob("*.dist-info") if each.name in there]:
        for path in _recorded(info):
            if ".." not in path.parts:
                path.unlink(missing_ok=True)
        shutil.rmtree(info)
    for path in (each for each in target.rglob("*") if each.is_file()):
        name = path.relative_to(target)
        for other in (folder / name for folder in beside if (folder / name).is_file()):
            if other.read_bytes() != path.read_bytes():
                raise StageError(
                    f"{wanted} brings another {name.parts[0]} than the runtime's, by another package: leave "
                    "it out (OpenCV is there, as opencv-python-headless)"
                )


def _leave_out(target: Path) -> None:
    """Remove what the runtime never touches: a tenth of what numpy, OpenCV and an engine take."""
    for path in [*target.rglob("tests"), *(each for name in _UNUSED for each in target.rglob(name))]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _why(said: str, base: Base) -> str:
    if "No module named pip" in said:
        return "the Python of this stage has no pip: give BUILD_BASE another image"
    if "ResolutionImpossible" in said:
        return "pip finds no versions that go together, the runtime's as they are (see above)"
    if re.search("connection|name resolution|timed out|SSLError|No route", said, re.IGNORECASE):
        return (
            "the package index cannot be reached: is there a network? (--build-arg PIP_INDEX_URL and "
            "PIP_CERT name another index; README.md tells how to do without)"
        )
    missing = re.search("No matching distribution found for (.+)", said)
    what = f"no wheel of {missing[1].strip()}" if missing else "pip failed"
    return f"{what} for {base.text}; put one into the folder wheels"


def compile_for(base: Base, target: Path) -> None:
    """Compile what is in a folder, if this Python is of the base's version.

    The image's root may be read-only, and times of files may change on the way: the compiled files are taken
    unchecked (PEP 552).
    """
    if sys.version_info[:2] != base.python:
        return
    compileall.compile_dir(
        target,
        quiet=2,
        force=True,
        stripdir=str(target),
        prependdir=SITE,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=0,
    )


def unpack(base: Base, archive: Path, target: Path, command: Path) -> None:
    """Unpack boardfit itself, and write the program that starts it."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(target)
    compile_for(base, target)
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(_COMMAND, "utf-8")
    command.chmod(0o755)


def notices(folders: Sequence[Path]) -> str:
    """Return the licences of every package in some folders, as one text."""
    parts = [_HEADER]
    for info in sorted(each for folder in folders for each in folder.glob("*.dist-info")):
        told = HeaderParser().parsestr((info / "METADATA").read_text("utf-8", "replace"))
        licence = told["License-Expression"] or _first_line(told["License"]) or _classified(told)
        place = told["Home-page"] or next(iter(told.get_all("Project-URL", [])), "")
        parts.append("=" * 100 + f"\n{told['Name']} {told['Version']}: {licence}\n{place}\n")
        for path in _licence_files(info):
            parts.append(
                f"--- {path.relative_to(info.parent)}\n\n{path.read_text('utf-8', 'replace').strip()}\n"
            )
    return "\n".join(parts)


def _licence_files(info: Path) -> Iterator[Path]:
    """Yield a package's files of licences, wherever it has them, each text once."""
    seen = set()
    for path in sorted({*info.rglob("*"), *_recorded(info)}):
        if re.search(r"licen[cs]e|copying|notice", path.name, re.IGNORECASE) and path.is_file():
            text = path.read_bytes()
            if path.suffix.lower() in _TEXTS and text not in seen:
                seen.add(text)
                yield path


def _recorded(info: Path) -> list[Path]:
    """Return the files that a package says it has."""
    if not (info / "RECORD").is_file():
        return []
    rows = csv.reader((info / "RECORD").read_text("utf-8", "replace").splitlines())
    return [info.parent / row[0] for row in rows if row]


def _first_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _classified(told: Message) -> str:
    found = [each for each in told.get_all("Classifier", []) if each.startswith("License ::")]
    return found[0].rpartition("::")[2].strip() if found else "see its home page"


def _libc(root: Path) -> tuple[str, tuple[int, int]] | None:
    """Return the processor and the version of the C library."""
    for path in _below(root, "lib*", "libc.so.6"):
        data = path.read_bytes()
        version = re.search(rb"GNU C Library .*?version (\d+)\.(\d+)", data)
        machine = _MACHINES.get(struct.unpack_from("<H", data, 18)[0]) if data[:4] == b"\x7fELF" else None
        if version and machine:
            return machine, (int(version[1]), int(version[2]))
    return None


def _below(root: Path, folders: str, name: str) -> Iterator[Path]:
    """Yield files of a name in the library folders and in those of Debian's kind below them."""
    for pattern in (f"{folders}/{name}", f"{folders}/*-linux-gnu*/{name}"):
        for start in (root, root / "usr", root / "usr/local"):
            yield from (path for path in sorted(start.glob(pattern)) if path.is_file())


def _python(root: Path) -> tuple[int, int] | None:
    """Return the version of the first ``python3`` on the usual path."""
    for folder in (root / "usr/local/bin", root / "usr/bin"):
        link = folder / "python3"
        named = [str(link.readlink())] if link.is_symlink() else []
        named += sorted(path.name for path in folder.glob("python3.*"))
        for name in named:
            found = re.fullmatch(r"(?:.*/)?python(\d+)\.(\d+)", name)
            if found:
                return int(found[1]), int(found[2])
    return None


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(str(each) for each in numbers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "install", "unpack"):
        command = commands.add_parser(name)
        command.add_argument("--base", type=Path, required=True)
        if name == "check":
            command.add_argument("--platform", required=True)
            continue
        command.add_argument("source", type=Path)
        command.add_argument("--to", type=Path, required=True)
        if name == "install":
            command.add_argument("--wheels", type=Path, required=True)
            command.add_argument("--beside", type=Path, nargs="+", default=[])
        else:
            command.add_argument("--command", type=Path, required=True, dest="program")
    told = commands.add_parser("notices")
    told.add_argument("folders", type=Path, nargs="+")
    told.add_argument("--to", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do one step; return 1 after one line on stderr where it cannot be done."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "check":
            print(f"base: {check(args.base, args.platform).text}", flush=True)
        elif args.command == "install":
            base = read_base(args.base)
            install(base, args.source, args.to, args.wheels, beside=args.beside)
        elif args.command == "unpack":
            unpack(read_base(args.base), args.source, args.to, args.program)
        else:
            args.to.mkdir(parents=True, exist_ok=True)
            (args.to / "THIRD-PARTY-NOTICES.txt").write_text(notices(args.folders), "utf-8")
    except (StageError, OSError) as error:
        print(f"boardfit image: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
