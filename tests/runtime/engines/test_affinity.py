from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from boardfit.bundle import open_bundle
from boardfit.errors import EngineError, RecipeError
from boardfit.runtime.affinity import bound_choice, check_cores
from boardfit.runtime.choose import Choice
from boardfit.runtime.engines import find_engine, is_installed
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, write_fake_bundle
from boardfit.runtime.session import load

CORES = sorted(os.sched_getaffinity(0))
two_cores = pytest.mark.skipif(len(CORES) < 2, reason="there is one core")


def threads_now() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/task").iterdir()}


@pytest.fixture
def path(tmp_path):
    write_fake_bundle(tmp_path / "fake.boardfit")
    return tmp_path / "fake.boardfit"


@two_cores
@pytest.mark.parametrize(
    ("name", "format"), [("litert", "tflite"), ("onnxruntime", "onnx"), ("ncnn", "ncnn")]
)
def test_every_thread_that_a_bound_engine_starts_is_bound(name, format, tiny_of):
    engine = find_engine(name)
    if not is_installed(engine):
        pytest.skip(f"the library of {name} is not installed")
    tiny = tiny_of(format)
    spec = tiny.artifact.inputs[0]
    shape = (1, 3, 32, 32) if spec.layout == "NCHW" else (1, 32, 32, 3)
    feeds = {spec.name: np.zeros(shape, np.float32)}
    # Loaded here before: OpenMP's pool of this thread exists, on all cores.
    free = engine(tiny.artifact, tiny.files, 2)
    free.run(feeds)
    before = threads_now()
    choice = bound_choice(Choice(name, engine, "fp32", (tiny.artifact,)), CORES[-1:])
    bound = choice.engine(tiny.artifact, tiny.files, 2)
    for _ in range(3):
        bound.run(feeds)
    fresh = threads_now() - before
    assert len(fresh) >= 2
    assert {frozenset(os.sched_getaffinity(thread)) for thread in fresh} == {frozenset(CORES[-1:])}
    assert sorted(os.sched_getaffinity(0)) == CORES
    bound.close()
    free.close()


def test_a_session_says_to_what_it_is_bound_and_takes_as_many_threads(path):
    with load(path, affinity=CORES[:1]) as session:
        assert session.affinity == tuple(CORES[:1]) and session.threads == 1
        assert session(np.zeros((40, 40, 3), np.uint8)).size == 32
    with load(path) as session:
        assert session.affinity == ()


def test_the_thread_of_a_bound_engine_ends_with_it(path):
    before = threads_now()
    with load(path, affinity=CORES[:1]) as session:
        assert threads_now() - before
        engine = next(iter(session._engines.loaded.values()))
    assert threads_now() == before
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({})


def test_an_engine_that_refuses_its_file_leaves_no_thread():
    artifact = fake_artifact((32,))
    choice = bound_choice(Choice("fake", FakeEngine, "fp32", (artifact,)), CORES[:1])
    with pytest.raises(EngineError, match="no JSON"):
        choice.engine(artifact, {artifact.files[0]: b"{"}, 1)


@pytest.mark.parametrize("cores", [(), (10_000,), (-1,), (CORES[0], CORES[0])], ids=str)
def test_cores_that_are_not_there_are_refused(cores):
    with pytest.raises(RecipeError, match="usable cores"):
        check_cores(cores)


def test_an_isolated_engine_is_not_bound(path):
    with pytest.raises(RecipeError, match="isolate"):
        load(path, affinity=CORES[:1], isolate=True)
    with open_bundle(path) as bundle, pytest.raises(RecipeError, match="usable cores"):
        load(bundle, affinity=(10_000,))


def test_a_system_that_cannot_bind_is_told(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(RecipeError, match="cannot bind"):
        check_cores((0,))
