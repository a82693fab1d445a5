"""The first stage of our Dockerfiles, run here as it is run there: as a file, by any Python with pip."""

from __future__ import annotations

import importlib.util
import marshal
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from boardfit.boards.cross import stage
from boardfit.boards.remote.package import pack_package

SCRIPT = Path(stage.__file__)
HERE = sys.version_info[:2]
ELF = {"x86_64": 62, "aarch64": 183, "armv7l": 40}
DEBIAN = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "armv7l": "arm-linux-gnueabihf"}


def plant_base(
    root: Path, *, machine: str = "aarch64", python: str = "3.11", glibc: str = "2.36", stdcpp: bool = True
) -> Path:
    """Make the few files of a base that are looked at."""
    libraries = root / "usr/lib" / DEBIAN[machine]
    libraries.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    head = b"\x7fELF" + bytes(14) + struct.pack("<H", ELF[machine])
    version = f"GNU C Library (Debian GLIBC {glibc}-9+deb12u9) stable release version {glibc}.\n"
    (libraries / "libc.so.6").write_bytes(head + b"\0code\0" + version.encode())
    if stdcpp:
        (libraries / "libstdc++.so.6").write_bytes(b"")
    programs = root / "usr/bin"
    programs.mkdir(parents=True)
    if python:
        (programs / f"python{python}").write_bytes(b"")
        (programs / "python3").symlink_to(f"python{python}")
    return root


def make_wheel(folder: Path, tag: str, *, name: str = "tiny", needs: str = "") -> Path:
    """Write a wheel with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "def answer():\n    return 42\n")
        told = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n"
        archive.writestr(f"{info}/METADATA", told + (f"Requires-Dist: {needs}\n" if needs else ""))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
    return path


def run_stage(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull, **env},
    )


def check(base: Path, platform: str = "linux/arm64") -> subprocess.CompletedProcess[str]:
    return run_stage("check", "--base", base, "--platform", platform)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("platform", "machine"),
    [("linux/arm64", "aarch64"), ("linux/arm/v7", "armv7l"), ("linux/amd64", "x86_64")],
)
def test_a_base_of_the_right_processor_is_taken(tmp_path, platform, machine):
    done = check(plant_base(tmp_path, machine=machine), platform)
    assert done.returncode == 0, done.stderr
    assert f"base: {machine}, Python 3.11, glibc 2.36" in done.stdout


def test_a_base_of_another_processor_is_refused(tmp_path):
    done = check(plant_base(tmp_path, machine="x86_64"))
    assert "the base is for x86_64, and the image is to be for aarch64" in error_of(done)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("platform", ["", "linux/s390x"])
def test_an_unknown_processor_is_refused(tmp_path, platform):
    assert "no image can be made for" in error_of(check(plant_base(tmp_path), platform))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"python": ""}, "the base has no python3"),
        ({"python": "3.8"}, "the base has Python 3.8: boardfit needs 3.10"),
        ({"stdcpp": False}, "no libstdc++.so.6"),
    ],
    ids=["no python", "old python", "no libstdc++"],
)
def test_what_a_base_lacks_is_named(tmp_path, given, said):
    assert said in error_of(check(plant_base(tmp_path, **given)))


def test_musl_and_an_empty_base_are_named(tmp_path):
    assert "no glibc" in error_of(check(tmp_path))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ld-musl-aarch64.so.1").write_bytes(b"")
    assert "the base has musl" in error_of(check(tmp_path))


def test_this_machine_as_a_base_is_what_it_is():
    found = stage.read_base(Path("/"))
    assert found.machine == os.uname().machine
    assert found.glibc == tuple(int(each) for each in os.confstr("CS_GNU_LIBC_VERSION").split()[1].split("."))


def test_a_python_of_the_base_s_own_comes_before_the_distribution_s(tmp_path):
    root = plant_base(tmp_path, python="3.11")
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/python3.13").write_bytes(b"")
    (root / "usr/local/bin/python3").symlink_to("python3.13")
    assert stage.read_base(root).python == (3, 13)


def test_platforms_begin_with_the_base_s_own_glibc(tmp_path):
    platforms = stage.read_base(plant_base(tmp_path, glibc="2.31")).platforms
    assert platforms[0] == "manylinux_2_31_aarch64"
    assert "manylinux_2_34_aarch64" not in platforms
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64"} <= set(platforms)


@pytest.fixture
def room(tmp_path):
    """A base for 64-bit Arm with this Python's version, a folder of wheels, and a list of what is wanted."""
    base = plant_base(tmp_path / "base", python="{}.{}".format(*HERE))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "wanted.txt").write_text("tiny  # of a board\n")
    return tmp_path, base, wheels


