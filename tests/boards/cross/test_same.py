"""The comparison of two machines sees each kind of difference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from stand_ins import answers as script
from stand_ins.same import deviation, differences


@pytest.fixture
def frames(tmp_path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    chance = np.random.default_rng(5)
    for name in ("a.png", "b.png", "c.jpg"):
        cv2.imwrite(str(folder / name), chance.integers(0, 256, (60, 80, 3), np.uint8))
    return folder


@pytest.fixture
def answered(three_engines, frames, tmp_path) -> dict[str, np.ndarray]:
    """What the script writes, as a board's user runs it."""
    out = tmp_path / "out.npz"
    words = [sys.executable, script.__file__, str(three_engines), str(frames), str(out)]
    subprocess.run([*words, "--engine", "ncnn", "--look", "16:3", "--look", "31:1"], check=True)
    with np.load(out) as loaded:
        return dict(loaded)


def test_the_script_writes_what_the_runtime_answers(answered, frames):
    assert answered["names"].tolist() == ["a.png", "b.png", "c.jpg"]
    assert answered["histogram"].shape == (3, 256)
    assert (answered["histogram"].sum(axis=1) == 60 * 80).all()
    assert answered["chosen"].tolist() == [16, 16, 16]  # nobody has the policy's 9 bits
    assert {name: answered[name].shape for name in answered if " " in name} == {
        "outputs 16": (3, 5),
        "outputs 31": (1, 5),
        "seen 16": (3, 16, 16, 3),
        "seen 31": (1, 31, 31, 3),
    }
    assert differences(answered, answered, tolerance=0.0) == []


CHANGES = {
    "pixels": lambda found: found["pixels"].__setitem__(1, "0"),
    "histogram": lambda found: found["histogram"].__setitem__((0, 3), 7.0),
    "chosen": lambda found: found["chosen"].__setitem__(2, 31),
    "bits differ": lambda found: found["bits"].__iadd__(2e-9),
    "exact_bits": lambda found: found["exact_bits"].__isub__(2e-9),
    "of their range": lambda found: found["outputs 16"].__iadd__(0.01),
    "best class": lambda found: found["outputs 16"].__setitem__(0, -found["outputs 16"][0]),
    "all finite": lambda found: found["outputs 31"].__setitem__((0, 0), np.nan),
    "100.0% of the pixels": lambda found: found["seen 16"].__ixor__(1),
    "up to 2 greys": lambda found: found["seen 31"].__setitem__(
        (0, 0, 0, 0), found["seen 31"][0, 0, 0, 0] ^ 2
    ),
    "other frames or looks": lambda found: found.pop("outputs 31"),
}


@pytest.mark.parametrize("word", CHANGES)
def test_a_difference_is_seen(answered, word):
    there = {name: array.copy() for name, array in answered.items()}
    CHANGES[word](there)
    said = differences(answered, there, tolerance=1e-4)
    assert any(word in line for line in said), json.dumps(said)


def test_a_close_call_is_excused_where_that_is_said(answered):
    here = {**answered, "outputs 31": np.array([[0.0, 1.0, 0.99, 0.5, 0.2]], np.float32)}
    there = {**here, "outputs 31": np.array([[0.0, 0.99, 1.0, 0.5, 0.2]], np.float32)}
    assert differences(here, there, tolerance=0.02) != []
    assert differences(here, there, tolerance=0.02, close_calls=True) == []
    there["outputs 31"] = np.array([[0.0, 0.96, 0.95, 0.97, 0.2]], np.float32)
    assert any("best class" in line for line in differences(here, there, tolerance=0.4 / 2, close_calls=True))


def test_pixels_may_differ_where_that_is_said(answered):
    there = {**answered, "pixels": np.array(["0", "1", "2"])}
    assert differences(answered, there, tolerance=0.0, pixels=False) == []


def test_a_net_that_saw_other_pixels_may_answer_a_little_differently(answered):
    there = {name: array.copy() for name, array in answered.items()}
    there["outputs 31"][0, 0] += 2e-3 * np.ptp(there["outputs 31"])
    assert differences(answered, there, tolerance=1e-5) != []
    there["seen 31"][0, 3, 4, 1] ^= 1
    assert differences(answered, there, tolerance=1e-5) == []


def test_a_deviation_is_a_share_of_each_rows_range():
    here = np.array([[0.0, 10.0], [0.0, 1.0]])
    assert deviation(here, here + np.array([[0.0, 0.1], [0.0, 0.05]])) == pytest.approx([0.01, 0.05])
