"""Root file systems for Arm, and programs that run in them on an emulated processor of a known model.

Times that are measured in them are times of an emulator.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

CROSS = Path(__file__).resolve().parents[3] / "boards" / "cross"

A53 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
A7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
# Features, then variant, part and revision, as /proc/cpuinfo of a Raspberry Pi 3, 4 and 5 (and a Pi 2) shows
# them; max is what qemu calls all that it can.
MODELS = {
    "cortex-a53": (A53, "0x0", "0xd03", 4),
    "cortex-a72": (A53, "0x0", "0xd08", 3),
    "cortex-a76": (A76, "0x4", "0xd0b", 1),
    "max": (f"{A76} sve sve2 i8mm bf16", "0x0", "0x051", 0),
    "cortex-a7": (A7, "0x0", "0xc07", 5),
    "cortex-a15": (A7, "0x2", "0xc0f", 1),
}


def lacking(*parts: str) -> str:
    """What this machine lacks for ``programs``, ``images`` or a ``board``, in a line; empty if nothing."""
    words = [str(CROSS / "emulation.sh"), *parts]
    done = subprocess.run(words, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stdout or done.stderr).strip()


def make_root(folder: Path, packages: Sequence[str] = (), *, arch: str = "arm64") -> Path:
    """Unpack Debian; no maintainer script runs, so it takes seconds."""
    words = [str(CROSS / "local_base.sh"), "--folder", str(folder)]
    words += ["--packages", ",".join(packages)] if packages else []
    done = subprocess.run([*words, arch], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return folder


def write_cpuinfo(path: Path, model: str = "cortex-a72", *, board: str = "") -> Path:
    """Write what a board with this processor, and as many cores as there are here, shows as /proc/cpuinfo."""
    features, variant, part, revision = MODELS[model]
    architecture = 7 if features == A7 else 8
    core = f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
    core += f"CPU architecture: {architecture}\nCPU variant\t: {variant}\nCPU part\t: {part}\n"
    core += f"CPU revision\t: {revision}\n\n"
    text = "".join(f"processor\t: {number}\n{core}" for number in range(os.cpu_count() or 1))
    path.write_text(text + board)
    return path


RASPBERRY_PI_4B = "Revision\t: c03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n"

# The machine's own /proc/cpuinfo beside a visible /sys makes engines crash under qemu-user 7.2. What is
# mounted here is seen by this process and its children only, and goes with them.
ENTER = """
mount --make-rprivate /
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t proc proc "$0/proc"
mount --bind "$1" "$0/proc/cpuinfo"
mount -t sysfs sys "$0/sys"
mount -t tmpfs tmp "$0/tmp"
root=$0 user=$2
shift 2
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    shift 2
done
shift
cd "$root"
exec chroot --userspec="$user" . "$@"
"""


def run_in(
    root: Path,
    words: Sequence[str],
    *,
    cpuinfo: Path,
    mounts: Mapping[str, Path] | None = None,
    env: Mapping[str, str] | None = None,
    user: str = "0:0",
    timeout_s: float = 900.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program in a root file system, on the processor that ``cpuinfo`` shows: its name says which.

    Only ``/tmp`` and what is mounted can be written to.

    Args:
        root: Of any architecture that binfmt_misc knows.
        words: The program and its arguments.
        cpuinfo: Written by ``write_cpuinfo``, and named after the model.
        mounts: Folders by the path where they are seen inside.
        env: Variables; none of this process's are seen inside.
        user: Numbers of the user and the group.
        timeout_s: Of the whole run.
    """
    bound = []
    for inside, folder in (mounts or {}).items():
        (root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)
        bound += [str(folder), inside]
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", ENTER, str(root), str(cpuinfo), user, *bound, "--", *words],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "QEMU_CPU": cpuinfo.name, **(env or {})},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
    )
