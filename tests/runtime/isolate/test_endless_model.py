"""A real .tflite that loops for ever in a real engine, which nothing can cancel."""

from __future__ import annotations

import runpy
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from boardfit.errors import EngineLost
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.session import load

EVIDENCE = Path(__file__).resolve().parents[3] / "benchmarks" / "evidence"


def test_an_endless_tflite_costs_its_frames_and_no_more(tmp_path, watch, nothing_left):
    pytest.importorskip("ai_edge_litert", reason="runs the endless model")
    pytest.importorskip("flatbuffers", reason="writes the endless model")
    runpy.run_path(str(EVIDENCE / "endless.py"))["write_endless_bundle"](tmp_path / "b")
    frame = np.zeros((40, 40, 3), np.uint8)
    with load(tmp_path / "b", isolate=Isolation(first_deadline_s=0.5)) as model:
        for _ in range(2):
            pid = model.isolation.pid
            begin = perf_counter()
            with pytest.raises(EngineLost, match=r"no answer within 0\.5 s") as lost:
                model(frame)
            assert lost.value.reason == "hung"
            assert perf_counter() - begin >= 0.5
            assert not watch.is_alive(pid)
        assert model.isolation.hung == 2
