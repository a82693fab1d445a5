import json
from dataclasses import replace

import pytest

from boardfit.benchmarks.records import Accuracy, Case, Environment, Measurement, Report, Run
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
    frames=2,
    before=SNAPSHOT,
    after=SNAPSHOT,
    trace=(SNAPSHOT,),
)
REPORT = Report(
    environment=Environment(
        board="raspberry-pi-5",
        board_title="Raspberry Pi 5",
        emulated=False,
        cpu="Cortex-A76",
        cores=4,
        memory_bytes=8 << 30,
        os_name="Debian GNU/Linux 12",
        kernel="6.6.51",
        libc="glibc 2.36",
        python="3.11.2",
        packages={"boardfit": "0.1"},
        governor="ondemand",
        power_mode=None,
        command=("boardfit", "bench", "x.boardfit"),
        started_utc="2026-11-25T12:00:00Z",
    ),
    bundle_name="lite0",
    bundle_id="a" * 64,
    measurements=(Measurement(case=CASE, runs=(RUN,), accuracy=Accuracy(10, 0.8, 0.9)),),
    notes=("a note",),
)


def test_a_report_survives_json():
    assert Report.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT


def test_json_says_what_follows():
    row = REPORT.to_dict()["measurements"][0]
    assert row["valid"] is True
    assert row["name"] == "litert int8 112/224 two-look, 2 threads"


def test_one_faulty_run_makes_a_report_invalid():
    bad = replace(RUN, faults=("throttled",))
    report = replace(REPORT, measurements=(Measurement(case=CASE, runs=(RUN, bad, bad), faults=("noise",)),))
    assert not report.valid
    assert report.measurements[0].all_faults == ("noise", "throttled")


def test_points_lost_against_fp32():
    assert Accuracy(10, 0.8, 0.9).drop_points == pytest.approx(10.0)
    assert Accuracy(10, 0.8, None).drop_points is None


def test_the_hottest_zone_counts():
    assert SNAPSHOT.hottest_c == 51.5
    assert Snapshot(time_s=0.0).hottest_c is None


def with_value(*path, value):
    """Return a report as JSON values, one of them another."""
    data = json.loads(json.dumps(REPORT.to_dict()))
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
def test_a_value_of_another_kind_is_named(path, value, told):
    with pytest.raises(ReportError, match=told):
        Report.from_dict(with_value(*path, value=value))


def damaged(**changes):
    return {**REPORT.to_dict(), **changes}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "not a report"),
        (damaged(schema=1), "schema 1"),
        (damaged(extra=1), "extra"),
        (damaged(measurements=[]), "without a measurement"),
        (damaged(measurements=[{"case": {}}]), "damaged"),
        (damaged(environment=None), "damaged"),
        ({"schema": 20261125}, "damaged"),
    ],
    ids=["a list", "schema", "unknown field", "nothing", "half", "no environment", "bare"],
)
def test_what_is_no_report_is_refused(data, told):
    with pytest.raises(ReportError, match=told):
        Report.from_dict(data)
