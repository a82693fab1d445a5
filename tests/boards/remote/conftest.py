from __future__ import annotations

import os
import runpy
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

CARRIER = Path(__file__).with_name("carrier.py")
EVIDENCE = Path(__file__).resolve().parents[3] / "benchmarks" / "evidence"
ADDRESSES = {"local": "local", "ssh": "ssh://pi@kitchen", "adb": "adb://emulator-5554"}


@dataclass(frozen=True)
class Board:
    """A made-up board behind stand-ins for ssh and adb."""

    folder: Path
    address: str

    @property
    def home(self) -> Path:
        return self.folder / "board"

    @property
    def calls(self) -> list[list[str]]:
        lines = (self.folder / "words").read_text().splitlines()
        return [line.split("\t") for line in lines]

    def says(self, text: str) -> None:
        (self.folder / "says").write_text(text)

    def befalls(self, name: str, size: int, count: int) -> None:
        """Cut or damage the next so many transfers after so many bytes."""
        (self.folder / name).write_text(f"{size} {count}")

    def leftovers(self) -> list[Path]:
        return sorted(self.folder.rglob("boardfit-work-*"))

    def program(self, name: str, text: str) -> None:
        """Put a program on the board's PATH."""
        path = self.home / "bin" / name
        path.write_text(text)
        path.chmod(0o755)


def make_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> Board:
    folder = tmp_path / "carried"
    for inner in ("bin", "board/tmp", "board/bin"):
        (folder / inner).mkdir(parents=True)
    (folder / "features").write_text("shell_v2\ncmd\n")
    for name in ("ssh", "adb"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {CARRIER} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("CARRIER", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    # Here is where "local" makes its folder.
    monkeypatch.setenv("TMPDIR", str(folder / "board" / "tmp"))
    return Board(folder, ADDRESSES[kind])


@pytest.fixture(params=ADDRESSES)
def board(request, tmp_path, monkeypatch) -> Board:
    """A board by each kind of address."""
    return make_board(tmp_path, monkeypatch, request.param)


@pytest.fixture
def ssh_board(tmp_path, monkeypatch) -> Board:
    return make_board(tmp_path, monkeypatch, "ssh")


@pytest.fixture
def adb_board(tmp_path, monkeypatch) -> Board:
    return make_board(tmp_path, monkeypatch, "adb")


@pytest.fixture
def local_board(tmp_path, monkeypatch) -> Board:
    return make_board(tmp_path, monkeypatch, "local")


@pytest.fixture
def eventually():
    """Waits until something is true."""

    def wait(condition, timeout_s: float = 20.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    return wait


@pytest.fixture(scope="session")
def cuts() -> dict:
    """The names of the script that cuts a real link."""
    return runpy.run_path(str(EVIDENCE / "remote_cuts.py"))
