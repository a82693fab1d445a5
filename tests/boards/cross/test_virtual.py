"""A whole virtual board: the runtime comes over ssh, answers photographs, and watches a V4L2 camera."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stand_ins import answers, kit
from stand_ins.roots import lacking
from stand_ins.same import differences
from stand_ins.virtual_board import VirtualBoard, on_path

from boardfit.boards.remote import connect
from boardfit.boards.remote.session import prepare, send
from boardfit.boards.remote.wheels import Need

pytestmark = pytest.mark.long

COUNT = 4
ENGINE = "ncnn"
TOLERANCE = 1e-5
MODULES = {"numpy": "numpy", "cv2": "opencv-python-headless", ENGINE: kit.ENGINE_PACKAGES[ENGINE]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, photographs):
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(photographs.iterdir())[:COUNT]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def bundle():
    return kit.lite0_bundle()


class Board:
    """A virtual board that is switched on, with the runtime, the bundle and the photographs on it."""

    def __init__(self, remote, bundle, photos) -> None:
        needs = [Need(module, kit.as_here(package)[0]) for module, package in MODULES.items()]
        self.remote = remote
        self.prepared = prepare(remote, needs=needs)
        self.bundle = str(send(remote, bundle, "in/lite0.boardfit"))
        self.photos = str(send(remote, photos, "in/photos"))
        self.script = str(send(remote, Path(answers.__file__), "in/answers.py"))
        remote.run(["mkdir", "-p", "out"])

    def boardfit(self, *words: str) -> str:
        return self.python("-m", "boardfit", *words)

    def python(self, *words: str) -> str:
        done = self.remote.run([self.prepared.python.path, *words], env=self.prepared.env, timeout_s=400)
        assert done.status == 0, done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def virtual(tmp_path_factory):
    if reason := lacking("programs", "board"):
        pytest.skip(reason)
    machine = VirtualBoard(tmp_path_factory.mktemp("virtual"))
    with on_path(machine.bin):
        machine.start()
        yield machine
        machine.stop()


@pytest.fixture(scope="module")
def board(virtual, bundle, photos):
    with connect("ssh://board") as remote:
        yield Board(remote, bundle, photos)
    left = virtual.shell("ls -d /var/tmp/boardfit-* /root/boardfit-* /tmp/boardfit-* 2>/dev/null || true")
    assert left == ""


def test_it_got_the_runtime_over_ssh(board):
    assert board.remote.machine == "aarch64"
    assert any(name.endswith("aarch64.whl") for name in board.prepared.sent)
    said = board.boardfit("verify", board.bundle, "--engine", ENGINE)
    assert "content id" in said


def test_boardfit_run_answers_photographs_as_here(board, bundle, photos):
    options = ["--json", "--engine", ENGINE, "--threads", "2"]
    there = board.boardfit("run", board.bundle, board.photos, *options)
    words = [sys.executable, "-m", "boardfit", "run", str(bundle), str(photos), *options]
    here = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    mine, theirs = (
        [json.loads(line) for line in said.splitlines() if '"summary"' not in line] for said in (here, there)
    )
    assert len(mine) == len(theirs) == COUNT
    for one, other in zip(mine, theirs, strict=True):
        assert Path(one["source"]).name == Path(other["source"]).name
        assert (one["size"], one["top"][0]["index"]) == (other["size"], other["top"][0]["index"])
        assert other["entropy_bits"] == pytest.approx(one["entropy_bits"], abs=1e-9)


def test_its_numbers_are_those_of_this_machine(board, bundle, photos, answered_here, tmp_path):
    options = ["--engine", ENGINE, "--look", f"112:{COUNT}", "--look", "224:1"]
    board.python(board.script, board.bundle, board.photos, "out/there.npz", *options)
    board.remote.pull("out/there.npz", tmp_path / "there.npz")
    with np.load(tmp_path / "there.npz") as there:
        assert differences(answered_here(bundle, photos, *options), dict(there), tolerance=TOLERANCE) == []


def test_it_watches_its_camera(board, tmp_path):
    words = ["watch", board.bundle, "/dev/video0", "--camera-size", "320x180", "--for", "20", "--size", "112"]
    board.boardfit(*words, "--engine", ENGINE, "--threads", "2", "--jsonl", "out/answers.jsonl", "--quiet")
    board.remote.pull("out/answers.jsonl", tmp_path / "answers.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    answered = [line for line in lines if "top" in line]
    assert len(answered) >= 3, lines
    assert {line["size"] for line in answered} == {112}
    assert all(0.0 <= line["top"][0]["score"] <= 1.0 for line in answered)
