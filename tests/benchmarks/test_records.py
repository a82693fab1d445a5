import json
from dataclasses import replace

import pytest

from boardfit.benchmarks.records import REPORT_SCHEMA, Accuracy, Case, Measurement, Report, Run
from boardfit.boards.records import MemoryUse, Snapshot
from boardfit.errors import ReportError

CASE = Case(
    scenario="single-stream",
    engine="litert",
    engine_version="2.3.0",
    precision="int8",
    threads=2,
    affinity=(0, 1),
    sizes=(112, 224),
    policy="two-look",
    frame_size_wh=(640, 480),
)
SNAPSHOT = Snapshot(
    time_s=1.0, temperatures_c={"cpu": 48.0, "gpu": 51.5}, throttled=False, memory=MemoryUse(rss_bytes=3)
)
RUN = Run(
    load_s=0.2,
    first_s=0.03,
    warmup_s=(0.02,),
    latencies_s=(0.01, 0.011),
    stages_s={
        "inference": (0.009, 0.01),
        **dict.fromkeys(("entropy", "preprocess", "postprocess"), (0.0, 0.0)),
    },
    answered_sizes=(112, 224),
    duration_s=0.021,
    before=SNAPSHOT,
    after=SNAPSHOT,
    trace=(SNAPSHOT,),
)


@pytest.fixture
def report(report_of):
    measurement = Measurement(case=CASE, runs=(RUN,), accuracy=Accuracy(10, 0.8, 0.9))
    return replace(report_of(measurement), notes=("a note",))


def test_a_report_survives_json(report):
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_json_says_what_follows(report):
    row = report.to_dict()["measurements"][0]
    assert row["valid"] is True
    assert row["name"] == "litert int8 112/224 two-look, 2 threads"


def test_one_faulty_run_makes_a_report_invalid(report):
    bad = replace(RUN, faults=("throttled",))
    found = replace(report, measurements=(Measurement(case=CASE, runs=(RUN, bad, bad), faults=("noise",)),))
    assert not found.valid
    assert found.measurements[0].all_faults == ("noise", "throttled")


def test_points_lost_against_fp32():
    assert Accuracy(10, 0.8, 0.9).drop_points == pytest.approx(10.0)
    assert Accuracy(10, 0.8, None).drop_points is None


def test_the_hottest_zone_counts():
    assert SNAPSHOT.hottest_c == 51.5
    assert Snapshot(time_s=0.0).hottest_c is None


def with_value(report, *path, value):
    """Return a report as JSON values, one of them another."""
    data = json.loads(json.dumps(report.to_dict()))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


_FIRST_RUN = ("measurements", 0, "runs", 0)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("environment", "board_title"), 5, r"environment\.board_title: 5"),
        (("environment", "packages"), {"boardfit": None}, r"packages\.boardfit: None"),
        (("environment", "command"), ["boardfit", 1], r"command\[1\]: 1"),
        (("notes",), [{}], r"notes\[0\]"),
        (("measurements", 0, "case", "frame_size_wh"), [640], "frame_size_wh"),
        (("measurements", 0, "case", "threads"), True, "threads: True"),
        (("measurements", 0, "faults"), "busy", "faults"),
        (("measurements", 0, "accuracy", "top1"), None, "damaged"),
        (("measurements", 0, "accuracy", "images"), 0, "0 images"),
        ((*_FIRST_RUN, "load_s"), float("inf"), "load_s: inf"),
        ((*_FIRST_RUN, "latencies_s"), [0.01, 10**400], "latencies_s"),
        ((*_FIRST_RUN, "first_s"), 1e300, "first_s"),
        ((*_FIRST_RUN, "answered_sizes"), [112, 1.5], "answered_sizes"),
        ((*_FIRST_RUN, "stages_s"), {}, "stages"),
        ((*_FIRST_RUN, "after", "temperatures_c"), None, "temperatures_c: None"),
        ((*_FIRST_RUN, "trace", 0, "temperatures_c", "cpu"), "hot", "temperatures_c.cpu: 'hot'"),
        ((*_FIRST_RUN, "before", "memory", "peak_bytes"), "3", "peak_bytes: '3'"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_value_of_another_kind_is_named(report, path, value, told):
    with pytest.raises(ReportError, match=told):
        Report.from_dict(with_value(report, *path, value=value))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": 1}, "schema 1"),
        ({"extra": 1}, "extra"),
        ({"measurements": []}, "without a measurement"),
        ({"measurements": [{"case": {}}]}, "damaged"),
        ({"environment": None}, "damaged"),
    ],
    ids=["schema", "unknown field", "nothing", "half", "no environment"],
)
def test_a_damaged_report_is_refused(report, changes, told):
    with pytest.raises(ReportError, match=told):
        Report.from_dict({**report.to_dict(), **changes})


@pytest.mark.parametrize(
    ("data", "told"),
    [([], "not a report"), ({"schema": REPORT_SCHEMA}, "damaged")],
    ids=["a list", "bare"],
)
def test_what_is_no_report_is_refused(data, told):
    with pytest.raises(ReportError, match=told):
        Report.from_dict(data)
