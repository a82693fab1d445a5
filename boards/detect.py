"""Where are we? Recognises the board by what its system says of itself."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardfit.boards.cpuinfo import CpuInfo, parse_cpuinfo
from boardfit.boards.profile import Profile, profiles
from boardfit.boards.system import Ask, ask_tool, read_kilobytes, read_text, read_words
from boardfit.errors import BoardError

_FAMILIES = {"aarch64": "arm", "x86_64": "x86", "i686": "x86", "i386": "x86"}


@dataclass(frozen=True, slots=True)
class Board:
    """The machine that this runs on.

    Attributes:
        profile: What is known of boards of its kind.
        model: What it calls itself; empty where it does not.
        cpu: Model of the processor, such as ``4 x Cortex-A72``.
        cores: Cores that the process may use.
        instructions: Of ``INSTRUCTION_SETS``, those that every core has.
        machine: Of the kernel, such as ``aarch64``.
        bits: Of this interpreter: 32 on many a 64-bit kernel of a Raspberry Pi.
        memory_bytes: Of the machine; None where it does not tell.
        os_name: Of the distribution or Android; empty where it does not tell.
        kernel: Release of the kernel; empty where it does not tell.
        emulation: By what the processor was seen to be emulated; empty where nothing tells.
    """

    profile: Profile
    model: str
    cpu: str
    cores: int
    instructions: tuple[str, ...]
    machine: str
    bits: int
    memory_bytes: int | None
    os_name: str
    kernel: str
    emulation: str = ""

    @property
    def emulated(self) -> bool:
        """Whether the processor is seen to be emulated: its times are never shown as a board's."""
        return bool(self.emulation)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, the profile by its name."""
        names = (name for name in self.__dataclass_fields__ if name != "profile")
        return {
            "board": self.profile.name,
            "title": self.profile.title,
            **{name: getattr(self, name) for name in names},
            "emulated": self.emulated,
        }


@dataclass(frozen=True, slots=True)
class _Facts:
    """What recognition looks at."""

    machine: str
    compatible: tuple[str, ...]
    models: tuple[str, ...]
    properties: Mapping[str, str]
    cpu: CpuInfo


def detect(root: Path = Path("/"), *, ask: Ask = ask_tool, machine: str | None = None) -> Board:
    """Return where we are.

    Args:
        root: Folder that holds ``proc`` and ``sys``.
        ask: Runs a tool, such as ``getprop``.
        machine: As ``uname -m`` tells; this system's own if None.

    Raises:
        BoardError: There is not even a profile for this kind of processor, or one is damaged.
    """
    machine = machine or os.uname().machine
    properties = parse_getprop(ask(["getprop"]) or "")
    cpu = parse_cpuinfo(read_text(root / "proc/cpuinfo") or "")
    tree = root / "proc/device-tree"
    words = (read_text(tree / "model") or "").rstrip("\0"), cpu.board
    models = tuple(word for word in words if word)
    facts = _Facts(machine, read_words(tree / "compatible"), models, properties, cpu)
    profile = _recognise(facts)
    return Board(
        profile=profile,
        model=models[0] if models else _phone(properties) or _pc(root),
        cpu=cpu.name,
        cores=_usable_cores(root) or cpu.cores or os.cpu_count() or 1,
        instructions=cpu.instructions,
        machine=machine,
        bits=8 * struct.calcsize("P"),
        memory_bytes=read_kilobytes(root / "proc/meminfo").get("MemTotal"),
        os_name=_os_name(root, properties),
        kernel=read_text(root / "proc/sys/kernel/osrelease") or "",
        emulation=_emulation(root, facts, profile),
    )


def _recognise(facts: _Facts) -> Profile:
    """Return the profile that fits best: the most special mark wins.

    Raises:
        BoardError: None fits.
    """
    best = max(profiles(), key=lambda profile: _rank(profile, facts))
    if _rank(best, facts) < (0, 0):
        raise BoardError(
            f"no board profile fits a machine {facts.machine!r}: boardfit boards lists those that there are"
        )
    return best


def _rank(profile: Profile, facts: _Facts) -> tuple[int, int]:
    """Return how special the mark is by which a profile fits; below (0, 0) if it does not fit."""
    mark = profile.recognition
    for position, word in enumerate(facts.compatible):  # from the board to the kind of chip
        if word in mark.compatible:
            return 4, -position
    for model in facts.models:
        lengths = [len(begin) for begin in mark.model if model.startswith(begin)]
        if lengths:
            return 3, max(lengths)
    for name, values in mark.properties.items():
        if name in facts.properties and (facts.properties[name] in values or not values):
            return (2 if values else 1), 0
    # An armv8l is an Arm of 64 bits that runs a program of 32.
    machine = "armv7l" if facts.machine == "armv8l" else facts.machine
    return (0, 0) if mark.generic and mark.machine == machine else (-1, 0)


def parse_getprop(text: str) -> dict[str, str]:
    """Return Android's properties from the lines ``[name]: [value]``."""
    return dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\]$", text, flags=re.MULTILINE))


def _emulation(root: Path, facts: _Facts, profile: Profile) -> str:
    """Return by what the processor is seen to be emulated; a hypervisor runs on the processor itself."""
    family = _family(facts.machine)
    kernel = read_text(root / "proc/sys/kernel/arch") or ""  # since Linux 6.1
    if "linux,dummy-virt" in facts.compatible:
        return "the device tree is that of qemu's machine (linux,dummy-virt)"
    if kernel and _family(kernel) != family:
        return f"the kernel is one for {kernel}, uname says {facts.machine}"
    if facts.cpu.family and facts.cpu.family != family:
        return f"/proc/cpuinfo tells of {facts.cpu.name}, uname says {facts.machine}"
    # Only kernels for x86 write this line (and s390 and PowerPC, which boardfit does not know).
    if family == "arm" and "DirectMap4k" in read_kilobytes(root / "proc/meminfo"):
        return f"/proc/meminfo is that of an x86 kernel, uname says {facts.machine}"
    if facts.cpu.model_name.startswith("QEMU TCG"):
        return f"the processor calls itself {facts.cpu.model_name}"
    return _wrong_design(facts, profile)


def _wrong_design(facts: _Facts, profile: Profile) -> str:
    known = {(each.implementer, each.part) for each in profile.clusters if each.part is not None}
    strange = [design for design in facts.cpu.designs if known and design not in known]
    if not strange:
        return ""
    cpus = ", ".join(each.cpu for each in profile.clusters)
    return f"/proc/cpuinfo tells of {facts.cpu.name}, a {profile.title} has {cpus}"


def _family(machine: str) -> str:
    return "arm" if machine.startswith("arm") else _FAMILIES.get(machine, machine)


def _usable_cores(root: Path) -> int:
    text = read_text(root / "proc/self/status") or ""
    found = re.search(r"^Cpus_allowed_list:\s*([\d,-]+)$", text, flags=re.MULTILINE)
    total = 0
    for first, last in re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", found[1]) if found else ():
        total += int(last or first) - int(first) + 1
    return max(total, 0)


def _os_name(root: Path, properties: Mapping[str, str]) -> str:
    if release := properties.get("ro.build.version.release"):
        return f"Android {release}"
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    found = re.search(r"^PRETTY_NAME=[\"']?([^\"'\n]*)", text, flags=re.MULTILINE)
    return found[1] if found else ""


def _phone(properties: Mapping[str, str]) -> str:
    words = (properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", ""))
    return " ".join(word for word in words if word)


def _pc(root: Path) -> str:
    return read_text(root / "sys/class/dmi/id/product_name") or ""
