"""What a board is: one TOML file each in ``profiles/``, with the source of every number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any

from boardfit.boards.sections import (
    INSTRUCTION_SETS,
    Build,
    Camera,
    Cluster,
    EngineChoice,
    Memory,
    Recognition,
    Sensors,
    System,
    Threads,
    matches,
    one_of,
    some_text,
)
from boardfit.boards.toml_records import parse_toml, record
from boardfit.errors import BoardError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of board.

    Attributes:
        schema: Of the file.
        name: Small letters, digits and hyphens; also the file's name.
        title: For people.
        sources: Documents by short key; every section that holds a fact names some of them.
        recognition: How it is told from others.
        instructions: Of ``INSTRUCTION_SETS``, those that every core has; their source has this key too.
        engines: In order of preference.
        threads: Default for one engine.
        camera: How frames come in.
        sensors: Where temperature, throttling and power are read.
        build: For containers, compilers and emulators.
        clusters: Cores by kind, the fastest first; empty where they differ from board to board.
        memory: What it is sold with; None where that differs from board to board.
        systems: Operating systems that its maker ships; empty for whatever there is.
    """

    schema: int
    name: str
    title: str
    sources: Mapping[str, str]
    recognition: Recognition
    instructions: tuple[str, ...]
    engines: tuple[EngineChoice, ...]
    threads: Threads
    camera: Camera
    sensors: Sensors
    build: Build
    clusters: tuple[Cluster, ...] = ()
    memory: Memory | None = None
    systems: tuple[System, ...] = ()

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise BoardError(f"schema is {self.schema}: expected {SCHEMA}")
        matches("name", self.name, r"[a-z0-9]+(-[a-z0-9]+)*", "small letters, digits and hyphens")
        some_text("title", self.title)
        for word in self.instructions:
            one_of("instructions", word, INSTRUCTION_SETS)
        if self.instructions and "instructions" not in self.sources:
            raise BoardError("sources.instructions is missing: expected where the instruction sets are told")
        if not self.engines:
            raise BoardError("engines is empty: expected at least one")
        self._check_cores()
        self._check_sources()

    def _check_cores(self) -> None:
        if self.recognition.generic:
            return
        if not self.clusters and not self.recognition.properties:
            raise BoardError("clusters is empty: expected the cores of this board")
        numbers = sorted(chain.from_iterable(_numbers(cluster) for cluster in self.clusters))
        if numbers != list(range(len(numbers))):
            raise BoardError(f"clusters.first_core: cores {numbers}, expected each number from 0 once")
        wrong = set(self.threads.cores) - set(numbers)
        if wrong or (numbers and (self.threads.count or 1) > len(numbers)):
            raise BoardError(f"threads asks for cores that are not there: expected {numbers}")

    def _check_sources(self) -> None:
        sections = asdict(self)
        for where, section in _sections(sections):
            for key in section["sources"]:
                if key not in self.sources:
                    raise BoardError(f"{where}.sources names {key!r}: expected {', '.join(self.sources)}")
            if not section["sources"] and _has_number(section):
                raise BoardError(f"{where}.sources is missing or empty: every number has its source")

    @property
    def cores(self) -> int | None:
        """How many cores it has; None where that differs from board to board."""
        return sum(cluster.cores for cluster in self.clusters) or None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)


@cache
def profiles() -> tuple[Profile, ...]:
    """Return every profile, by name; their files are read once.

    Raises:
        BoardError: A profile's file is damaged.
    """
    folder = files("boardfit.boards") / "profiles"
    found = [
        parse_profile(entry.read_text(encoding="utf-8"), name=entry.name)
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    ]
    return tuple(sorted(found, key=lambda profile: profile.name))


def parse_profile(text: str, *, name: str) -> Profile:
    """Read one profile.

    Args:
        text: Of its file.
        name: Of its file, for messages: ``NAME.toml`` holds the board called NAME.

    Raises:
        BoardError: A field is missing, unknown or absurd; the message names the file and the field.
    """
    try:
        found = record(Profile, parse_toml(text))
        if f"{found.name}.toml" != name:
            raise BoardError(f"name is {found.name!r}: expected the file's name without .toml")
    except BoardError as error:
        raise BoardError(f"board profile {name}: {error}") from error
    return found


def find_profile(name: str) -> Profile:
    """Return one profile.

    Raises:
        BoardError: There is none of this name; the message tells the nearest ones.
    """
    known = {profile.name: profile for profile in profiles()}
    if name in known:
        return known[name]
    words = re.findall(r"[a-z]+|\d+", name.lower())
    told = [key for key, each in known.items() if _has_all(words, f"{key} {each.title}".lower())]
    near = get_close_matches("-".join(name.lower().split()), known, cutoff=0.4)
    names = list(dict.fromkeys([*told, *near]))[:3]
    meant = f"did you mean {' or '.join(names)}? " if names else ""
    raise BoardError(f"there is no board {name!r}: {meant}boardfit boards lists them all")


def _has_all(words: Sequence[str], text: str) -> bool:
    return bool(words) and all(re.search(rf"\b{word}", text) for word in words)


def _numbers(cluster: Cluster) -> range:
    return range(cluster.first_core, cluster.first_core + cluster.cores)


def _sections(profile: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the tables of a profile that carry sources, with their paths."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, value in profile.items():
        if name == "sources":
            continue
        if isinstance(value, dict):
            found.append((name, value))
        elif isinstance(value, tuple):
            found += [
                (f"{name}[{index}]", each) for index, each in enumerate(value) if isinstance(each, dict)
            ]
    return found


def _has_number(section: Mapping[str, Any]) -> bool:
    values = chain.from_iterable(
        value if isinstance(value, tuple) else (value,) for value in section.values()
    )
    return any(type(value) in (int, float) for value in values)
