from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import EngineError
from boardfit.runtime.engines import engine_classes, find_engine, is_installed, litert_profile
from boardfit.runtime.engines.onnxruntime_profile import read_events

ABLE = sorted(
    name
    for name, engine in engine_classes().items()
    if getattr(engine, "profile", None) and is_installed(engine)
)


@pytest.mark.parametrize("name", ABLE)
def test_every_profiler_tells_each_layer_of_each_run(name, tiny_of):
    engine = find_engine(name)
    tiny = tiny_of(engine.formats[0])
    feeds = tiny.feed(np.zeros((1, 24, 24, 3), np.float32))
    before = {path.name for path in Path.cwd().iterdir()}
    profile = engine.profile(tiny.artifact, tiny.files, 1, feeds=feeds, runs=4, warmup=2)
    assert len(profile.whole_s) == 4 and len(profile.layers) >= 2
    assert 0.0 < profile.sum_s <= profile.p50_s
    assert {path.name for path in Path.cwd().iterdir()} == before


@pytest.mark.parametrize("name", ABLE)
def test_a_damaged_file_is_refused(name, tiny_of):
    engine = find_engine(name)
    tiny = tiny_of(engine.formats[0])
    feeds = tiny.feed(np.zeros((1, 24, 24, 3), np.float32))
    files = {path: data[:100] for path, data in tiny.files.items()}
    with pytest.raises(EngineError):
        engine.profile(tiny.artifact, files, 1, feeds=feeds, runs=1, warmup=0)


def event(name: str, start: int, **args):
    return {"name": name, "ts": start, "dur": 10, "args": {"op_name": "Conv", "node_index": "3", **args}}


def test_warm_up_runs_of_onnx_runtime_are_left_out():
    runs = [event("model_run", 100 * number) for number in range(3)]
    nodes = [{**event("a_kernel_time", 100 * number + 1), "dur": number + 1} for number in range(3)]
    profile = read_events([*runs, *nodes, event("session_initialization", 0)], 2)
    (layer,) = profile.layers
    assert (layer.name, layer.kind) == ("3 a", "Conv")
    assert layer.times_s == pytest.approx((2e-6, 3e-6))
    with pytest.raises(EngineError, match="has 3 runs"):
        read_events([*runs, *nodes], 4)


def test_a_litert_without_the_functions_is_too_old(monkeypatch):
    pytest.importorskip("ai_edge_litert")

    class Old:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda path: Old())
    with pytest.raises(EngineError, match="newer ai-edge-litert"):
        litert_profile._library()


def test_a_net_with_two_inputs_is_not_profiled_on_litert(tiny_of):
    tiny = tiny_of("tflite")
    two = {"a": np.zeros((1, 8, 8, 3)), "b": np.zeros((1, 8, 8, 3))}
    with pytest.raises(EngineError, match="2 inputs"):
        find_engine("litert").profile(tiny.artifact, tiny.files, 1, feeds=two, runs=1, warmup=0)


def test_a_delegate_is_not_profiled(tiny_of, tmp_path):
    (tmp_path / "x.so").write_bytes(b"")
    tiny = tiny_of("tflite")
    engine = find_engine(f"litert:{tmp_path / 'x.so'}")
    with pytest.raises(EngineError, match="leave out the delegate"):
        engine.profile(tiny.artifact, tiny.files, 1, feeds={}, runs=1, warmup=0)


def test_tflite_runtime_is_not_among_those_that_tell():
    assert engine_classes()["tflite"].profile is None