def install(room, **env: str) -> subprocess.CompletedProcess[str]:
    folder, base, wheels = room
    given = {"PIP_NO_INDEX": "1", **env}
    words = ("--base", base, "--wheels", wheels, "--to", folder / "out")
    return run_stage("install", folder / "wanted.txt", *words, **given)


def install_beside(room, *beside: Path) -> subprocess.CompletedProcess[str]:
    """Install what an app needs, over the folders of the runtime."""
    folder, base, wheels = room
    words = ("--base", base, "--wheels", wheels, "--to", folder / "app", "--beside", *beside)
    return run_stage("install", folder / "wanted.txt", *words, PIP_NO_INDEX="1")


def test_a_wheel_of_the_base_s_processor_is_installed_and_compiled_unchecked(room):
    folder, _, wheels = room
    make_wheel(wheels, f"cp{HERE[0]}{HERE[1]}-none-manylinux_2_28_aarch64")
    done = install(room)
    assert done.returncode == 0, done.stderr
    compiled = Path(importlib.util.cache_from_source(str(folder / "out/tiny.py")))
    # PEP 552: the flags say "by hash" and "do not check", so that a changed time does no harm.
    assert struct.unpack_from("<I", compiled.read_bytes(), 4)[0] == 0b01
    assert marshal.loads(compiled.read_bytes()[16:]).co_filename == "/opt/boardfit/site/tiny.py"
    # The source is not looked at any more: the root may be read-only, and a layer may change times.
    (folder / "out/tiny.py").write_text("def answer():\n    return 0\n")
    asked = "import tiny; print(tiny.answer())"
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=folder / "out", capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "42"


def test_for_another_python_nothing_is_compiled(room):
    folder, base, wheels = room
    (base / "usr/bin/python3").unlink()
    (base / "usr/bin/python3").symlink_to("python3.99")
    make_wheel(wheels, "cp399-none-manylinux_2_28_aarch64")
    done = install(room)
    assert done.returncode == 0, done.stderr
    assert (folder / "out/tiny.py").is_file()
    assert not list((folder / "out").rglob("*.pyc"))
    checked = check(base)
    assert checked.returncode == 0
    assert "compiled at each start" in checked.stdout


@pytest.mark.parametrize("tag", ["manylinux_2_28_x86_64", "manylinux_2_39_aarch64"])
def test_a_wheel_for_another_processor_or_a_newer_glibc_is_not_taken(room, tag):
    make_wheel(room[2], f"cp{HERE[0]}{HERE[1]}-none-{tag}")
    said = error_of(install(room))
    assert "no wheel of tiny for aarch64" in said
    assert "glibc 2.36" in said


def test_what_the_runtime_never_touches_is_left_out_of_libraries_but_not_of_an_app_s(room):
    folder, _, wheels = room
    path = make_wheel(wheels, f"cp{HERE[0]}{HERE[1]}-none-manylinux_2_28_aarch64")
    unused = ("some/tests/test_some.py", "some/libLiteRtWebGpuAccelerator.so")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("some/__init__.py", *unused):
            archive.writestr(name, "")
    assert install(room).returncode == 0
    assert not any((folder / "out" / name).exists() for name in unused)
    assert (folder / "out/some/__init__.py").is_file()
    assert install_beside(room, folder / "nothing").returncode == 0
    assert all((folder / "app" / name).exists() for name in unused)


def test_dependencies_are_taken_only_if_asked(room):
    folder, _, wheels = room
    tag = f"cp{HERE[0]}{HERE[1]}-none-manylinux_2_28_aarch64"
    make_wheel(wheels, tag, needs="other")
    make_wheel(wheels, tag, name="other")
    assert install(room).returncode == 0
    assert not (folder / "out/other.py").exists()
    done = install_beside(room, folder / "nothing")
    assert done.returncode == 0, done.stderr
    assert (folder / "app/other.py").is_file()


@pytest.fixture
def runtime(room) -> Path:
    """A folder that holds the runtime's ``tiny``; an app is to need ``mine``, which needs ``tiny``."""
    folder, _, wheels = room
    tag = f"cp{HERE[0]}{HERE[1]}-none-manylinux_2_28_aarch64"
    make_wheel(wheels, tag)
    assert install(room).returncode == 0
    make_wheel(wheels, tag, name="mine", needs="tiny")
    (folder / "wanted.txt").write_text("mine\n")
    return folder / "out"


def test_what_the_runtime_has_is_not_brought_again_by_an_app(room, runtime):
    done = install_beside(room, runtime)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (room[0] / "app").rglob("*.py")} == {"mine.py"}
    told = run_stage("notices", runtime, room[0] / "app", "--to", room[0] / "notices")
    assert told.returncode == 0, told.stderr
    text = (room[0] / "notices/THIRD-PARTY-NOTICES.txt").read_text()
    assert [text.count(f"{name} 1.0: MIT") for name in ("tiny", "mine")] == [1, 1]


