"""Reads ``/proc/cpuinfo`` of Arm and x86."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boardfit.boards.sections import INSTRUCTION_SETS

# Linux, arch/arm64/include/asm/cputype.h and arch/arm/include/asm/cputype.h.
_ARM_PARTS = {
    **{0xC05: "Cortex-A5", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15"},
    **{0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57"},
    **{0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76"},
    **{0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78"},
    **{0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710"},
    **{0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715"},
    **{0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720"},
}
_DESIGNS = {
    **{(0x41, part): name for part, name in _ARM_PARTS.items()},
    (0x4E, 0x003): "NVIDIA Denver",
    (0x4E, 0x004): "NVIDIA Carmel",
}
_FLAGS = {
    "neon": ("asimd", "neon"),
    "fp16": ("asimdhp",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
    "sve": ("sve",),
    "sse4.2": ("sse4_2",),
    "avx": ("avx",),
    "avx2": ("avx2",),
    "avx512f": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
}


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """What the kernel tells of the processor.

    Attributes:
        family: ``arm``, ``x86``, or empty where the text tells neither.
        model_name: Line ``model name`` of the first core.
        board: Line ``Model``, which kernels of the Raspberry Pi write.
        designs: Implementer and part of each core, of Arm's.
        cores: How many are listed.
        instructions: Of ``INSTRUCTION_SETS``, those that every core has.
    """

    family: str
    model_name: str
    board: str
    designs: tuple[tuple[int, int], ...]
    cores: int
    instructions: tuple[str, ...]

    @property
    def name(self) -> str:
        """Model of the processor for people, such as ``4 x Cortex-A72``."""
        if not self.designs:
            return self.model_name or "unknown processor"
        names = [_design_name(*design) for design in self.designs]
        return " + ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def parse_cpuinfo(text: str) -> CpuInfo:
    """Return what the text tells; empty fields where it tells nothing."""
    lines = [
        (key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in text.splitlines())
    ]
    flags = [frozenset(value.split()) for key, value in lines if key in ("Features", "flags")]
    arm, x86 = (any(key == mark for key, _ in lines) for mark in ("CPU implementer", "vendor_id"))
    implementers, parts = _numbers(lines, "CPU implementer"), _numbers(lines, "CPU part")
    # 32-bit kernels give each core a number, and some list "Processor" once above.
    cores = sum(1 for key, value in lines if key == "processor" and value.isdecimal())
    common = frozenset.intersection(*flags) if flags else frozenset()
    return CpuInfo(
        family="arm" if arm else "x86" if x86 else "",
        model_name=next((value for key, value in lines if key == "model name"), ""),
        board=next((value for key, value in lines if key == "Model"), ""),
        designs=tuple(zip(implementers, parts, strict=False)),
        cores=cores,
        instructions=tuple(word for word in INSTRUCTION_SETS if common.intersection(_FLAGS[word])),
    )


def _numbers(lines: Sequence[tuple[str, str]], name: str) -> list[int]:
    found = []
    for key, value in lines:
        if key == name:
            try:
                found.append(int(value, 0))
            except ValueError:
                found.append(-1)
    return found


def _design_name(implementer: int, part: int) -> str:
    return _DESIGNS.get((implementer, part), f"implementer {implementer:#x} part {part:#x}")
