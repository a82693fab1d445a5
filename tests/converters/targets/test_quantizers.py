"""Every quantizer, found through its entry point, on one small net: a new one gets these for free."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest

from boardfit.converters.calibrate import estimate, observe
from boardfit.converters.quantize.bench import find_quantizer, run_exported
from boardfit.converters.quantize.blame import blame, worst_first
from boardfit.converters.targets import export, file_stem
from boardfit.errors import BoardfitError, ExportError, RecipeError
from boardfit.specs import QUANTIZED

QUANTIZERS = sorted(point.name for point in entry_points(group="boardfit.quantizers"))
SIZE = 28
MACS = {"conv": 14 * 14 * 16 * 27 + 14 * 14 * 16 * 16 + 7 * 7 * 16 * 32, "dense": 32 * 7}
DEPTHWISE = (14 * 14 + 7 * 7) * 16 * 25
"""Of the net in conftest.py at 28 pixels."""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).normal(size=(24, SIZE, SIZE, 3)).astype(np.float32)


class Case:
    """A format's quantizer with the fp32 artifact of the net, its ranges and its int8 one."""

    def __init__(self, name, model, images):
        self.quantizer = find_quantizer(name)
        self.twin = export(model, format_name=name, sizes=(SIZE,), precision="fp32")
        probe = self.quantizer.open_probe(self.twin)
        stats = observe(probe, images)
        probe.close()
        self.ranges = {key: estimate(each, "min-max") for key, each in stats.items()}
        self.int8 = self.quantizer.quantize(self.twin, ranges=self.ranges)


@pytest.fixture(scope="module", params=QUANTIZERS)
def case(request, tiny_model, images):
    return Case(request.param, tiny_model, images)


def noise(actual, expected):
    return float(((actual - expected) ** 2).sum() / (expected**2).sum())


def test_its_schemes_are_precisions_and_int8_is_one(case):
    assert set(case.quantizer.SCHEMES) <= set(QUANTIZED)
    assert "int8" in case.quantizer.SCHEMES


def test_the_layers_are_those_of_the_net(case):
    layers = case.quantizer.layers(case.twin)
    assert len({layer.name for layer in layers}) == len(layers) == 6
    macs = {kind: sum(layer.macs for layer in layers if layer.kind == kind) for kind in ("conv", "dense")}
    assert macs == MACS
    assert sum(layer.macs for layer in layers) == sum(MACS.values()) + DEPTHWISE
    assert sum(layer.weights for layer in layers) == 16 * 27 + 2 * 16 * 25 + 16 * 16 + 16 * 32 + 32 * 7
    assert not any(layer.integer for layer in layers)


def test_all_layers_of_the_int8_artifact_run_in_integers(case):
    layers = case.quantizer.layers(case.int8)
    assert all(layer.integer for layer in layers)
    named = {layer.name: replace(layer, integer=False) for layer in layers}
    for layer in case.quantizer.layers(case.twin):
        assert named[layer.name].macs == layer.macs
        assert named[layer.name].output == layer.output


def test_the_int8_artifact_is_another_file_with_the_same_ends(case):
    old, new = case.twin.artifact, case.int8.artifact
    assert (new.precision, new.sizes, new.inputs, new.outputs) == (
        "int8",
        old.sizes,
        old.inputs,
        old.outputs,
    )
    stem = file_stem(old.format, precision="int8", sizes=old.sizes)
    assert all(path.startswith(stem) for path in new.files)
    assert not set(new.files) & set(old.files)


def test_it_answers_like_fp32_in_float32(case, images):
    actual, expected = run_exported(case.int8, images)[0], run_exported(case.twin, images)[0]
    assert actual.dtype == np.float32
    assert 0.0 < noise(actual, expected) < 0.01


def test_every_scheme_answers_like_fp32(case, images):
    expected = run_exported(case.twin, images)[0]
    for scheme in case.quantizer.SCHEMES:
        ranges = {} if scheme == "dynamic" else case.ranges
        made = case.quantizer.quantize(case.twin, ranges=ranges, scheme=scheme)
        assert made.artifact.precision == scheme
        assert noise(run_exported(made, images)[0], expected) < 0.01


def test_the_probes_see_what_the_layers_read_and_write(case, images):
    probes = [case.quantizer.open_probe(each) for each in (case.twin, case.int8)]
    twin, int8 = (probe.run(images[:1]) for probe in probes)
    for probe in probes:
        probe.close()
        probe.close()
    assert all(values.dtype == np.float32 for seen in (twin, int8) for values in seen.values())
    for layer in case.quantizer.layers(case.twin):
        assert twin[layer.output].shape == int8[layer.output].shape
        assert 0.0 < noise(int8[layer.output], twin[layer.output]) < 0.02
        assert all(name in twin for name in layer.inputs)


def test_the_probe_sees_the_answer(case, images):
    for exported in (case.twin, case.int8):
        probe = case.quantizer.open_probe(exported)
        seen = probe.run(images[:1])
        probe.close()
        answer = run_exported(exported, images[:1])[0]
        found = [v for v in seen.values() if v.size == answer.size]
        assert min(np.abs(v.reshape(answer.shape) - answer).max() for v in found) < 1e-4 * np.ptp(answer)


def test_any_one_layer_can_stay_in_float(case, images):
    expected = run_exported(case.twin, images)[0]
    for name in (layer.name for layer in case.quantizer.layers(case.twin)):
        kept = case.quantizer.quantize(case.twin, ranges=case.ranges, keep_float=frozenset([name]))
        floats = {layer.name for layer in case.quantizer.layers(kept) if not layer.integer}
        assert floats == {name}
        assert noise(run_exported(kept, images)[0], expected) < 0.01


def test_float_layers_give_back_precision(case, images):
    expected = run_exported(case.twin, images)[0]
    names = [layer.name for layer in case.quantizer.layers(case.twin)]
    floats = case.quantizer.quantize(case.twin, ranges=case.ranges, keep_float=frozenset(names))
    before, after = (noise(run_exported(each, images)[0], expected) for each in (case.int8, floats))
    assert after < 0.5 * before


def test_blame_knows_every_layer(case, images):
    rows = blame(case.quantizer, case.int8, case.twin, images[:4])
    assert len(rows) == 6
    assert all(10.0 < row.sqnr_db < 80.0 for row in rows)
    assert len(worst_first(rows)) == 6


def test_two_calls_write_the_same_bytes_and_leave_the_twin_alone(case):
    before = dict(case.twin.files)
    again = case.quantizer.quantize(case.twin, ranges=case.ranges)
    assert again.files == case.int8.files
    assert case.twin.files == before


def test_ranges_decide(case, images):
    """Half of every range clips: a quantizer that took ranges of its own would answer as before."""
    halves = {key: type(each)(each.low / 2, each.high / 2) for key, each in case.ranges.items()}
    clipped = case.quantizer.quantize(case.twin, ranges=halves)
    expected = run_exported(case.twin, images)[0]
    before, after = (noise(run_exported(each, images)[0], expected) for each in (case.int8, clipped))
    assert after > 3.0 * before


def test_a_lacking_range_is_refused(case):
    with pytest.raises(ExportError):
        case.quantizer.quantize(case.twin, ranges={})


def test_a_scheme_of_its_own_is_refused(case):
    with pytest.raises(BoardfitError):
        case.quantizer.quantize(case.twin, ranges=case.ranges, scheme="int3")


def test_a_format_without_quantizer_is_named():
    with pytest.raises(RecipeError, match="'coreml' cannot be quantized: ncnn, onnx, tflite can"):
        find_quantizer("coreml")
