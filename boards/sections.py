"""The sections of a board's profile. Each knows its own rules and says in a sentence what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from boardfit.errors import BoardError
from boardfit.specs import PRECISIONS

INSTRUCTION_SETS = (
    "neon",
    "fp16",
    "dotprod",
    "i8mm",
    "bf16",
    "sve",
    "sse4.2",
    "avx",
    "avx2",
    "avx512f",
    "vnni",
)
"""Those that make a difference to an engine: Arm's, then x86's."""

MACHINES = ("aarch64", "armv7l", "x86_64")
THROTTLING = ("vcgencmd", "cooling", "none")
POWER = ("ina3221", "pmic", "battery", "none")


@dataclass(frozen=True, slots=True)
class Recognition:
    """How a board is told from others. One matching word is enough; the more special key counts more.

    Attributes:
        compatible: Words of ``/proc/device-tree/compatible``.
        model: Beginnings of the device tree's model, or of the line ``Model`` of ``/proc/cpuinfo``.
        properties: Values by Android property, such as ``ro.soc.model``.
        machine: What ``uname -m`` must say.
        sources: Keys of the profile's sources.
    """

    machine: str
    compatible: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    properties: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("machine", self.machine, MACHINES)

    @property
    def generic(self) -> bool:
        """Whether only the kind of processor is known: for all boards that have no profile."""
        return not (self.compatible or self.model or self.properties)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        cpu: Name of the design, such as ``Cortex-A72``.
        cores: How many.
        first_core: Number of the first one in Linux; the others follow it.
        max_hz: Highest clock.
        implementer: ``CPU implementer`` of ``/proc/cpuinfo``.
        part: ``CPU part`` of ``/proc/cpuinfo``.
        sources: Keys of the profile's sources.
    """

    cpu: str
    cores: int
    first_core: int
    max_hz: float
    sources: tuple[str, ...]
    implementer: int | None = None
    part: int | None = None

    def __post_init__(self) -> None:
        some_text("cpu", self.cpu)
        within("cores", self.cores, 1, 512)
        within("first_core", self.first_core, 0, 511)
        within("max_hz", self.max_hz, 1e8, 1e10)
        # Fields of Arm's MIDR_EL1: 8 and 12 bits.
        within("implementer", 0 if self.implementer is None else self.implementer, 0, 0xFF)
        within("part", 0 if self.part is None else self.part, 0, 0xFFF)


