"""What every engine promises. A new one is tested as soon as it has its entry point."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from boardfit.errors import EngineError, EngineMissing
from boardfit.runtime import engines
from boardfit.runtime.affinity import bound_choice
from boardfit.runtime.choose import Choice
from boardfit.runtime.engines import available_engines, engine_classes, find_engine, is_installed
from boardfit.runtime.isolate.engine import isolated_engine
from boardfit.runtime.isolate.host import EngineHost
from boardfit.runtime.isolate.options import Isolation
from boardfit.specs import FORMATS

ENGINES = engine_classes()
VARIANTS = {
    name: [f"{name}:{each}" for each in getattr(made, "variants", ())] for name, made in ENGINES.items()
}
CASES = [
    (full, format, way)
    for name, made in sorted(ENGINES.items())
    for format in made.formats
    for full in (name, *VARIANTS[name])
    for way in ("here", "isolated", "bound", *(["sibling"] if hasattr(made, "first_of_several") else []))
]


@pytest.fixture
def hosts():
    """Lends a list for the hosts of isolated engines."""
    made = []
    yield made
    for host in made:
        host.close()


def make_engine(made, way, hosts, *given):
    """Make an engine here, in a process of its own, on one core, or as the second of two that share."""
    if way == "bound":
        choice = Choice("x", made, "fp32", given[:1])
        return bound_choice(choice, sorted(os.sched_getaffinity(0))[:1]).engine(*given)
    if way == "isolated":
        hosts.append(EngineHost(made, Isolation()))
        return isolated_engine(made, hosts[-1])(*given)
    if way == "sibling":
        first = made.first_of_several(*given)
        further = getattr(first, "sibling", lambda: made(*given))()
        first.close()
        return further
    return made(*given)


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request, tiny_of, hosts):
    name, format, way = request.param
    made = find_engine(name)
    if not is_installed(made):
        pytest.skip(f"the library of {name} is not installed")
    tiny = tiny_of(format)
    if ":" in name:
        try:
            made(tiny.artifact, tiny.files, 1).close()
        except EngineMissing as error:
            pytest.skip(f"not run on hardware: {error}")
    return partial(make_engine, made, way, hosts), tiny


@pytest.fixture
def tiny(case):
    return case[1]


@pytest.fixture
def engine(case):
    made, tiny = case
    running = made(tiny.artifact, tiny.files, 1)
    yield running
    running.close()


def batch_of(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal((count, size, size, 3)).astype(np.float32)


def test_answers_like_the_reference_at_every_size(engine, tiny):
    for size in tiny.artifact.sizes:
        batch = batch_of(1, size, size)
        outputs = engine.run(tiny.feed(batch))
        assert len(outputs) == len(tiny.artifact.outputs)
        assert outputs[0].dtype == np.float32
        expected = tiny.reference(batch)
        assert outputs[0].shape == expected.shape
        assert np.abs(outputs[0] - expected).max() <= 1e-4 * np.ptp(expected)


def test_sizes_may_alternate(engine, tiny):
    small, large = tiny.artifact.sizes[0], tiny.artifact.sizes[-1]
    feeds = {size: tiny.feed(batch_of(1, size)) for size in (small, large)}
    first = {size: engine.run(feeds[size])[0] for size in (small, large)}
    for size in (small, large, small, small, large):
        assert np.abs(engine.run(feeds[size])[0] - first[size]).max() <= 1e-6


def test_a_batch_answers_like_its_images(engine, tiny):
    batch = batch_of(3, 24)
    together = engine.run(tiny.feed(batch))[0]
    one_by_one = [engine.run(tiny.feed(batch[i : i + 1]))[0] for i in range(3)]
    assert together.shape == (3, one_by_one[0].shape[1])
    np.testing.assert_allclose(together, np.concatenate(one_by_one), rtol=1e-4, atol=1e-5)


def test_arrays_belong_to_the_caller(engine, tiny):
    first = engine.run(tiny.feed(batch_of(1, 16, 0)))[0]
    kept = first.copy()
    second = engine.run(tiny.feed(batch_of(1, 16, 1)))[0]
    assert (first == kept).all()
    assert not np.array_equal(first, second)
    first[:] = 0.0
    assert np.array_equal(engine.run(tiny.feed(batch_of(1, 16, 0)))[0], kept)


def test_feeds_are_not_written_to(engine, tiny):
    feed = tiny.feed(batch_of(2, 16))
    kept = {name: array.copy() for name, array in feed.items()}
    engine.run(feed)
    assert all((feed[name] == kept[name]).all() for name in feed)


def test_more_threads_answer_the_same(case):
    made, tiny = case
    answers = []
    for threads in (1, 2):
        running = made(tiny.artifact, tiny.files, threads)
        answers.append(running.run(tiny.feed(batch_of(1, 31)))[0])
        running.close()
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


def test_two_instances_in_two_threads_do_not_disturb_each_other(case):
    made, tiny = case
    expected = {seed: tiny.reference(batch_of(1, 24, seed)) for seed in (1, 2)}
    worst: dict[int, float] = {}

    def work(seed: int) -> None:
        running = made(tiny.artifact, tiny.files, 1)
        feed = tiny.feed(batch_of(1, 24, seed))
        worst[seed] = max(float(np.abs(running.run(feed)[0] - expected[seed]).max()) for _ in range(20))
        running.close()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(worst) == set(expected)
    assert all(worst[seed] <= 1e-4 * np.ptp(expected[seed]) for seed in expected)


def test_a_closed_engine_refuses_to_run(engine, tiny):
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(tiny.feed(batch_of(1, 16)))


def test_an_unknown_input_is_an_engine_error_and_the_engine_lives_on(engine, tiny):
    batch = batch_of(1, 16)
    with pytest.raises(EngineError, match=tiny.artifact.name):
        engine.run({"nonsense": next(iter(tiny.feed(batch).values()))})
    expected = tiny.reference(batch)
    assert np.abs(engine.run(tiny.feed(batch))[0] - expected).max() <= 1e-4 * np.ptp(expected)


def test_files_that_are_no_model_are_refused(case):
    made, tiny = case
    broken = dict.fromkeys(tiny.files, b"this is no model")
    with pytest.raises(EngineError, match=tiny.artifact.name):
        made(tiny.artifact, broken, 1)


@pytest.mark.parametrize("name", sorted(name for name, made in ENGINES.items() if hasattr(made, "libraries")))
def test_a_missing_library_names_the_command(name, tiny_of, monkeypatch):
    for library in ENGINES[name].libraries:
        for module in [m for m in sys.modules if m == library or m.startswith(f"{library}.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)
    artifact = tiny_of("fake").artifact
    with pytest.raises(EngineMissing, match=rf"engine '{name}' needs .* pip install 'boardfit\[\w+\]'"):
        ENGINES[name](dataclasses.replace(artifact, files=("a", "b")), {"a": b"", "b": b""}, 1)


def test_every_format_of_a_bundle_has_an_engine():
    assert {format for made in ENGINES.values() for format in made.formats} >= set(FORMATS)


def test_an_unknown_engine_names_the_registered_ones():
    with pytest.raises(EngineMissing, match="'lunar': registered are fake, litert, ncnn, onnxruntime"):
        find_engine("lunar")


@pytest.mark.parametrize("name", sorted(full for each in VARIANTS.values() for full in each))
def test_a_variant_that_is_absent_says_how_to_come_by_it(name, tiny_of):
    base = name.partition(":")[0]
    if not is_installed(ENGINES[base]):
        pytest.skip(f"the library of {base} is not installed")
    tiny = tiny_of(ENGINES[base].formats[0])
    try:
        find_engine(name)(tiny.artifact, tiny.files, 1).close()
    except EngineMissing as error:
        assert re.search(rf"engine '{name}' needs|does not start here", str(error))
        assert re.search("pip install|build|take", str(error))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnxruntime:lunar", "no provider 'lunar' .* cuda, tensorrt, nnapi, xnnpack"),
        ("onnxruntime:", "no provider ''"),
        ("litert:/no/such/delegate.so", "no delegate '/no/such/delegate.so'"),
        ("ncnn:vulkan", "'ncnn' has no variant"),
        ("lunar:cuda", "no engine 'lunar:cuda'"),
    ],
)
def test_an_unknown_variant_is_named(name, message):
    with pytest.raises(EngineMissing, match=message):
        find_engine(name)


def test_an_isolated_engine_keeps_its_variant(tiny_of):
    """Its class is imported anew in the other process, where it must not become the plain one."""
    if not is_installed(ENGINES["onnxruntime"]):
        pytest.skip("the library of onnxruntime is not installed")
    tiny = tiny_of("onnx")
    host = EngineHost(find_engine("onnxruntime:nnapi"), Isolation())
    try:
        with pytest.raises(EngineMissing, match="needs NnapiExecutionProvider"):
            isolated_engine(find_engine("onnxruntime:nnapi"), host)(tiny.artifact, tiny.files, 1)
    finally:
        host.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # LiteRT's own, as it gives up
def test_a_library_that_is_no_delegate_is_named(tiny_of):
    pytest.importorskip("ai_edge_litert")
    library = next(iter(Path(np.__file__).parent.parent.glob("numpy.libs/*.so*")), None)
    if library is None:
        pytest.skip("numpy brings no shared library here")
    tiny = tiny_of("tflite")
    with pytest.raises(EngineMissing, match="cannot be loaded"):
        find_engine(f"litert:{library}")(tiny.artifact, tiny.files, 1)
    gc.collect()


def test_an_opencv_of_before_5_is_named(monkeypatch, tiny_of):
    import cv2

    monkeypatch.setattr(cv2, "__version__", "4.11.0")
    assert not is_installed(ENGINES["opencv"])
    tiny = tiny_of("fake")
    with pytest.raises(EngineMissing, match=r"needs OpenCV 5, this is 4\.11\.0: pip install"):
        ENGINES["opencv"](tiny.artifact, tiny.files, 1)


def test_opencv_refuses_padding_that_it_gets_wrong(tiny_of):
    """Found on EfficientNet-Lite0: SAME_UPPER at stride 2 and an even side is padded at the wrong end."""
    opencv = ENGINES["opencv"]
    if not is_installed(opencv):
        pytest.skip("OpenCV is older than 5")
    onnx = pytest.importorskip("onnx")
    tiny = tiny_of("onnx")
    model = onnx.load_from_string(tiny.files["net.onnx"])
    node = model.graph.node[0]
    del node.attribute[:]
    node.attribute.extend([onnx.helper.make_attribute("auto_pad", "SAME_UPPER")])
    node.attribute.extend([onnx.helper.make_attribute("strides", [2, 2])])
    with pytest.raises(EngineError, match="pads 'same' otherwise"):
        opencv(tiny.artifact, {"net.onnx": model.SerializeToString()}, 1)


def test_an_engine_by_name_only_is_never_offered(monkeypatch):
    monkeypatch.setattr(engines, "is_installed", lambda made: True)
    assert available_engines("onnx") == ["onnxruntime"]
    monkeypatch.setattr(engines, "is_installed", lambda made: made is ENGINES["opencv"])
    assert available_engines("onnx") == []


def test_available_engines_are_those_that_run_the_format():
    assert available_engines("fake") == ["fake"]
    assert available_engines("lunar") == []
    assert set(available_engines("onnx")) <= {"onnxruntime"}
