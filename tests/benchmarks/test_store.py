from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from boardfit.benchmarks.records import Case, Environment, Measurement, Report, Run
from boardfit.benchmarks.store import read_report, write_report
from boardfit.boards.records import Snapshot
from boardfit.errors import ReportError

SNAPSHOT = Snapshot(time_s=1.0, temperatures_c={"cpu": 48.0})
RUN = Run(
    load_s=0.2,
    first_s=0.03,
    warmup_s=(0.02,),
    latencies_s=(0.01, 0.011),
    stages_s={"inference": (0.009, 0.01)},
    answered_sizes=(224, 224),
    duration_s=0.021,
    frames=2,
    before=SNAPSHOT,
    after=SNAPSHOT,
)
CASE = Case("single-stream", "litert", "2.3.0", "int8", 2, (0, 1), (224,), "fixed", (640, 480))
ENVIRONMENT = Environment(
    board="raspberry-pi-5",
    board_title="Raspberry Pi 5",
    emulated=False,
    cpu="Cortex-A76",
    cores=4,
    memory_bytes=8 << 30,
    os_name="Debian GNU/Linux 12 „bookworm“",
    kernel="6.6.51",
    libc="glibc 2.36",
    python="3.11.2",
    packages={"boardfit": "0.1"},
    governor="ondemand",
    power_mode=None,
    command=("boardfit", "bench", "x.boardfit"),
    started_utc="2026-11-25T12:00:00Z",
)
REPORT = Report(ENVIRONMENT, "lite0", "a" * 64, (Measurement(case=CASE, runs=(RUN,)),))


def test_a_report_comes_back(tmp_path):
    path = write_report(tmp_path / "new", REPORT)
    assert path == tmp_path / "new" / "report.json"
    assert read_report(path) == read_report(tmp_path / "new") == REPORT


def test_the_new_report_takes_the_place_of_the_old_one_and_nothing_else_stays(tmp_path):
    write_report(tmp_path, REPORT)
    write_report(tmp_path, replace(REPORT, bundle_name="other"))
    assert read_report(tmp_path).bundle_name == "other"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_report_cut_anywhere_is_refused(tmp_path):
    path = write_report(tmp_path, REPORT)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ReportError, match=r"report\.json"):
            read_report(path)


def damaged(**changes) -> bytes:
    return json.dumps({**REPORT.to_dict(), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (damaged(schema=20200101), "schema 20200101, but this boardfit reads"),
        (damaged(bundle_name=float("nan")), "NaN"),
        (b"[" * 100_000, "damaged"),
        (b"\xff\xfe", "not text"),
        (b"{}", "schema None"),
    ],
    ids=["schema", "nan", "deep", "binary", "empty"],
)
def test_what_is_no_report_is_refused(tmp_path, data, told):
    (tmp_path / "report.json").write_bytes(data)
    with pytest.raises(ReportError, match=told):
        read_report(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent/report.json"])
def test_an_absent_report_is_told(tmp_path, name):
    with pytest.raises(ReportError, match="does not exist"):
        read_report(tmp_path / name)


def test_a_failed_write_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch):
    write_report(tmp_path, REPORT)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match="No space left"):
        write_report(tmp_path, replace(REPORT, bundle_name="other"))
    assert read_report(tmp_path) == REPORT
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("place", ["file", "file/below", "no/parent"])
def test_a_folder_that_cannot_be_is_told(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write"):
        write_report(tmp_path / place, REPORT)
