from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from boardfit.benchmarks.compare import CONFIDENCE, compare
from boardfit.benchmarks.ratios import points_of, ratio_of, t_quantile, wilson
from boardfit.benchmarks.records import Accuracy
from boardfit.cli.compare import NO_VERDICT, WORSE, exit_status, people_text
from boardfit.errors import ReportError


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    # Any table of Student's distribution.
    [(0.975, 1, 12.706), (0.975, 4, 2.776), (0.995, 8, 3.355), (0.975, 18, 2.101), (0.9995, 18, 3.922)],
)
def test_students_quantile_is_that_of_the_tables(probability, freedom, expected):
    assert t_quantile(probability, freedom) == pytest.approx(expected, abs=6e-4)


def test_wilson_and_newcombe_as_in_their_papers():
    # Newcombe (1998), Statistics in Medicine 17: 81 of 263 alone; 56 of 70 against 48 of 80.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    found = points_of((48 / 80, 80), (56 / 70, 70), confidence=0.95)
    assert (found.low, found.high) == pytest.approx((5.24, 33.39), abs=5e-3)


def test_welch_on_logarithms_by_hand():
    # Two runs a side, logs -1, 1 and 3, 5: shift 4, variances 2, error sqrt(2), two degrees of freedom.
    found = ratio_of([math.exp(-1), math.exp(1)], [math.exp(3), math.exp(5)], confidence=0.95)
    half = 4.302653 * math.sqrt(2.0)
    assert [math.log(value) for value in (found.middle, found.low, found.high)] == pytest.approx(
        [4.0, 4.0 - half, 4.0 + half], abs=1e-5
    )


def test_the_interval_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        before, after = np.exp(rng.normal(0.0, 0.01, 5)), 1.2 * np.exp(rng.normal(0.0, 0.03, 9))
        found = ratio_of(before.tolist(), after.tolist(), confidence=0.9)
        held += found.low <= 1.2 <= found.high
    assert 0.86 <= held / 400 <= 0.94


def test_equal_counts_of_bytes_have_no_width():
    found = ratio_of([7.0] * 5, [14.0] * 5, confidence=0.99)
    assert found.low == found.middle == found.high == pytest.approx(2.0)


def lines_of(before, after, **options):
    return {line.metric: line for line in compare(before, after, **options).lines}


def test_three_per_cent_are_found_with_ten_runs(report_of, measurement_of):
    before, after = (
        report_of(measurement_of(runs=10, seed=s, p50_s=p)) for s, p in ((1, 0.008), (2, 0.00824))
    )
    lines = lines_of(before, after)
    assert lines["p50"].verdict == "slower"
    assert lines["p50"].change.middle == pytest.approx(1.03, abs=0.01)
    assert lines["memory peak"].verdict == lines["load"].verdict == "no difference"
    assert lines_of(after, before)["p50"].verdict == "faster"
    assert exit_status(compare(before, after), "worse") == WORSE
    assert exit_status(compare(after, before), "worse") == 0
    assert exit_status(compare(after, before), "difference") == WORSE
    assert exit_status(compare(before, after), "never") == 0


def test_equal_runs_are_told_apart_in_few_of_a_hundred_cases(report_of, measurement_of):
    wrong = 0
    for seed in range(100):
        noise = (0.002, 0.005, 0.01, 0.02)[seed % 4]
        runs = (5, 10)[seed % 2]
        one, two = (
            replace(
                measurement_of(runs=runs, seed=2 * seed + i, noise=noise), accuracy=Accuracy(500, 0.9, 0.9)
            )
            for i in range(2)
        )
        wrong += any(line.outcome != "same" for line in compare(report_of(one), report_of(two)).lines)
    assert wrong <= 5  # the intervals promise about one


def test_a_change_below_what_is_noticeable_is_none(report_of, measurement_of):
    before, after = (
        report_of(measurement_of(runs=10, seed=s, p50_s=p, noise=0.0001))
        for s, p in ((1, 0.008), (2, 0.008 * 1.006))
    )
    assert lines_of(before, after)["p50"].verdict == "no difference"
    assert lines_of(before, after, noticeable=0.002)["p50"].verdict == "slower"


@pytest.mark.parametrize(
    ("runs", "told"), [((4, 10), "4 of at least 5 runs"), ((10, 1), "1 of at least 5 runs")]
)
def test_too_few_runs_give_no_verdict(report_of, measurement_of, runs, told):
    before, after = (report_of(measurement_of(runs=n, seed=n, p50_s=0.01 * n)) for n in runs)
    found = compare(before, after)
    assert {line.verdict for line in found.lines} == {f"no verdict: {told}"}
    assert exit_status(found, "worse") == NO_VERDICT
    assert exit_status(found, "never") == 0


def test_an_invalid_side_shows_its_reason_and_no_number(report_of, measurement_of):
    bad = report_of(measurement_of(seed=5, run_faults=("throttled",)))
    for side, pair in (("B", (report_of(), bad)), ("A", (bad, report_of()))):
        found = compare(*pair)
        (line,) = found.lines
        assert line.verdict == f"no verdict: not valid ({side}: throttled)"
        assert line.before is None and line.after is None and line.change is None
        assert found.outcome == "none"


