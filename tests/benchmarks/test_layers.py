from __future__ import annotations

import html.parser

import pytest

from boardfit.benchmarks.layers import layers_html, profile_layers
from boardfit.bundle import open_bundle
from boardfit.errors import EngineError, RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.engines.layers import LayerProfile, LayerTime


@pytest.fixture
def bundle(three_engines):
    with open_bundle(three_engines) as opened:
        yield opened


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
@pytest.mark.parametrize("size", [None, 16])
def test_a_tiny_net_has_its_few_layers(bundle, engine, size):
    layers = profile_layers(bundle, Setup(engine, threads=1), size=size, runs=7)
    assert layers.setup == Setup(engine, "fp32", 1, ()) and layers.size == (size or 31)
    kinds = " ".join(layer.kind for layer in layers.profile.layers)
    assert "Conv" in kinds and ("Gemm" in kinds or "Fully Connected" in kinds)
    assert all(len(layer.times_s) == 7 for layer in layers.profile.layers)
    assert 0.0 < layers.profile.sum_s <= layers.profile.p50_s
    assert len({layer.name for layer in layers.profile.layers}) == len(layers.profile.layers)
    assert sum(count for _, count, _ in layers.kinds) == len(layers.profile.layers)


def test_a_larger_image_goes_through_the_same_layers_in_the_same_order(bundle):
    for engine in ("litert", "onnxruntime"):
        small, large = (
            profile_layers(bundle, Setup(engine, threads=1), size=size, runs=2) for size in (16, 31)
        )
        assert [layer.kind for layer in small.profile.layers] == [
            layer.kind for layer in large.profile.layers
        ]


@pytest.mark.parametrize(
    ("setup", "options", "message"),
    [
        (Setup("ncnn"), {}, "does not tell what its layers take: choose among .*litert"),
        (Setup("litert"), {"size": 20}, "choose among these"),
        (Setup("litert"), {"runs": 0}, "at least 1"),
        (Setup("litert", "int8"), {}, "not int8"),
    ],
    ids=["engine", "size", "runs", "precision"],
)
def test_what_cannot_be_profiled_is_told(bundle, setup, options, message):
    with pytest.raises(RecipeError, match=message):
        profile_layers(bundle, setup, **options)


def test_a_bundle_whose_engine_has_no_profiler_says_so(tmp_path):
    write_fake_bundle(tmp_path / "b")
    with open_bundle(tmp_path / "b") as bundle, pytest.raises(RecipeError, match="engine 'fake'"):
        profile_layers(bundle, Setup())


def test_sums_are_by_run_and_medians_by_layer():
    layers = (
        LayerTime("0", "Conv", (0.001, 0.002, 0.009)),
        LayerTime("1", "Conv", (0.004, 0.003, 0.001)),
    )
    profile = LayerProfile(layers, (0.006, 0.006, 0.011))
    assert [layer.p50_s for layer in layers] == [0.002, 0.003]
    assert profile.sum_s == pytest.approx(0.005) and profile.p50_s == 0.006


@pytest.mark.parametrize(
    ("layers", "whole_s"),
    [((), (1.0,)), ((LayerTime("0", "Conv", (1.0,)),), ()), ((LayerTime("0", "Conv", (1.0,)),), (1.0, 2.0))],
    ids=["no layer", "no run", "another number"],
)
def test_a_profile_whose_runs_differ_cannot_be_read(layers, whole_s):
    with pytest.raises(EngineError, match="cannot be read"):
        LayerProfile(layers, whole_s)


def test_the_page_shows_every_layer_and_needs_nothing_but_itself(bundle):
    layers = profile_layers(bundle, Setup("onnxruntime", threads=1), runs=3)
    text = layers_html(layers)
    assert text.count('class="layer"') == 2 * len(layers.profile.layers)
    assert layers.sum_text in text and "http" not in text and "src=" not in text
    html.parser.HTMLParser().feed(text)
