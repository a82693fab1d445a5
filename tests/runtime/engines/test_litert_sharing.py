import sys
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import EngineError
from boardfit.runtime.engines.litert import LiteRTEngine
from boardfit.runtime.engines.tflite import TfliteEngine

litert = pytest.importorskip("ai_edge_litert")


def memory_files() -> int:
    """Return how many there are: the library opens each again."""
    open_files = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    return len({path.stat().st_ino for path in open_files if "packed-weights" in str(path.readlink())})


def a_batch(size: int) -> np.ndarray:
    return np.random.RandomState(size).standard_normal((1, size, size, 3)).astype(np.float32)


def test_siblings_share_one_file_of_weights_and_the_last_takes_it_along(tiny_of):
    tiny = tiny_of("tflite")
    first = LiteRTEngine.first_of_several(tiny.artifact, tiny.files, 1)
    second = first.sibling()
    for engine, size in ((first, 16), (second, 24), (first, 16)):
        expected = tiny.reference(a_batch(size))
        found = engine.run(tiny.feed(a_batch(size)))[0]
        assert np.abs(found - expected).max() <= 1e-4 * np.ptp(expected)
    assert memory_files() == 1
    first.close()
    del first, engine
    assert np.isfinite(second.run(tiny.feed(a_batch(24)))[0]).all()
    assert memory_files() == 1
    second.close()
    del second
    assert memory_files() == 0


@pytest.mark.parametrize(
    "module", ["ai_edge_litert.compiled_model", "ai_edge_litert.environment", "ai_edge_litert.options"]
)
def test_an_older_litert_gives_plain_engines(module, tiny_of, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    tiny = tiny_of("tflite")
    engine = LiteRTEngine.first_of_several(tiny.artifact, tiny.files, 1)
    assert type(engine) is LiteRTEngine
    engine.close()


def test_a_delegate_packs_for_itself(tiny_of, monkeypatch, tmp_path):
    library = tmp_path / "delegate.so"
    library.touch()
    monkeypatch.setattr("boardfit.runtime.engines.litert._load_delegate", lambda module, path: None)
    chosen = LiteRTEngine.with_variant(str(library))
    monkeypatch.setattr(chosen, "__init__", lambda self, artifact, files, threads: None)
    assert type(chosen.first_of_several(tiny_of("tflite").artifact, {}, 1)) is chosen


def test_the_older_library_has_no_such_thing(tiny_of, monkeypatch):
    monkeypatch.setattr(TfliteEngine, "__init__", lambda self, artifact, files, threads: None)
    assert type(TfliteEngine.first_of_several(tiny_of("tflite").artifact, {}, 1)) is TfliteEngine


def test_a_sibling_that_cannot_be_made_is_an_engine_error(tiny_of, monkeypatch):
    tiny = tiny_of("tflite")
    first = LiteRTEngine.first_of_several(tiny.artifact, tiny.files, 1)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.compiled_model", None)
    with pytest.raises(EngineError, match=r"refused .* for a further size"):
        first.sibling()
    first.close()