def test_accuracy_has_points_and_a_verdict(report_of, measurement_of):
    def of(right, images, seed):
        return report_of(measurement_of(seed=seed, accuracy=Accuracy(images, right, None)))

    assert lines_of(of(0.9, 500, 1), of(0.89, 500, 2))["top-1"].verdict == "no difference"
    worse = lines_of(of(0.9, 5000, 1), of(0.8, 5000, 2))["top-1"]
    assert worse.verdict == "worse" and worse.change.middle == pytest.approx(-10.0)
    assert lines_of(of(0.8, 5000, 1), of(0.9, 5000, 2))["top-1"].verdict == "better"
    assert "-10.0 points" in people_text(compare(of(0.9, 5000, 1), of(0.8, 5000, 2)))


def test_more_frames_per_second_are_better(report_of, measurement_of):
    def of(ms, seed):
        case = replace(measurement_of().case, scenario="offline", batch=8)
        return report_of(measurement_of(case, runs=10, seed=seed, p50_s=ms / 1e3))

    line = lines_of(of(8.0, 1), of(7.0, 2))["frames/s"]
    assert (line.verdict, line.outcome) == ("faster", "better")


UNLIKE = {
    "board": {"board": "raspberry-pi-4b"},
    "processor": {"cpu": "Cortex-A72"},
    "cores": {"cores": 2},
    "memory": {"memory_bytes": 4 << 30},
    "governor": {"governor": "powersave"},
    "power mode": {"power_mode": "15W"},
}
CASES = {
    "engine": {"engine": "ncnn"},
    "engine version": {"engine_version": "2.4.0"},
    "threads": {"threads": 2},
    "precision": {"precision": "fp16"},
    "affinity": {"affinity": (0, 1)},
    "sizes": {"sizes": (160,)},
    "policy": {"policy": "entropy"},
    "frame size": {"frame_size_wh": (320, 240)},
}


def unlike(name, report_of, measurement_of):
    """Two reports that differ in one thing alone."""
    base = measurement_of(runs=5, seed=1)
    other = measurement_of(replace(base.case, **CASES.get(name, {})), runs=5, seed=2)
    after = report_of(other, **UNLIKE.get(name, {}))
    return report_of(base), replace(after, bundle_id="00" * 32) if name == "bundle" else after


@pytest.mark.parametrize("name", [*UNLIKE, *CASES, "bundle"])
def test_what_differs_alone_is_refused_by_its_name(report_of, measurement_of, name):
    before, after = unlike(name, report_of, measurement_of)
    with pytest.raises(ReportError, match=rf"unlike reports \({name}: .* against [^;]*\)"):
        compare(before, after)
    found = compare(before, after, across_boards=True)
    assert [each.name for each in found.differences] == [name]
    assert f"{name} differs: " in people_text(found)
    assert found.lines


def test_all_that_differs_is_listed(report_of, measurement_of):
    other = report_of(
        measurement_of(replace(measurement_of().case, threads=1), seed=3), board="x", governor="powersave"
    )
    with pytest.raises(ReportError, match=r"board: .*; governor: .*; threads: 4 against 1"):
        compare(report_of(), other)


def test_a_kernel_that_keeps_a_little_more_memory_is_the_same_board(report_of, measurement_of):
    other = report_of(measurement_of(seed=3), memory_bytes=(8 << 30) - (20 << 20))
    assert compare(report_of(), other).differences == ()


def test_other_software_is_told_and_not_refused(report_of, measurement_of):
    other = report_of(measurement_of(seed=3), kernel="6.12", packages={"boardfit": "0.2.0"})
    (note,) = compare(report_of(), other).notes
    assert "kernel 6.6.51+rpt-rpi-2712 -> 6.12" in note and "boardfit 0.1.0 -> 0.2.0" in note


def test_what_stands_in_one_report_alone_is_told(report_of, measurement_of):
    extra = measurement_of(replace(measurement_of().case, precision="fp32"), seed=4)
    found = compare(report_of(), report_of(measurement_of(seed=3), extra))
    assert found.notes == ("litert fp32 224, 4 threads: only in the second report",)
    assert found.differences == ()
    camera = measurement_of(replace(measurement_of().case, scenario="camera", fps=30.0))
    with pytest.raises(ReportError, match="no configuration is in both"):
        compare(report_of(), report_of(camera))


def test_of_unlike_configurations_the_nearest_are_compared(report_of, measurement_of):
    def of(**changes):
        return measurement_of(replace(measurement_of().case, **changes), seed=len(changes))

    before = report_of(of(), of(precision="fp32"))
    after = report_of(of(precision="fp32", threads=2), of(threads=2), board="x")
    found = compare(before, after, across_boards=True)
    assert {line.case for line in found.lines} == {
        "litert int8 224, 4 threads -> litert int8 224, 2 threads",
        "litert fp32 224, 4 threads -> litert fp32 224, 2 threads",
    }
    assert [each.name for each in found.differences] == ["board", "threads"]


def test_an_emulated_board_is_never_compared(report_of, measurement_of):
    emulated = report_of(measurement_of(seed=2), emulated=True)
    for across in (False, True):
        with pytest.raises(ReportError, match="emulated"):
            compare(report_of(), emulated, across_boards=across)


def test_a_report_is_not_compared_with_itself(report_of):
    with pytest.raises(ReportError, match="same report"):
        compare(report_of(), report_of())


def test_many_lines_widen_the_intervals(rich_report_of):
    one, many = rich_report_of(seed=1), rich_report_of(seed=2)
    few = compare(
        replace(one, measurements=one.measurements[:1]), replace(many, measurements=many.measurements[:1])
    )
    whole = compare(one, many)
    narrow, wide = (found.lines[0].change for found in (few, whole))
    assert narrow.middle == wide.middle
    assert wide.high > narrow.high and wide.low < narrow.low
    assert CONFIDENCE == 0.99
