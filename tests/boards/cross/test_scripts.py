"""The scripts that make a machine ready for Arm, where something is missing: one line, nothing left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from stand_ins.roots import CROSS

BASIC = ("sh", "env", "grep", "sed", "sort", "tr", "tail", "mktemp", "rm", "rmdir", "mkdir", "mv", "cp", "ln")
BASIC += ("dirname", "find", "cat")
PROGRAMS = (
    "qemu-aarch64-static",
    "qemu-arm-static",
    "update-binfmts",
    "mmdebstrap",
    "unshare",
    "buildah",
    "runc",
)


class Machine:
    """A machine that has a few programs, and what is registered with its kernel."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.misc = folder / "bin", folder / "misc"
        self.bin.mkdir()
        self.misc.mkdir()
        for name in BASIC:
            (self.bin / name).symlink_to(shutil.which(name))
        self.has("id", "echo 0")

    def has(self, name: str, does: str = ":") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{does}\n")
        (self.bin / name).chmod(0o755)

    def knows_arm(self) -> None:
        for name in ("qemu-aarch64", "qemu-arm"):
            (self.misc / name).write_text("enabled\ninterpreter /usr/bin/qemu\n")

    def run(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": str(self.bin), "BINFMT_MISC": str(self.misc)}
        words = ("/bin/sh", str(CROSS / script), *words)
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text


def test_what_is_missing_is_said_with_the_command(machine):
    done = machine.run("emulation.sh", "programs", "images")
    assert done.returncode == 1
    said = one_line(done.stdout)
    assert (
        "apt-get install --no-install-recommends binfmt-support buildah mmdebstrap qemu-user-static" in said
    )
    assert "qemu-system-arm" not in said


def test_a_machine_that_has_all_needs_nothing(machine):
    for name in PROGRAMS:
        machine.has(name)
    machine.knows_arm()
    done = machine.run("emulation.sh", "programs", "images")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_kernel_that_forgot_how_to_start_programs_for_arm(machine):
    for name in PROGRAMS:
        machine.has(name)
    done = machine.run("emulation.sh", "programs")
    assert done.returncode == 1
    assert "mount -t binfmt_misc" in one_line(done.stdout)


def test_one_who_is_not_root(machine):
    for name in PROGRAMS:
        machine.has(name)
    machine.knows_arm()
    machine.has("id", "echo 1000")
    done = machine.run("emulation.sh", "programs")
    assert done.returncode == 1
    assert "only root" in one_line(done.stdout)
    done = machine.run("emulation.sh", "--install", "programs")
    assert done.returncode == 1
    assert "only root" in one_line(done.stderr)


def test_a_mirror_that_is_down(machine):
    (machine.misc / "status").touch()
    machine.has("apt-get", 'echo "E: Failed to fetch http://mirror/InRelease"; exit 100')
    done = machine.run("emulation.sh", "--install", "board")
    assert done.returncode == 1
    assert "Failed to fetch http://mirror" in one_line(done.stderr)


@pytest.mark.parametrize("words", [[], ["moon"], ["--install"]], ids=" ".join)
def test_a_part_that_there_is_not(machine, words):
    done = machine.run("emulation.sh", *words)
    assert done.returncode == 2
    one_line(done.stderr)


BASES = {
    "no architecture 'riscv'": ("riscv", "tag"),
    "apt-get install mmdebstrap": ("arm64", "tag"),
}


@pytest.mark.parametrize("why", BASES)
def test_a_base_that_cannot_be_made(machine, why):
    done = machine.run("local_base.sh", *BASES[why])
    assert done.returncode == 1
    assert why in one_line(done.stderr)


def test_a_base_needs_root_and_buildah(machine):
    machine.has("mmdebstrap")
    assert "apt-get install buildah" in one_line(machine.run("local_base.sh", "arm64", "tag").stderr)
    machine.has("id", "echo 1000")
    assert "only root" in one_line(machine.run("local_base.sh", "arm64", "tag").stderr)


def test_a_download_that_fails_leaves_nothing(machine, tmp_path):
    machine.has(
        "mmdebstrap",
        'for word; do case $word in */root) mkdir -p "$word/usr" ;; esac; done; echo "E: no"; exit 25',
    )
    done = machine.run("local_base.sh", "--folder", str(tmp_path / "made" / "root"), "arm64")
    assert done.returncode == 1
    assert one_line(done.stderr) == "local_base.sh: E: no\n"
    assert list((tmp_path / "made").iterdir()) == []


UNPACKED = """
for root; do case $root in */root) break ;; esac; done
mkdir -p "$root/etc/ssl/certs" "$root/usr/share/base-passwd" "$root/usr/share/ca-certificates"
for name in passwd group; do echo "$name" >"$root/usr/share/base-passwd/$name.master"; done
for name in doc/one/copyright doc/one/changelog.gz doc/two/README man/man1/one.1.gz \\
    locale/de/LC_MESSAGES/one.mo locale/locale.alias opencv4/data.xml; do
    mkdir -p "$root/usr/share/$(dirname "$name")"
    echo "$name" >"$root/usr/share/$name"
done
ln -s one "$root/usr/share/doc/three"
ln -s changelog.gz "$root/usr/share/doc/one/NEWS.gz"
"""


def test_a_base_keeps_copyrights_and_no_manuals(machine, tmp_path):
    machine.has("mmdebstrap", UNPACKED)
    done = machine.run("local_base.sh", "--folder", str(tmp_path / "made"), "arm64")
    assert (done.returncode, done.stderr) == (0, "")
    share = tmp_path / "made/usr/share"
    left = {
        str(path.relative_to(share)) for path in share.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    passwords = {"base-passwd/passwd.master", "base-passwd/group.master"}
    assert left - passwords == {"doc/one/copyright", "doc/three", "locale/locale.alias", "opencv4/data.xml"}
    assert (share / "doc/three/copyright").is_file()
    assert not (share / "doc/two").exists()
    assert (tmp_path / "made/etc/passwd").read_text() == "passwd\n"


def test_a_folder_that_is_there_is_not_touched(machine, tmp_path):
    machine.has("mmdebstrap")
    (tmp_path / "root").mkdir()
    done = machine.run("local_base.sh", "--folder", str(tmp_path / "root"), "arm64")
    assert done.returncode == 1
    assert "is there already" in one_line(done.stderr)