@dataclass(frozen=True, slots=True)
class Memory:
    """What it is sold with.

    Attributes:
        bytes: Each size that there is, ascending.
        sources: Keys of the profile's sources.
    """

    bytes: tuple[int, ...]
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.bytes or list(self.bytes) != sorted(set(self.bytes)):
            raise BoardError(f"bytes is {list(self.bytes)}: expected sizes, ascending")
        within("bytes", self.bytes[0], 1 << 26, 1 << 50)
        within("bytes", self.bytes[-1], 1 << 26, 1 << 50)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine to try, with the reason for its place in the order.

    Attributes:
        name: As registered, such as ``litert`` or ``onnxruntime:cuda``.
        precision: Of the artifacts to prefer on it.
        reason: One sentence.
        sources: Keys of the profile's sources.
    """

    name: str
    precision: str
    reason: str
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        matches("name", self.name, r"\w+(:\S+)?", "an engine such as litert or onnxruntime:cuda")
        one_of("precision", self.precision, PRECISIONS)
        some_text("reason", self.reason)


@dataclass(frozen=True, slots=True)
class Threads:
    """Default for one engine that runs alone.

    Attributes:
        count: Threads; None for the cores that there are, at most 4.
        cores: Linux's numbers of the cores to stay on; empty for all.
        reason: One sentence.
        sources: Keys of the profile's sources.
    """

    reason: str
    count: int | None = None
    cores: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        some_text("reason", self.reason)
        if self.count is not None:
            within("count", self.count, 1, 512)
        for core in self.cores:
            within("cores", core, 0, 511)


@dataclass(frozen=True, slots=True)
class Camera:
    """How frames come in.

    Attributes:
        stack: ``libcamera``, ``argus``, ``v4l2`` or ``camera2``.
        words: What to give ``boardfit watch`` as a source.
        sources: Keys of the profile's sources.
        packages: Debian packages that it needs.
    """

    stack: str
    words: tuple[str, ...]
    sources: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("stack", self.stack, ("libcamera", "argus", "v4l2", "camera2"))


@dataclass(frozen=True, slots=True)
class Sensors:
    """Where the board tells how it is doing.

    Attributes:
        throttling: ``vcgencmd`` (firmware of a Raspberry Pi; where it is silent, as below), ``cooling``
            (Linux's cooling devices) or ``none``.
        power: ``ina3221``, ``pmic`` (``vcgencmd pmic_read_adc``), ``battery`` or ``none``.
        ignored_zones: Thermal zones that tell nothing.
        nvpmodel: Whether it has NVIDIA's power modes.
        soft_limit_c: From where it lowers its clock by itself, in degrees Celsius.
        sources: Keys of the profile's sources.
    """

    throttling: str
    power: str
    sources: tuple[str, ...] = ()
    ignored_zones: tuple[str, ...] = ()
    nvpmodel: bool = False
    soft_limit_c: float | None = None

    def __post_init__(self) -> None:
        one_of("throttling", self.throttling, THROTTLING)
        one_of("power", self.power, POWER)
        if self.soft_limit_c is not None:
            within("soft_limit_c", self.soft_limit_c, 40.0, 125.0)


@dataclass(frozen=True, slots=True)
class System:
    """One operating system that its maker ships.

    Attributes:
        name: For people.
        python: Version of its own Python, such as ``3.11``; empty where it has none.
        platform: Newest platform tag of the wheels that it takes, such as ``manylinux_2_36_aarch64``.
        sources: Keys of the profile's sources.
    """

    name: str
    python: str
    platform: str
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        some_text("name", self.name)
        if not self.sources:
            raise BoardError("sources is empty: versions have a source as other numbers have")
        matches("python", self.python, r"(3\.\d+)?", "a version such as 3.11, or nothing")
        matches("platform", self.platform, r"(manylinux|android|musllinux)_\d+(_\d+)?_\w+", "a platform tag")

    @property
    def wheel_tag(self) -> str:
        """Such as ``cp311-manylinux_2_36_aarch64``."""
        return f"cp{self.python.replace('.', '')}-{self.platform}"


@dataclass(frozen=True, slots=True)
class Build:
    """For containers, compilers and emulators.

    Attributes:
        docker: Platform, such as ``linux/arm64``; empty where Docker does not run.
        flags: For gcc and clang.
        emulate: ``-cpu`` of qemu; empty where there is nothing to emulate.
        emulate_note: How it differs from the real one; empty where it does not.
        sources: Keys of the profile's sources.
    """

    docker: str
    flags: tuple[str, ...]
    emulate: str
    emulate_note: str = ""
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        matches("docker", self.docker, r"(linux/\w+(/v\d)?)?", "a platform such as linux/arm64")


def within(name: str, value: float, least: float, most: float) -> None:
    """Raise BoardError unless a number is within bounds."""
    if not least <= value <= most:
        raise BoardError(f"{name} is {value}: expected {least:g} to {most:g}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise BoardError unless a word is known."""
    if value not in known:
        raise BoardError(f"{name} is {value!r}: expected one of {', '.join(known)}")


def some_text(name: str, value: str) -> None:
    """Raise BoardError if there is nothing to read."""
    if not value.strip():
        raise BoardError(f"{name} is empty: expected some text")


def matches(name: str, value: str, pattern: str, expected: str) -> None:
    """Raise BoardError unless all of a text fits a pattern."""
    if not re.fullmatch(pattern, value):
        raise BoardError(f"{name} is {value!r}: expected {expected}")
