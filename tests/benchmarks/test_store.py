from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from boardfit.benchmarks.records import Report
from boardfit.benchmarks.store import read_report, write_report
from boardfit.errors import ReportError


@pytest.fixture
def report(report_of, measurement_of) -> Report:
    return report_of(measurement_of(runs=1), os_name="Debian GNU/Linux 12 „bookworm“")


def test_a_report_comes_back(tmp_path, report):
    path = write_report(tmp_path / "new", report)
    assert path == tmp_path / "new" / "report.json"
    assert read_report(path) == read_report(tmp_path / "new") == report


def test_the_new_report_takes_the_place_of_the_old_one_and_nothing_else_stays(tmp_path, report):
    write_report(tmp_path, report)
    write_report(tmp_path, replace(report, bundle_name="other"))
    assert read_report(tmp_path).bundle_name == "other"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_report_cut_anywhere_is_refused(tmp_path, report):
    path = write_report(tmp_path, report)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(ReportError, match=r"report\.json"):
            read_report(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": 20200101}, "schema 20200101, but this boardfit reads"),
        ({"bundle_name": float("nan")}, "NaN"),
        ({"extra": 1}, "extra"),
    ],
    ids=["schema", "nan", "unknown field"],
)
def test_a_changed_report_is_refused(tmp_path, report, changes, told):
    (tmp_path / "report.json").write_text(json.dumps({**report.to_dict(), **changes}))
    with pytest.raises(ReportError, match=told):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [("latencies_s", "abc"), ("latencies_s", ["1.0"]), ("ages_s", None), ("stages_s", {"inference": [0.1]})],
    ids=["text", "numbers as text", "nothing", "a short stage"],
)
def test_samples_that_are_no_numbers_are_refused(tmp_path, report, place, value):
    data = json.loads(json.dumps(report.to_dict()))
    data["measurements"][0]["runs"][0][place] = value
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(ReportError, match="a damaged report"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"[" * 100_000, "damaged"), (b"\xff\xfe", "not text"), (b"{}", "schema None"), (b"", "cut short")],
    ids=["deep", "binary", "an object", "empty"],
)
def test_what_is_no_report_is_refused(tmp_path, data, told):
    (tmp_path / "report.json").write_bytes(data)
    with pytest.raises(ReportError, match=told):
        read_report(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent/report.json"])
def test_an_absent_report_is_told(tmp_path, name):
    with pytest.raises(ReportError, match="does not exist"):
        read_report(tmp_path / name)


def test_a_failed_write_leaves_the_old_report_and_no_litter(tmp_path, monkeypatch, report):
    write_report(tmp_path, report)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match="No space left"):
        write_report(tmp_path, replace(report, bundle_name="other"))
    assert read_report(tmp_path) == report
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("place", ["file", "file/below", "no/parent"])
def test_a_folder_that_cannot_be_is_told(tmp_path, place, report):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write"):
        write_report(tmp_path / place, report)