def test_an_app_cannot_ask_another_version_than_the_runtime_s(room, runtime):
    (room[0] / "wanted.txt").write_text("mine\ntiny!=1.0\n")
    assert "no versions that go together, the runtime's as they are" in error_of(
        install_beside(room, runtime)
    )


def test_an_app_cannot_lay_another_package_over_the_runtime_s(room, runtime):
    """As opencv-python's cv2 over that of opencv-python-headless."""
    path = make_wheel(room[2], f"cp{HERE[0]}{HERE[1]}-none-manylinux_2_28_aarch64", name="mine")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("tiny.py", "another")
    assert "brings another tiny.py than the runtime's" in error_of(install_beside(room, runtime))


def test_without_a_network_one_line_says_so(room):
    done = install(room, PIP_NO_INDEX="", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="1")
    assert "the package index cannot be reached" in error_of(done)


def test_packages_that_do_not_go_together_are_no_missing_network(room):
    folder, _, wheels = room
    tag = f"cp{HERE[0]}{HERE[1]}-none-manylinux_2_28_aarch64"
    make_wheel(wheels, tag, needs="other>=2")
    make_wheel(wheels, tag, name="other")
    (folder / "wanted.txt").write_text("tiny\nother==1.0\n")
    done = install_beside(room, folder / "nothing")
    assert "finds no versions that go together" in error_of(done)


def test_nothing_wanted_installs_nothing_and_asks_nobody(room):
    folder = room[0]
    (folder / "wanted.txt").write_text("\n# nothing\n")
    done = install(room, PIP_NO_INDEX="", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert done.returncode == 0
    assert list((folder / "out").iterdir()) == []


def test_our_own_package_and_its_program_are_unpacked(room):
    folder, base, _ = room
    pack_package(folder / "boardfit.zip")
    words = ("--base", base, "--to", folder / "out", "--command", folder / "bin/boardfit")
    done = run_stage("unpack", folder / "boardfit.zip", *words)
    assert done.returncode == 0, done.stderr
    assert not (folder / "out/boardfit/boards/cross").exists()
    told = subprocess.run(
        [sys.executable, folder / "bin/boardfit", "--version"],
        env={"PYTHONPATH": str(folder / "out"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("boardfit ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["image", "x", "--board", "raspberry-pi-5", "-o", "y"],
            "boardfit image needs boardfit.boards.cross, which is left out on boards: type this on a laptop "
            "or server with all of boardfit (pip install 'boardfit')",
        ),
        (
            ["build", "x.keras", "--images", "photos", "-o", "y"],
            "boardfit build needs boardfit.converters, which is left out on boards: type this on a laptop or "
            "server with all of boardfit (pip install 'boardfit[convert]'), and copy the bundle here",
        ),
        (
            ["inspect", "x.keras"],
            "server with all of boardfit (pip install 'boardfit[convert]')",
        ),
    ],
    ids=["image", "build", "inspect"],
)
def test_what_is_left_out_of_it_is_told_in_one_line(words, message, tmp_path):
    import numpy as np

    pack_package(tmp_path / "boardfit.zip")
    with zipfile.ZipFile(tmp_path / "boardfit.zip") as archive:
        archive.extractall(tmp_path / "out")
    # Without -S, an editable install of boardfit would fill in what is left out.
    told = subprocess.run(
        [sys.executable, "-S", "-m", "boardfit", *words],
        env={"PYTHONPATH": f"{tmp_path / 'out'}:{Path(np.__file__).parents[1]}", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith("boardfit: error: ") and line.endswith(message)


def test_notices_hold_every_licence_that_a_package_carries(tmp_path):
    spec = importlib.util.find_spec("cv2")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parents[1]
    pack_package(tmp_path / "boardfit.zip")
    with zipfile.ZipFile(tmp_path / "boardfit.zip") as archive:
        archive.extractall(tmp_path / "own")
    done = run_stage("notices", site, tmp_path / "own", "--to", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out/THIRD-PARTY-NOTICES.txt").read_text("utf-8")
    assert "opencv-python-headless" in text
    assert "FFmpeg is redistributed within" in text
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in text
    assert "OpenBLAS" in text
    assert "ThirdPartyNotices.txt" in text  # ONNX Runtime keeps its own outside of its dist-info
    assert "\nboardfit 0.1.0: Apache-2.0\n" in text
    assert "Apache License" in text.partition("boardfit 0.1.0")[2][:400]
