from __future__ import annotations

import os

import pytest

from boardfit.benchmarks import candidates as module
from boardfit.benchmarks.candidates import Wish, candidates, core_groups
from boardfit.bundle import open_bundle
from boardfit.errors import EngineMissing, RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines import find_engine
from boardfit.runtime.engines.fake import write_fake_bundle

CORES = tuple(sorted(os.sched_getaffinity(0)))


@pytest.fixture
def bundle(three_engines):
    with open_bundle(three_engines) as opened:
        yield opened


def names(setups) -> set[str]:
    return {f"{setup.engine} {setup.precision}" for setup in setups}


def test_what_the_proofs_admit_is_tried(bundle):
    found = candidates(bundle, Wish(), cores=4)
    assert names(found.by_size[16]) >= {
        "litert fp32",
        "ncnn fp32",
        "onnxruntime fp32",
        "onnxruntime fp16",
        "onnxruntime int8",
    }
    assert "onnxruntime int8" not in names(found.by_size[31])
    assert "onnxruntime int8 at 31: the bundle's gate refused it" in found.left_out
    assert {setup.threads for setup in found.by_size[16]} == {1, 2, 4}
    assert {setup.affinity for setup in found.by_size[16]} == {()}


def test_a_precision_that_is_named_needs_no_proof(bundle):
    found = candidates(bundle, Wish(precisions=("int8",), threads=(1,)), cores=4)
    assert names(found.by_size[31]) == {"onnxruntime int8"}


def test_a_precision_without_proof_is_left_out_with_the_word_that_lets_it_in(bundle, monkeypatch):
    monkeypatch.setattr(type(bundle), "measurements", None)
    found = candidates(bundle, Wish(), cores=1)
    assert names(found.setups) >= {"litert fp32", "onnxruntime fp32"}
    assert not {"onnxruntime fp16", "onnxruntime int8"} & names(found.setups)
    assert any("--precision fp16" in reason for reason in found.left_out)


def test_an_engine_that_is_not_installed_is_left_out_with_the_reason(bundle, monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda engine: engine is not find_engine("ncnn"))
    found = candidates(bundle, Wish(), cores=1)
    assert "ncnn: ncnn is not installed" in found.left_out
    assert "ncnn fp32" not in names(found.setups)
    with pytest.raises(EngineMissing, match="ncnn is not installed"):
        candidates(bundle, Wish(engines=("ncnn",)), cores=1)


def test_an_engine_that_nobody_knows_is_refused(bundle):
    with pytest.raises(EngineMissing, match="no engine 'tensorrt': registered are"):
        candidates(bundle, Wish(engines=("litert", "tensorrt")), cores=1)


def test_a_bundle_with_one_artifact_has_one_candidate(tmp_path):
    write_fake_bundle(tmp_path / "b")
    with open_bundle(tmp_path / "b") as bundle:
        found = candidates(bundle, Wish(), cores=1)
    assert found.setups == (Setup("fake", "fp32", 1, ()),)


def test_nothing_left_says_why(bundle):
    with pytest.raises(RecipeError, match="not fp16"):
        candidates(bundle, Wish(engines=("litert",), precisions=("fp16",)), cores=1)


def test_kinds_of_cores_are_tried_each_with_as_many_threads(bundle):
    wish = Wish(engines=("litert",))
    found = candidates(bundle, wish, cores=6, groups=[(4, 5), (0, 1, 2, 3)])
    plans = {(setup.affinity, setup.threads) for setup in found.setups}
    assert plans == {
        *(((), threads) for threads in (1, 2, 4, 6)),
        *(((4, 5), threads) for threads in (1, 2)),
        *(((0, 1, 2, 3), threads) for threads in (1, 2, 4)),
    }


def test_named_threads_are_not_more_than_the_cores_they_are_bound_to(bundle):
    wish = Wish(engines=("litert",), threads=(1, 2), affinities=(CORES[:1],))
    assert [setup.threads for setup in candidates(bundle, wish, cores=2).setups] == [1]
    wish = Wish(engines=("litert",), threads=(2,), affinities=(CORES[:1],))
    with pytest.raises(RecipeError, match="fits on the cores"):
        candidates(bundle, wish, cores=2)


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"affinities": ((10_000,),)}, "usable cores"),
        ({"threads": (0,)}, "at least 1"),
        ({"threads": ()}, "at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(wish, match):
    with pytest.raises(RecipeError, match=match):
        Wish(**wish)


def test_a_size_that_the_bundle_lacks_is_refused(bundle):
    with pytest.raises(RecipeError, match="choose among these"):
        candidates(bundle, Wish(sizes=(16, 20)), cores=1)
    assert tuple(candidates(bundle, Wish(sizes=(31, 16)), cores=1).by_size) == (16, 31)


def write_cores(folder, capacities, name="cpu_capacity"):
    for core, capacity in capacities.items():
        (folder / f"cpu{core}" / name).parent.mkdir(parents=True)
        (folder / f"cpu{core}" / name).write_text(f"{capacity}\n")


@pytest.mark.parametrize("name", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_kinds_of_cores_are_told_by_the_kernel(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    write_cores(tmp_path, {0: 400, 1: 400, 2: 1024, 3: 1024}, name)
    assert core_groups(tmp_path) == ((2, 3), (0, 1))


@pytest.mark.parametrize(
    "capacities",
    [{0: 1, 1: 1, 2: 1}, {0: 1, 1: 2}, {0: 1, 1: 2, 2: "?"}, {}],
    ids=["one", "silent", "?", "none"],
)
def test_where_all_are_of_one_kind_or_silent_there_are_none(tmp_path, monkeypatch, capacities):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    write_cores(tmp_path, capacities)
    assert core_groups(tmp_path) == ()
