"""The short proof, for CI: a tiny bundle answers on an emulated Cortex-A72 what it answers here."""

from __future__ import annotations

import numpy as np
import pytest
from stand_ins import kit
from stand_ins.roots import lacking, run_in, write_cpuinfo
from stand_ins.same import differences

pytestmark = pytest.mark.long

# float32 sums in another order: of a net of few layers some units of the last place.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A function that runs a program on a Cortex-A72: an arm64 root with the engines, and our own package."""
    if reason := lacking("programs"):
        pytest.skip(reason)
    try:
        root = kit.root("arm64")
        engines = kit.as_here("numpy", "opencv-python-headless", *kit.ENGINE_PACKAGES.values())
        libraries = kit.libraries("arm64", engines, name="engines")
    except RuntimeError as error:
        pytest.skip(f"nothing to run for Arm: {error}")
    own = kit.own_package(tmp_path_factory.mktemp("own"))
    cpuinfo = write_cpuinfo(tmp_path_factory.mktemp("proc") / "cortex-a72")

    def run(work, *words: str) -> str:
        mounts = {"/srv/own": own, "/srv/engines": libraries, "/srv/work": work}
        env = {"PYTHONPATH": "/srv/own:/srv/engines"}
        done = run_in(root, words, cpuinfo=cpuinfo, mounts=mounts, env=env, timeout_s=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture
def work(three_engines, frames, board_folder):
    return board_folder(three_engines, frames)


SEEN = "import platform; print(platform.machine(), open('/proc/cpuinfo').read())"


def test_it_is_the_processor_that_was_asked_for_and_the_golden_input_passes(board, work):
    said = board(work, "python3", "-c", SEEN)
    assert said.startswith("aarch64")
    assert "0xd08" in said
    said = board(work, "python3", "-m", "boardfit", "verify", "/srv/work/bundle.boardfit")
    for engine in kit.ENGINE_PACKAGES:
        assert engine in said


@pytest.mark.parametrize("engine", kit.ENGINE_PACKAGES)
def test_the_answers_are_those_of_this_machine(
    board, work, engine, three_engines, frames, answered_here, script_words
):
    options = ["--engine", engine, "--look", "16:4", "--look", "31:2"]
    here = answered_here(three_engines, frames, *options)
    board(work, *script_words(options))
    with np.load(work / "out" / "there.npz") as there:
        assert differences(here, dict(there), tolerance=TOLERANCE) == []
