from __future__ import annotations

import json
import logging
import os
from dataclasses import replace

import numpy as np
import pytest

import boardfit
from boardfit.benchmarks.tuning import (
    Trial,
    Tuning,
    key_here,
    machine_here,
    models_id,
    own_path,
    write_tuning,
)
from boardfit.bundle import open_bundle
from boardfit.errors import EngineError
from boardfit.loading import answering_sizes
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.specs import PolicySpec

CORE = min(os.sched_getaffinity(0))
FRAME = np.zeros((40, 40, 3), np.uint8)


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO, "boardfit")
    return caplog


def tuning_of(path, *setups: Setup, sizes=(16, 24, 31)) -> Tuning:
    """The setups, the best first, at every size."""
    with open_bundle(path) as bundle:
        key = key_here(bundle.manifest, [setup.engine for setup in setups])
        trials = tuple(
            Trial(size, setup, 96, 0.001 * (1 + place), 0.001 * (1 + place))
            for size in sizes
            for place, setup in enumerate(setups)
        )
        return Tuning(key, "tiny", bundle.content_id, "b", "p95", 96, trials, (), (), "0", "2026-11-25")


def keep(path, tuning: Tuning):
    with open_bundle(path) as bundle:
        out = own_path(models_id(bundle.manifest), machine_here())
    write_tuning(out, tuning)
    return out


def of(model) -> Setup:
    return Setup(model.engine, model.precision, model.threads, model.affinity)


BEST = Setup("onnxruntime", "fp16", 2, ())
NCNN = Setup("ncnn", "fp32", 1, (CORE,))


def test_what_was_tuned_is_used_and_told_once(three_engines, log):
    path = keep(three_engines, tuning_of(three_engines, BEST, NCNN))
    with boardfit.load(three_engines) as model:
        assert of(model) == BEST
        assert model(FRAME).looks[0] == 16
    assert [record.getMessage() for record in log.records] == [f"tuned: {BEST.text}, by {path}"]


def test_without_a_tuning_all_is_as_ever(three_engines, log):
    with boardfit.load(three_engines) as model, boardfit.runtime.load(three_engines) as plain:
        assert of(model) == of(plain)
    assert log.records == []


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"threads": 1}, Setup("ncnn", "fp32", 1, (CORE,))),
        ({"engine": "ncnn"}, NCNN),
        ({"engine": "ncnn", "affinity": ()}, Setup("ncnn", "fp32", 2, ())),
        ({"precision": "fp32"}, NCNN),
        ({"engine": "litert"}, None),
        ({"engine": "onnxruntime", "precision": "fp16", "threads": 2, "affinity": ()}, BEST),
        ({"isolate": True}, BEST),
        ({"size": 24}, BEST),
        ({"tuning": False}, None),
    ],
    ids=str,
)
def test_what_the_caller_says_is_never_changed(three_engines, named, expected):
    keep(three_engines, tuning_of(three_engines, BEST, NCNN, Setup("ncnn", "fp32", 2, ())))
    plain = {name: value for name, value in named.items() if name != "tuning"}
    with (
        boardfit.load(three_engines, **named) as model,
        boardfit.runtime.load(three_engines, **plain) as bare,
    ):
        assert of(model) == (expected or of(bare))


def test_a_named_tuning_is_used_where_there_is_no_own(three_engines, tmp_path):
    write_tuning(tmp_path / "t.json", tuning_of(three_engines, NCNN))
    with boardfit.load(three_engines, tuning=tmp_path / "t.json") as model:
        assert of(model) == NCNN
    with boardfit.load(three_engines, tuning=str(tmp_path / "t.json")) as model:
        assert of(model) == NCNN


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"machine": "another board"}, "another board"),
        ({"models_id": "0" * 64}, "other models"),
        ({"versions": {"onnxruntime": "0.1"}}, "onnxruntime was 0.1"),
        ({"versions": {"onnxruntime": "1", "no-such-engine": "1"}}, "onnxruntime was 1"),
    ],
    ids=["board", "bundle", "version", "engines"],
)
@pytest.mark.parametrize("named", [False, True], ids=["own", "named"])
def test_one_of_elsewhere_is_not_used_and_the_log_says_why(three_engines, log, change, word, named):
    tuning = tuning_of(three_engines, BEST)
    path = keep(three_engines, replace(tuning, key=replace(tuning.key, **change)))
    with boardfit.load(three_engines, tuning=path if named else True) as model:
        assert model.engine != "onnxruntime"
    (record,) = log.records
    assert word in record.getMessage() and "not used" in record.getMessage()
    assert record.levelno == (logging.WARNING if named else logging.INFO)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 20261125}'], ids=repr)
