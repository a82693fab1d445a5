from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec

import pytest

from boardfit.benchmarks.cases import ALL, Wanted, cases_of, opener
from boardfit.bundle import open_bundle
from boardfit.errors import EngineMissing, RecipeError
from boardfit.runtime.choose import default_threads
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.specs import classic_policy


@pytest.fixture
def path(tmp_path):
    write_fake_bundle(tmp_path / "fake.boardfit", sizes=(32, 48, 64))
    return tmp_path / "fake.boardfit"


@pytest.fixture
def manifest(path):
    with open_bundle(path) as bundle:
        return bundle.manifest


def cases(manifest, **wanted):
    return cases_of(manifest, Wanted(**wanted), frame_size_wh=(128, 96))


def with_precisions(manifest, *precisions):
    fp32 = manifest.artifacts[0]
    return replace(manifest, artifacts=tuple(replace(fp32, precision=name) for name in precisions))


def test_by_default_it_is_the_case_that_load_would_run(manifest):
    (case,) = cases(manifest)
    assert (case.engine, case.precision, case.threads) == ("fake", "fp32", default_threads())
    assert (case.policy, case.sizes) == ("entropy", (32, 48, 64))
    assert (case.fps, case.batch, case.frame_size_wh) == (None, 1, (128, 96))


def test_every_combination_is_measured_once(manifest):
    found = cases(manifest, threads=(1, 2), sizes=(32, 64, 32))
    assert [(case.sizes, case.threads) for case in found] == [((32,), 1), ((32,), 2), ((64,), 1), ((64,), 2)]
    assert {case.policy for case in found} == {"fixed"}


def test_all_sizes_and_all_precisions(manifest):
    both = with_precisions(manifest, "int8", "fp32")
    found = cases(both, engines=ALL, precisions=ALL, sizes=ALL, threads=(1,))
    assert [(case.precision, case.sizes[0]) for case in found] == [
        *(("fp32", size) for size in (32, 48, 64)),
        *(("int8", size) for size in (32, 48, 64)),
    ]


def test_a_fixed_policy_over_several_sizes_is_its_largest(manifest):
    fixed = replace(manifest, policy=classic_policy("fixed", (32, 48)))
    assert cases(fixed)[0].sizes == (48,)
    assert cases(manifest, policy="fixed")[0].sizes == (64,)


def test_only_its_scenario_has_a_rate_or_a_batch(manifest):
    (camera,) = cases(manifest, scenario="camera", fps=7.5, batch=4)
    (offline,) = cases(manifest, scenario="offline", fps=7.5, batch=4)
    assert (camera.fps, camera.batch) == (7.5, 1)
    assert (offline.fps, offline.batch) == (None, 4)


def test_a_case_is_opened_as_users_open_it(manifest, path):
    (case,) = cases(manifest, sizes=(48,), threads=(1,))
    with opener(path, case)() as session:
        assert (session.engine, session.sizes, session.policy.kind) == ("fake", (48,), "fixed")
    (case,) = cases(manifest, policy="two-look", threads=(2,))
    with opener(path, case)() as session:
        assert (session.threads, session.sizes, session.policy.kind) == (2, (32, 48, 64), "two-look")


@pytest.mark.parametrize(
    ("wanted", "error", "told"),
    [
        ({"engines": ("nonsense",)}, EngineMissing, "there is no engine 'nonsense'"),
        ({"engines": ("tflite",)}, EngineMissing, "tflite_runtime, which is not installed"),
        ({"engines": ("opencv",)}, RecipeError, "runs onnx, but the bundle has fake only"),
        ({"precisions": ("int8",)}, RecipeError, "are fp32, not int8"),
        ({"sizes": (33,)}, RecipeError, "not 33"),
        ({"policy": "nonsense"}, RecipeError, "no policy 'nonsense'"),
        ({"affinity": (4096,)}, RecipeError, "among the usable cores"),
    ],
    ids=["unknown engine", "absent engine", "no artifact", "precision", "size", "policy", "core"],
)
def test_what_the_bundle_or_the_machine_lacks_is_told_before_anything_runs(manifest, wanted, error, told):
    if wanted.get("engines") == ("tflite",) and find_spec("tflite_runtime"):
        pytest.skip("tflite-runtime is installed here")
    with pytest.raises(error, match=told):
        cases(manifest, **wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        {"scenario": "server"},
        {"sizes": (32,), "policy": "entropy"},
        {"threads": (0,)},
        {"batch": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
    ],
    ids=str,
)
def test_a_wish_without_sense_is_refused(wanted):
    with pytest.raises(RecipeError):
        Wanted(**wanted)


def test_an_engine_is_bound_to_the_cores_that_are_named(manifest, path):
    core = min(os.sched_getaffinity(0))
    (case,) = cases(manifest, affinity=(core,))
    assert (case.affinity, case.threads) == ((core,), 1)
    with opener(path, case)() as session:
        assert session.affinity == (core,)
