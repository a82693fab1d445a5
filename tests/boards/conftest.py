"""Recorded trees of boards: one text file each, planted into a folder as ``/proc``, ``/sys`` and tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

TREES = Path(__file__).parent / "trees"
NAMES = sorted(path.stem for path in TREES.glob("*.txt"))

UNREADABLE = "<unreadable>"
"""Content of a file that is there and cannot be read: a folder in its place fails for root too."""


@dataclass(frozen=True)
class Tree:
    """A recorded board.

    Attributes:
        root: Folder that holds ``proc`` and ``sys``.
        said: What its tools print, by command line.
        asked: Command lines that were asked so far.
    """

    root: Path
    said: Mapping[str, str]
    asked: list[str]

    @property
    def machine(self) -> str:
        return self.said["uname -m"]

    def ask(self, words: Sequence[str]) -> str | None:
        self.asked.append(" ".join(words))
        return self.said.get(" ".join(words))

    def write(self, path: str, content: str) -> None:
        """Plant one more file, or another content."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content == UNREADABLE:
            file.unlink(missing_ok=True)
            file.mkdir(exist_ok=True)
        else:
            file.write_bytes(content.replace("\\0", "\0").encode())


def sections(text: str) -> dict[str, str]:
    """Return contents by path, and what tools print by ``$ command``."""
    found = {}
    for part in text.split("\n=== ")[1:]:
        head, _, content = part.partition("\n")
        found[head] = content
    return found


@pytest.fixture
def plant(tmp_path) -> Callable[[str], Tree]:
    """A function that plants a recorded tree."""

    def planted(name: str) -> Tree:
        found = sections((TREES / f"{name}.txt").read_text(encoding="utf-8"))
        said = {
            head.removeprefix("$ "): text.strip() for head, text in found.items() if head.startswith("$ ")
        }
        tree = Tree(tmp_path / name, said, [])
        for path, content in found.items():
            if not path.startswith("$ "):
                tree.write(path, content.strip() if content.strip() == UNREADABLE else content)
        return tree

    return planted


@pytest.fixture(params=NAMES)
def tree(request, plant) -> Tree:
    """Every recorded tree, one after the other; its name is the profile's."""
    return plant(request.param)
