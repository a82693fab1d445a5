"""From bundle to report, on the fake engine and this machine's real probes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import cv2
import numpy as np
import pytest

import boardfit
from boardfit.benchmarks.accuracy import Judge
from boardfit.benchmarks.bench import bench
from boardfit.benchmarks.cases import Wanted
from boardfit.benchmarks.environment import environment, libc_name
from boardfit.benchmarks.records import Report
from boardfit.benchmarks.scenario import Plan
from boardfit.boards.detect import detect
from boardfit.boards.probes import Probes
from boardfit.boards.probes.memory import reset_peak
from boardfit.boards.records import Snapshot
from boardfit.bundle import open_bundle
from boardfit.errors import BundleError, RecipeError
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.specs import TensorSpec

SHORT = Plan(runs=2, duration_s=0.05, min_frames=8, warmup_s=0.01)


@pytest.fixture
def bundle(tmp_path):
    write_fake_bundle(tmp_path / "fake.boardfit", sizes=(32, 64))
    return tmp_path / "fake.boardfit"


@pytest.fixture
def labelled(tmp_path, bundle):
    """Twelve pictures, labelled with what the largest size answers, but for three of them."""
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.RandomState(index).randint(0, 256, (48, 64, 3)).astype(np.uint8))
    with boardfit.load(bundle, size=64) as model:
        answers = [model(cv2.imread(str(path))).top(1)[0].index for path in paths]
    wrong = [(answer + (index < 3)) % 10 for index, answer in enumerate(answers)]
    return list(zip(paths, wrong, strict=True))


def test_a_report_says_what_ran_where(bundle):
    command = ("boardfit", "bench", "fake.boardfit")
    report = bench(bundle, Wanted(threads=(1, 2)), plan=SHORT, command=command)
    where = report.environment
    assert where.board == detect().profile.name
    assert where.command == command
    assert {"boardfit", "numpy", "opencv"} <= set(where.packages)
    assert abs(
        datetime.now(timezone.utc) - datetime.fromisoformat(where.started_utc[:-1] + "+00:00")
    ) < timedelta(minutes=1)
    with open_bundle(bundle) as opened:
        assert (report.bundle_name, report.bundle_id) == ("fake", opened.content_id)
    assert [each.case.threads for each in report.measurements] == [1, 2]
    assert any("test picture" in note for note in report.notes)
    assert any("2 runs: fewer than 5" in note for note in report.notes)
    assert Report.from_dict(report.to_dict()) == report


@pytest.mark.parametrize("scenario", ["single-stream", "camera", "offline"])
def test_each_scenario_runs_for_real(bundle, scenario):
    report = bench(bundle, Wanted(scenario=scenario, fps=200.0, batch=4), plan=SHORT, frame_size_wh=(64, 48))
    for run in report.measurements[0].runs:
        assert run.frames >= 8
        assert min(run.latencies_s) > 0.0
        assert run.load_s > 0.0
        assert run.first_s > 0.0
        # The stages are within the frame, and most of it.
        stages = sum(sum(values) for values in run.stages_s.values())
        assert 0.3 * sum(run.latencies_s) < stages <= 1.01 * sum(run.latencies_s)
        assert bool(run.ages_s) == (scenario == "camera")
        assert run.after.memory.rss_bytes > 1 << 20


def test_the_policy_mixes_the_sizes_of_the_users_images(bundle, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    for index in range(3):
        cv2.imwrite(str(folder / f"flat{index}.png"), np.full((48, 64, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "noise.png"), noise)
    report = bench(bundle, plan=SHORT, images=[folder])
    for run in report.measurements[0].runs:
        mix = Counter(run.answered_sizes)
        assert mix[32] == 3 * mix[64] > 0
        assert min(run.stages_s["entropy"]) > 0.0


def test_the_peak_of_memory_is_the_runs_own(bundle):
    ballast = np.ones(200 << 20, np.uint8)
    before = Probes(detect().profile).read(0.0).memory.peak_bytes
    del ballast
    run = bench(bundle, plan=SHORT).measurements[0].runs[0]
    assert run.after.memory.rss_bytes <= run.after.memory.peak_bytes < before - (150 << 20)


def test_a_system_that_resets_no_peak_is_no_error(tmp_path):
    reset_peak(tmp_path)


def test_answers_are_judged_beside_fp32(bundle, labelled):
    report = bench(bundle, Wanted(sizes="all", threads=(1,)), plan=SHORT, labelled=labelled)
    small, large = (each.accuracy for each in report.measurements)
    assert (large.images, large.top1, large.drop_points) == (12, 0.75, 0.0)
    assert small.top1_fp32 == 0.75


def test_a_bundle_without_fp32_has_no_drop(bundle, labelled):
    with open_bundle(bundle) as opened:
        manifest = opened.manifest
    fp32 = manifest.artifacts[0]
    int8_only = replace(manifest, artifacts=(replace(fp32, precision="int8"),))
    judge = Judge(bundle, int8_only, labelled)
    case = bench(bundle, Wanted(sizes=(64,)), plan=SHORT).measurements[0].case
    assert judge.accuracy(case).drop_points is None


def test_the_same_answers_are_judged_once(bundle, labelled):
    told = []
    bench(bundle, Wanted(sizes=(64,), threads=(1, 2)), plan=SHORT, labelled=labelled, progress=told.append)
    assert sum("labelled images" in text for text in told) == 1
    assert sum("run 1 of 2" in text for text in told) == 2


def test_only_classifiers_are_judged(bundle, labelled):
    with open_bundle(bundle) as opened:
        manifest = opened.manifest
    with pytest.raises(RecipeError, match="task is detect"):
        Judge(bundle, replace(manifest, task="detect"), labelled)
    with pytest.raises(RecipeError, match="no labelled image"):
        Judge(bundle, manifest, [])
    with pytest.raises(RecipeError, match="a label is 10, but the model answers 10 classes, 0 to 9"):
        Judge(bundle, manifest, [*labelled, (labelled[0][0], 10)])


@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_a_net_of_several_inputs_gets_those_of_its_self_test(tmp_path, scenario):
    path = tmp_path / "two.boardfit"
    write_fake_bundle(path, sizes=(32, 48), further=(TensorSpec("box", (None, 4)),))
    report = bench(path, Wanted(scenario=scenario, batch=4, policy="entropy"), plan=SHORT)
    assert report.measurements[0].runs[0].frames >= 8


def test_a_damaged_bundle_is_told(bundle):
    bundle.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(BundleError):
        bench(bundle, plan=SHORT)


def test_an_emulated_board_is_noted(bundle, monkeypatch):
    board = replace(detect(), emulation="the processor calls itself QEMU")
    monkeypatch.setattr("boardfit.benchmarks.bench.detect", lambda: board)
    report = bench(bundle, plan=SHORT)
    assert report.environment.emulated
    assert any("emulated (the processor calls itself QEMU)" in note for note in report.notes)


@pytest.mark.parametrize(
    ("governors", "told"),
    [
        ({}, None),
        ({"cpu0": "performance", "cpu4": "performance"}, "performance"),
        ({"cpu0": "schedutil", "cpu4": "performance"}, "performance, schedutil"),
    ],
    ids=["unknown", "alike", "two"],
)
def test_the_governor_is_told(governors, told):
    state = Snapshot(0.0, governors=governors, power_mode="MAXN")
    started = datetime(2026, 11, 25, 13, 0, 0, tzinfo=timezone(timedelta(hours=1)))
    found = environment(detect(), state, engines=["fake"], command=[], started=started)
    assert (found.governor, found.power_mode, found.started_utc) == (told, "MAXN", "2026-11-25T12:00:00Z")


def test_the_c_library_has_a_version():
    assert libc_name().startswith(("glibc ", "musl"))
