"""Engines that are killed at random moments, and sessions that run for long."""

from __future__ import annotations

import os
import random
import runpy
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import EngineLost
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.model import load
from boardfit.runtime.swap import Trial

EVIDENCE = Path(__file__).resolve().parents[3] / "benchmarks" / "evidence"
SIZES = (32, 48, 64)
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP)


def frames() -> list[np.ndarray]:
    drawn = np.random.RandomState(2)
    return [
        np.repeat(drawn.randint(0, 2**bits, (60, 80, 1)) * (256 >> bits), 3, axis=2).astype(np.uint8)
        for bits in (2, 6, 8)
    ]


@pytest.mark.parametrize("spare", [False, True], ids=["cold", "spare"])
@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.long)])
def test_whenever_it_is_killed_every_answer_is_right_or_an_error(tmp_path, kills, spare, nothing_left):
    write_fake_bundle(tmp_path / "b", sizes=SIZES, delay_s=0.002)
    chance = random.Random(kills + spare)
    pictures = frames()
    limits = Isolation(deadline_s=0.3, first_deadline_s=0.5, load_deadline_s=3.0, spare=spare)
    with load(tmp_path / "b", policy="entropy", isolate=limits) as model:
        expected = [model(picture).scores for picture in pictures]
        losses = answers = in_a_row = 0
        sent = []

        def kill() -> None:
            report = model.isolation
            pid = chance.choice([report.pid, report.spare_pid]) or report.pid
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, chance.choice(SIGNALS))
                    sent.append(pid)

        while len(sent) < kills:
            # From the middle of a start to many runs later.
            timer = threading.Timer(chance.choice([0.0, 0.002, 0.01, 0.1, 0.3]) * chance.random(), kill)
            timer.start()
            for index in range(chance.randint(1, 40)):
                try:
                    scores = model(pictures[index % 3]).scores
                except EngineLost:
                    losses += 1
                    in_a_row += 1
                    # A signal for each of two processes, and one for a replacement that was still starting.
                    assert in_a_row <= 4
                    continue
                in_a_row = 0
                answers += 1
                assert np.array_equal(scores, expected[index % 3])
            timer.join()
        assert answers > kills
        assert losses <= model.isolation.replaced <= len(sent)


@pytest.mark.parametrize("isolate", [False, True], ids=["here", "isolated"])
def test_a_short_soak_grows_by_nothing(tmp_path, isolate, nothing_left):
    soak = runpy.run_path(str(EVIDENCE / "soak.py"))
    write_fake_bundle(tmp_path / "b", sizes=SIZES)
    with load(tmp_path / "b", policy="entropy", threads=1, isolate=isolate) as model:
        soak["piece"](model.session, 1500)  # caches fill, the fake engine's record of its calls among them
        row = soak["piece"](model.session, 3000)
    assert row["growth_mb"] < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("isolate", [False, True], ids=["here", "isolated"])
def test_swaps_leave_nothing(tmp_path, isolate, nothing_left):
    write_fake_bundle(tmp_path / "a", sizes=(32,))
    write_fake_bundle(tmp_path / "b", sizes=(48,))
    with load(tmp_path / "a", isolate=isolate, threads=1) as model:
        for path in ("b", "a") * 4:
            model.swap(tmp_path / path, trial=Trial(frames=2, max_slowdown=None))
            assert [model(picture).size for picture in frames()] == [48 if path == "b" else 32] * 3
            assert model.last_swap.outcome == "kept"
