"""Bundles that are exchanged while frames come in: no frame is lost, and what is bad goes back by itself."""

from __future__ import annotations

import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import boardfit
from boardfit.bundle import open_bundle
from boardfit.errors import (
    BundleError,
    EngineError,
    EngineLost,
    InputError,
    RecipeError,
    SwapRefused,
)
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.isolate.options import Isolation
from boardfit.runtime.model import Model, load
from boardfit.runtime.swap import SLOW_WINDOW, WARM_LOOKS, Record, Trial

SIZES = (32, 48)
FRAME = np.random.RandomState(3).randint(0, 256, (40, 60, 3)).astype(np.uint8)
AT_ANY_SPEED = Trial(max_slowdown=None)
"""Where it is not the time that is tested: a busy machine makes any bundle slow."""
TESTED = WARM_LOOKS * (len(SIZES) + 1)
"""Runs of a new bundle's engine before its first frame."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    write_fake_bundle(folder / "old", sizes=SIZES, seed=1, delay_s=0.002)
    write_fake_bundle(folder / "new", sizes=SIZES, seed=2, delay_s=0.002, classes=7)
    return folder


@pytest.fixture(params=[False, True], ids=["here", "isolated"])
def isolate(request):
    return request.param


@pytest.fixture
def model(folder, isolate):
    with load(folder / "old", isolate=isolate) as model:
        yield model


def is_of(result, seed: int) -> bool:
    return result.scores.size == {1: 10, 2: 7}[seed]


def test_the_door_takes_what_the_runtime_takes_and_a_tuning():
    assert boardfit.runtime.load is load
    door, here = (inspect.signature(each).parameters for each in (boardfit.load, load))
    assert set(door) - {"tuning"} == set(here) - {"advise"}
    for name in set(door) & set(here):
        assert (door[name].default, door[name].kind) == (here[name].default, here[name].kind)
    assert boardfit.Model is Model


def test_a_model_says_and_answers_what_its_session_does(folder):
    with load(folder / "old", threads=2) as model, load(folder / "old") as other:
        for fact in ("engine", "precision", "threads", "sizes", "policy", "labels", "manifest", "isolation"):
            assert getattr(model, fact) == getattr(model.session, fact)
        assert np.array_equal(model(FRAME).scores, other.session(FRAME).scores)
        assert [result.size for result in model([FRAME, FRAME])] == [48, 48]
        assert model.look(FRAME, 32).size == 32
        assert model.last_swap is None
    with pytest.raises(EngineError, match="closed"):
        model(FRAME)


def test_a_good_bundle_takes_over_and_is_kept(model, folder):
    reports = []
    with open_bundle(folder / "old") as old, open_bundle(folder / "new") as new:
        ids = old.content_id, new.content_id
    before = model.session
    report = model.swap(folder / "new", trial=Trial(frames=3, max_slowdown=None), notify=reports.append)
    assert (report.old, report.new, report.outcome, report.frames) == (*ids, "on trial", 0)
    assert report.tested == SIZES
    assert report.time_ratio > 0.0
    assert report.prepared_s > 0.0
    assert is_of(model(FRAME), 2)
    assert (model.last_swap.outcome, model.last_swap.frames) == ("on trial", 1)
    assert [is_of(result, 2) for result in model([FRAME, FRAME])] == [True, True]
    assert reports == [model.last_swap]
    assert (model.last_swap.outcome, model.last_swap.frames, model.last_swap.reason) == ("kept", 3, "")
    assert len(model.labels) == 7
    with pytest.raises(EngineError, match="closed"):
        before(FRAME)


def test_a_size_limit_outlasts_a_swap_and_its_end(model, folder):
    model.size_limit = 32
    assert model(FRAME).size == 32
    model.swap(folder / "new", trial=Trial(frames=3, max_slowdown=None))
    assert model(FRAME).size == 32
    model.size_limit = None  # of both, the one on trial and the one before
    assert (model(FRAME).size, model(FRAME).size, model(FRAME).size) == (48, 48, 48)


def test_a_size_limit_that_moves_while_a_bundle_is_loaded_holds_for_it(model, folder, monkeypatch):
    opener = model._open_session

    def open_and_limit(source):
        session = opener(source)
        model.size_limit = 32
        return session

    monkeypatch.setattr(model, "_open_session", open_and_limit)
    model.swap(folder / "new", trial=AT_ANY_SPEED)
    assert (model(FRAME).size, is_of(model(FRAME), 2)) == (32, True)


def test_without_a_trial_it_is_kept_at_once(model, folder):
    assert model.swap(folder / "new", trial=Trial(frames=0, max_slowdown=None)).outcome == "kept"
    assert is_of(model(FRAME), 2)
    assert model.swap(folder / "old", trial=Trial(frames=0, max_slowdown=None)).outcome == "kept"
    assert is_of(model(FRAME), 1)


@pytest.mark.parametrize("fault", ["nan", "error", "crash", "hang"])
def test_what_fails_on_trial_is_rolled_back_and_its_frame_is_answered(folder, tmp_path, fault, caplog):
    good_frames = 20
    write_fake_bundle(tmp_path / "bad", sizes=SIZES, fault=fault, after=TESTED + good_frames, classes=7)
    reports = []
    isolated = fault in ("crash", "hang")
    with load(folder / "old", policy="fixed", isolate=isolated) as model:
        model.swap(tmp_path / "bad", trial=AT_ANY_SPEED, notify=reports.append)
        answers = [is_of(model(FRAME), 2) for _ in range(good_frames)]
        begin = time.perf_counter()
        answers += [is_of(model(FRAME), 2) for _ in range(5)]
        assert time.perf_counter() - begin < 10.0
        assert answers == [True] * good_frames + [False] * 5
        assert reports == [model.last_swap]
        assert (reports[0].outcome, reports[0].frames) == ("rolled back", good_frames)
        told = {"nan": "not finite", "error": "as it was told to", "crash": "SIGSEGV", "hang": "no answer"}
        assert told[fault] in reports[0].reason
        assert "is rolled back" in caplog.text
        model.swap(folder / "new", trial=Trial(frames=0, max_slowdown=None))
        assert is_of(model(FRAME), 2)


def test_what_turns_slow_on_trial_is_rolled_back(model, tmp_path):
    # Ten times that stays below the deadline of an isolated run, which is 0.2 s at least.
    write_fake_bundle(tmp_path / "slow", sizes=SIZES, delay_s=0.01, fault="slow", after=TESTED + 5)
    before = model.session
    model.swap(tmp_path / "slow", trial=AT_ANY_SPEED)
    model._on_trial = replace(model._on_trial, record=Record(Trial(max_slowdown=4.0), old_s=0.01))
    for _ in range(5 + SLOW_WINDOW):
        assert model(FRAME).size == 48
    assert model.last_swap.outcome == "rolled back"
    assert "its last 9 frames took" in model.last_swap.reason
    assert model.session is before


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"fault": "nan"}, "at 32 pixels the new bundle's answer holds numbers that are not finite"),
        ({"labels": 9}, "has 10 scores for 9 labels"),
        ({"delay_s": 0.1}, r"times the old one's; 4 are allowed"),
        ({"fault": "error", "after": 3}, "fails, as it was told to"),
    ],
    ids=["nan", "labels", "slow", "error"],
)
def test_a_bad_bundle_is_refused_before_it_answers(model, tmp_path, bad, message):
    write_fake_bundle(tmp_path / "bad", sizes=SIZES, **bad)
    before = model.session
    with pytest.raises((SwapRefused, EngineError), match=message) as refused:
        model.swap(tmp_path / "bad")
    assert model.last_swap.outcome == "refused"
    assert model.last_swap.reason == str(refused.value)
    assert model.session is before
    assert is_of(model(FRAME), 1)


def test_a_bundle_that_computes_something_else_here_is_refused(model, tmp_path):
    write_fake_bundle(tmp_path / "a", sizes=(32,), seed=1)
    write_fake_bundle(tmp_path / "b", sizes=(32,), seed=2)
    with open_bundle(tmp_path / "a") as a, open_bundle(tmp_path / "b") as b:
        from boardfit.bundle import write_bundle

        manifest = a.manifest
        write_bundle(
            tmp_path / "mixed",
            name="mixed",
            labels=manifest.labels,
            image=manifest.image,
            policy=manifest.policy,
            artifacts=manifest.artifacts,
            files=a.artifact_files(manifest.artifacts[0]),
            golden_frame=b.golden_frame(),
            golden_outputs={32: b.golden_outputs(32)},
        )
    with pytest.raises(SwapRefused, match="at 32 pixels the new bundle does not answer its golden frame"):
        model.swap(tmp_path / "mixed")


@pytest.mark.parametrize(
    ("options", "error"),
    [({"size": 48}, RecipeError), ({"engine": "fake", "precision": "fp32", "size": 48}, RecipeError)],
    ids=["size", "all"],
)
def test_the_options_of_load_hold_for_the_new_bundle(folder, tmp_path, options, error):
    write_fake_bundle(tmp_path / "small", sizes=(16, 24))
    with load(folder / "old", **options) as model:
        with pytest.raises(error, match="serve 16, 24 pixels, not 48"):
            model.swap(tmp_path / "small")
        assert (model.last_swap.outcome, model.last_swap.new) == ("refused", "")
        model.swap(folder / "new", trial=AT_ANY_SPEED)
        assert model.sizes == (48,)


def test_what_is_no_bundle_is_refused(model, tmp_path):
    (tmp_path / "b").write_text("no bundle")
    with pytest.raises(BundleError):
        model.swap(tmp_path / "b")
    assert is_of(model(FRAME), 1)


def test_the_callers_mistakes_end_no_trial(model, folder):
    model.swap(folder / "new", trial=AT_ANY_SPEED)
    with pytest.raises(InputError):
        model(np.zeros((3, 3)))
    with pytest.raises(RecipeError, match="size 47"):
        model.look(FRAME, 47)
    assert model.last_swap.outcome == "on trial"


def test_one_swap_at_a_time(model, folder):
    model.swap(folder / "new", trial=AT_ANY_SPEED)
    with pytest.raises(SwapRefused, match="on trial"):
        model.swap(folder / "old", trial=AT_ANY_SPEED)


def test_closing_ends_a_trial_and_both_sessions(folder, isolate):
    model = load(folder / "old", isolate=isolate)
    before = model.session
    model.swap(folder / "new", trial=AT_ANY_SPEED)
    model.close()
    model.close()
    for session in (before, model.session):
        with pytest.raises(EngineError, match="closed"):
            session(FRAME)
    with pytest.raises(EngineError, match="closed"):
        model.swap(folder / "old", trial=AT_ANY_SPEED)


def test_frames_of_many_threads_are_answered_through_swaps_good_and_bad(folder, tmp_path, isolate):
    fault = "crash" if isolate else "error"
    write_fake_bundle(tmp_path / "bad", sizes=SIZES, fault=fault, after=TESTED + 15, classes=7)
    stop = threading.Event()

    def work() -> int:
        count = 0
        while not stop.is_set():
            assert np.isfinite(model(FRAME).scores).all()
            count += 1
        return count

    outcomes = []
    with load(folder / "old", policy="fixed", isolate=isolate) as model, ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(work) for _ in range(3)]
        try:
            for path in (folder / "new", tmp_path / "bad", folder / "old", tmp_path / "bad"):
                over = threading.Event()
                model.swap(path, trial=Trial(frames=40, max_slowdown=None), notify=lambda _: over.set())  # noqa: B023
                assert over.wait(30.0)
                outcomes.append(model.last_swap.outcome)
        finally:
            stop.set()
        assert min(count.result() for count in counts) > 0
    assert outcomes == ["kept", "rolled back", "kept", "rolled back"]


def test_the_other_threads_frames_go_on_while_a_bundle_is_loaded(folder, monkeypatch):
    with load(folder / "old") as model:
        loading, go_on = threading.Event(), threading.Event()
        opener = model._open_session

        def slowly(source):
            loading.set()
            assert go_on.wait(20.0)
            return opener(source)

        monkeypatch.setattr(model, "_open_session", slowly)
        with ThreadPoolExecutor(1) as pool:
            swapped = pool.submit(model.swap, folder / "new", trial=AT_ANY_SPEED)
            assert loading.wait(20.0)
            assert is_of(model(FRAME), 1)
            go_on.set()
            assert swapped.result().outcome == "on trial"


def test_an_isolated_model_goes_on_with_its_limits_after_a_swap(folder, tmp_path):
    write_fake_bundle(tmp_path / "late", sizes=SIZES, fault="hang", after=TESTED + 3)
    with load(folder / "old", policy="fixed", isolate=Isolation(deadline_s=0.3)) as model:
        model.swap(tmp_path / "late", trial=Trial(frames=0, max_slowdown=None))
        for _ in range(3):
            model(FRAME)
        with pytest.raises(EngineLost, match=r"within 0\.3 s"):
            model(FRAME)
        assert model.isolation.hung == 1
