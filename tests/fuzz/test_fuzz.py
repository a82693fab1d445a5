"""A short run of what ``make fuzz`` does for long, and properties that hypothesis tries to break."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import import_onnx

from boardfit.bundle.manifest import Manifest
from boardfit.bundle.reader import parse_npy
from boardfit.bundle.rules import parse_json, parse_sums
from boardfit.bundle.signing import parse_signatures
from boardfit.errors import BoardfitError, BundleError

FUZZ = Path(__file__).with_name("fuzz.py")
LIBRARY = {"onnx-import": "onnx", "keras-import": "keras", "engine-litert": "ai_edge_litert"}
COUNTS = {
    "bundle-bytes": 500,
    "bundle-contents": 500,
    "onnx-import": 100,
    "engine-litert": 500,
    "engine-onnxruntime": 500,
    "engine-ncnn": 500,
    "engine-opencv": 100,
}


def fuzz(target: str, tmp_path: Path, *more: str) -> tuple[int, dict]:
    log = tmp_path / "log.jsonl"
    command = [sys.executable, str(FUZZ), target, "--seconds", "800", "--log", str(log), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850)
    assert log.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(log.read_text())


@pytest.mark.parametrize("target", COUNTS)
def test_damaged_inputs_are_refused_or_contained(target, tmp_path):
    library = LIBRARY.get(target, target.removeprefix("engine-"))
    if target not in ("bundle-bytes", "bundle-contents", "engine-opencv") and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    status, tally = fuzz(target, tmp_path, "--count", str(COUNTS[target]))
    assert (status, tally["faults"]) == (0, [])
    assert tally["count"] == COUNTS[target]
    assert tally["refused"] > 0.3 * tally["count"]


@pytest.mark.parametrize(
    ("target", "status", "crashed", "faults"),
    [("engine-dying", 0, 3, 0), ("dying", 1, 3, 3), ("raising", 1, 0, 3)],
)
def test_the_fuzzer_sees_deaths_and_faults_and_goes_on(target, status, crashed, faults, tmp_path):
    found, tally = fuzz(target, tmp_path, "--count", "10")
    assert found == status
    assert (tally["count"], tally["crashed"], len(tally["faults"])) == (10, crashed, faults)
    assert all(f"seed {2 + 3 * index}" in fault for index, fault in enumerate(tally["faults"]))


@pytest.mark.long
def test_the_fuzzer_sees_a_hang(tmp_path):
    status, tally = fuzz("engine-endless", tmp_path, "--count", "4")
    assert (status, tally["count"], tally["hung"]) == (0, 4, 1)


@given(st.binary(max_size=200))
def test_parsers_of_bytes_raise_nothing_but_their_own_error(data):
    for parse in (parse_signatures, Manifest.from_bytes, lambda it: parse_npy(it, "it")):
        with pytest.raises(BundleError):
            parse(data)
    with suppress(BundleError):
        parse_sums(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_any_json_is_read_or_refused(value):
    data = json.dumps(value).encode()
    try:
        read = parse_json(data, "it")
    except BundleError:
        return
    assert json.dumps(read) == json.dumps(value)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> dict:
    from boardfit.bundle import open_bundle
    from boardfit.runtime.engines.fake import write_fake_bundle

    path = tmp_path_factory.mktemp("fuzz") / "a.boardfit"
    write_fake_bundle(path, sizes=(8, 16), classes=3)
    with open_bundle(path) as bundle:
        return bundle.manifest.to_dict()


def places(value, path=()):
    """Yield the path of every value in a manifest."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=300)
@given(st.data())
def test_a_manifest_with_any_other_value_anywhere_is_refused_or_means_the_same(manifest, data):
    changed = json.loads(json.dumps(manifest))
    path = data.draw(st.sampled_from([path for path in places(changed) if path]))
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = data.draw(JSON)
    try:
        read = Manifest.from_bytes(json.dumps(changed).encode())
    except BoardfitError:
        return
    assert Manifest.from_bytes(read.to_bytes()) == read


NUMBERS = st.sampled_from([-(2**31), -3, -1, 0, 1, 2, 3, 5, 1000, 2**31, 2**63 - 1])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_onnx_graph_with_any_other_value_anywhere_is_imported_or_refused(data):
    """Whole files whose graphs make no sense, which damaged bytes seldom give."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("keras")
    model = onnx.load(FUZZ.with_name("corpus") / "net.onnx")
    nodes = model.graph.node
    names = [name for node in nodes for name in (*node.input, *node.output)]
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(nodes)))
        numbers = [each for each in node.attribute if each.ints or each.HasField("i")]
        dims = [tensor.dims for tensor in model.graph.initializer if tensor.dims]
        what = data.draw(st.sampled_from(["input", "output", "operator", "number", "shape", "order"]))
        if what in ("input", "output") and getattr(node, what):
            ends = getattr(node, what)
            ends[data.draw(st.integers(0, len(ends) - 1))] = data.draw(st.sampled_from([*names, "", "no"]))
        elif what == "operator":
            node.op_type = data.draw(st.sampled_from([each.op_type for each in nodes] + ["Loop", "Reshape"]))
        elif what == "number" and numbers:
            attribute = data.draw(st.sampled_from(numbers))
            if attribute.ints:
                place = data.draw(st.integers(0, len(attribute.ints) - 1))
                attribute.ints[place] = data.draw(NUMBERS)
            else:
                attribute.i = data.draw(NUMBERS)
        elif what == "shape" and dims:
            changed = data.draw(st.sampled_from(dims))
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(NUMBERS)
        elif what == "order":
            nodes.insert(0, nodes.pop())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(model.SerializeToString())
        with suppress(BoardfitError):
            import_onnx(path)