def test_a_damaged_one_is_not_used_with_a_warning(three_engines, log, content):
    path = keep(three_engines, tuning_of(three_engines, BEST))
    path.write_text(content)
    with boardfit.load(three_engines) as model:
        assert model.engine != "onnxruntime"
    (record,) = log.records
    assert record.levelno == logging.WARNING and "tuning" in record.getMessage()


def test_one_that_is_not_there_or_a_folder_is_a_warning(three_engines, log, tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with boardfit.load(three_engines, tuning=path) as model:
            assert model(FRAME)
    assert [record.levelno for record in log.records] == [logging.WARNING] * 2


def test_a_setup_that_does_not_work_here_is_a_warning_and_no_error(three_engines, log, monkeypatch):
    keep(three_engines, tuning_of(three_engines, Setup("onnxruntime", "fp16", 1, (4000,))))
    with boardfit.load(three_engines) as model:
        assert model.engine != "onnxruntime" and model(FRAME)
    assert "does not work here" in log.records[-1].getMessage()
    from boardfit.runtime.engines.onnxruntime import OnnxRuntimeEngine

    def refuse(*_):
        raise EngineError("no")

    keep(three_engines, tuning_of(three_engines, BEST))
    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", refuse)
    with boardfit.load(three_engines) as model:
        assert model.engine != "onnxruntime" and model(FRAME)


def test_sizes_that_were_not_tuned_get_no_advice(three_engines, log):
    keep(three_engines, tuning_of(three_engines, BEST, sizes=(16,)))
    with boardfit.load(three_engines) as model:
        assert model.engine != "onnxruntime"
    with boardfit.load(three_engines, size=16) as model:
        assert of(model) == BEST


def test_a_swapped_bundle_goes_by_its_own_tuning(three_engines, tmp_path):
    keep(three_engines, tuning_of(three_engines, BEST))
    write_fake_bundle(tmp_path / "fake.boardfit", classes=5)
    with boardfit.load(tmp_path / "fake.boardfit") as model:
        assert model.engine == "fake"
        model.swap(three_engines)
        assert of(model) == BEST


def test_a_service_without_a_home_loads(three_engines, monkeypatch):
    from pathlib import Path

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with boardfit.load(three_engines) as model:
        assert model(FRAME)


def test_another_policy_or_label_keeps_the_tuning(three_engines, tmp_path):
    from boardfit.bundle import write_tree

    keep(three_engines, tuning_of(three_engines, BEST))
    with open_bundle(three_engines) as bundle:
        contents = {entry.path: bundle.read(entry.path) for entry in bundle.manifest.files}
        manifest = replace(bundle.manifest, policy=PolicySpec("fixed", (16,)))
        write_tree(tmp_path / "again.boardfit", manifest, contents=contents, measurements=None)
    with boardfit.load(tmp_path / "again.boardfit") as model:
        assert of(model) == BEST


@pytest.mark.parametrize(
    ("policy", "size", "expected"),
    [
        (None, None, (16, 31)),
        ("two-look", None, (16, 31)),
        ("entropy", None, (16, 24, 31)),
        ("fixed", None, (31,)),
        (None, 24, (24,)),
        (PolicySpec("fixed", (16, 24)), None, (24,)),
        (PolicySpec("entropy", (16, 24), (5.0,)), None, (16, 24)),
    ],
    ids=str,
)
def test_the_sizes_that_will_answer_are_those_of_the_session(three_engines, policy, size, expected):
    with open_bundle(three_engines) as bundle:
        assert answering_sizes(bundle.manifest, policy, size) == expected
        with boardfit.runtime.load(bundle, policy=policy, size=size) as model:
            assert model.sizes[-len(expected) :] == expected


def test_what_the_record_says_is_json_that_people_can_read(three_engines):
    path = keep(three_engines, tuning_of(three_engines, BEST))
    data = json.loads(path.read_text())
    assert data["trials"][0]["setup"] == {
        "engine": "onnxruntime",
        "precision": "fp16",
        "threads": 2,
        "affinity": [],
    }
