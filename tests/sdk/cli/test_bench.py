from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from boardfit.benchmarks import bench as module
from boardfit.benchmarks.store import read_report
from boardfit.boards.detect import detect
from boardfit.cli import main
from boardfit.cli.bench import INVALID
from boardfit.cli.remote import without_board
from boardfit.errors import EngineError, ReportError
from boardfit.runtime.choose import Setup

QUICK = ["--runs", "2", "--duration", "0.05", "--threads", "1"]


def bench(bundle, *words) -> int:
    return main(["bench", str(bundle), *QUICK, *map(str, words)])


def test_a_table_and_a_report(bundle, photos, tmp_path, capsys):
    status = bench(bundle, "--images", photos, "--size", "all", "--out", tmp_path / "out")
    report = read_report(tmp_path / "out")
    # Whether the machine of this test is idle is not for the test to say.
    assert status == (0 if report.valid else INVALID)
    told = capsys.readouterr()
    for size in (32, 48, 64):
        assert re.search(rf"^fake fp32 {size}, 1 thread +[\d.]+ ", told.out, flags=re.MULTILINE)
        assert f"fake fp32 {size}, 1 thread: run 2 of 2" in told.err
    assert "preprocess" in told.out
    assert "note: measured with 3 images" in told.out
    assert [each.case.sizes for each in report.measurements] == [(32,), (48,), (64,)]
    assert report.environment.command[:2] == ("boardfit", "bench")
    assert "--out" in report.environment.command
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.json", "report.html", "report.md"} <= written
    assert "fake fp32 48, 1 thread" in (tmp_path / "out" / "report.html").read_text()


def test_a_measurement_outlives_pages_that_cannot_be_written(bundle, tmp_path, capsys, monkeypatch):
    def full(_folder, _reports):
        raise ReportError("cannot write report.html (No space left on device)")

    monkeypatch.setattr("boardfit.cli.bench_pages.write_pages", full)
    assert bench(bundle, "--size", "32", "--out", tmp_path / "out") == 1
    assert read_report(tmp_path / "out").bundle_name == "tiny net"
    assert "No space left on device); boardfit report makes the pages again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--scenario", "camera", "--fps", "100"], "dropped"),
        (["--scenario", "offline", "--batch", "2"], "offline"),
        (["--frame-size", "320x240"], "made pictures of 320x240"),
    ],
    ids=["camera", "offline", "made pictures"],
)
def test_scenarios_and_pictures(bundle, capsys, words, told):
    assert bench(bundle, *words) in (0, INVALID)
    assert told in capsys.readouterr().out


def test_labels_give_accuracy_with_the_drop(bundle, photos, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nflat.png,1\nmore/noise.png,2\n")
    bench(bundle, "--images", photos, "--val", table, "--size", "32", "--out", tmp_path / "out")
    assert "top-1 %" in capsys.readouterr().out
    accuracy = read_report(tmp_path / "out").measurements[0].accuracy
    assert accuracy.images == 2
    assert accuracy.drop_points is not None


def test_times_of_an_emulated_board_are_not_shown(bundle, photos, tmp_path, capsys, monkeypatch):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nflat.png,1\n")
    board = replace(detect(), emulation="the processor calls itself QEMU")
    monkeypatch.setattr("boardfit.benchmarks.bench.detect", lambda: board)
    for rules in ("run_faults", "measurement_faults"):  # their sentences have the numbers
        monkeypatch.setattr(f"boardfit.benchmarks.measure.{rules}", lambda _runs: ())
    bench(bundle, "--images", photos, "--val", table, "--size", "32", "--out", tmp_path / "out")
    told = capsys.readouterr()
    assert not re.search(r"\d ms", told.out + told.err)
    assert "p50" not in told.out + told.err
    assert "fake fp32 32, 1 thread" in told.out
    assert "the processor is emulated (the processor calls itself QEMU)" in told.out
    assert read_report(tmp_path / "out").measurements[0].runs[0].latencies_s


def test_a_fault_is_told_once_and_by_the_exit_status(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("boardfit.benchmarks.measure.run_faults", lambda run: ("throttled: it was hot",))
    assert bench(bundle, "--size", "32", "--out", tmp_path / "out") == INVALID
    told = capsys.readouterr()
    line = "NOT VALID fake fp32 32, 1 thread: throttled: it was hot (and in 1 more of 2 runs)"
    assert told.out.count("throttled") == 1
    assert line in told.out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["valid"] is False
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "not valid: throttled: it was hot" in page
    assert (tmp_path / "out" / "report.md").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--runs", "0"], "0 runs: expected at least 1"),
        (["--duration", "-1"], "runs of -1.0 s"),
        (["--quick"], "--quick and --duration: give one of them"),
        (["--engine", "nonsense"], "there is no engine 'nonsense'"),
        (["--engine", "opencv"], "the bundle has fake only"),
        (["--precision", "int8"], "not int8"),
        (["--size", "33"], "not 33"),
        (["--size", "32", "--policy", "entropy"], "leave out either"),
        (["--images", "nowhere"], "no images at nowhere"),
        (["--images", "EMPTY"], "no images at"),
        (["--images", "EMPTY", "--frame-size", "64x48"], "give the images, or the size"),
        (["--val", "labels.csv"], "say with --images in which folder"),
        (["--scenario", "camera", "--fps", "0"], "0.0 frames per second"),
        (["--out", "no/parent"], "cannot write no/parent (No such file"),
        (["--out", "FULL"], "is there already"),
        (["--out", "FILE"], "is there already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told_in_one_line_and_nothing_is_left(
    bundle, tmp_path, capsys, monkeypatch, words, told
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "report.json").write_text("mine")
    (tmp_path / "FILE").write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    if "--out" not in words:
        words = [*words, "--out", "new"]
    assert bench(bundle, *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("boardfit: error: ")
    assert error.count("\n") == 1
    assert told in error
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "FULL" / "report.json").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["--threads", "0"],
        ["--threads", "1,x"],
        ["--affinity", "a"],
        ["--size", "-5"],
        ["--frame-size", "640"],
        ["--frame-size", "0x4"],
        ["--engine", "a,,b"],
        ["--scenario", "server"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_by_argparse(bundle, words):
    with pytest.raises(SystemExit) as left:
        bench(bundle, *words)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (EngineError("broken"), 1)], ids=["Ctrl-C", "engine"]
)
def test_what_ends_it_early_leaves_no_half_report(bundle, tmp_path, monkeypatch, error, status):
    measured = []

    def fail(case, *_args, **_kwargs):
        measured.append(case)
        if len(measured) == 2:
            raise error
        return real(case, *_args, **_kwargs)

    real = module.measure
    monkeypatch.setattr(module, "measure", fail)
    before = sorted(tmp_path.rglob("*"))
    assert bench(bundle, "--size", "all", "--out", tmp_path / "out") == status
    assert len(measured) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("board", "told"),
    [
        ("raspberry-pi-5", "Raspberry Pi 5 is a kind of board, not one of yours: say where one is"),
        ("rasberry-pi-5", "raspberry-pi-5"),
        ("telnet://pi", "telnet"),
    ],
    ids=["a kind", "nearest name", "address"],
)
def test_an_unknown_board_is_told(bundle, capsys, board, told):
    assert bench(bundle, "--board", board) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


@pytest.mark.usefixtures("kitchen")
def test_it_runs_on_a_board_elsewhere_and_the_report_comes_back(bundle, photos, tmp_path, capfd):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nflat.png,1\nmore/noise.png,2\n")
    words = ["--board", "ssh://pi@kitchen", "--engine", "fake", "--size", "32"]
    words += ["--images", photos, "--val", table, "--out", tmp_path / "out"]
    status = bench(bundle, *words)
    report = read_report(tmp_path / "out")
    assert status == (0 if report.valid else INVALID)
    assert report.measurements[0].accuracy.images == 2
    assert report.environment.command[1:] == ("bench", str(bundle), *QUICK, *map(str, words))
    assert "fake fp32 32, 1 thread" in capfd.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--board", "ssh://pi@kitchen"], ["--board=ssh://x"], ["--boa=ssh://x"], ["--bo", "ssh://x"]],
    ids=str,
)
def test_the_board_is_asked_for_no_other_board(words):
    rest = ["bench", "x.boardfit", "--batch", "4", "--out", "--board-of-mine"]
    assert list(without_board([*rest[:2], *words, *rest[2:]])) == rest


def test_images_for_a_board_elsewhere_are_there(bundle, capsys):
    assert bench(bundle, "--board", "ssh://pi@kitchen", "--images", "photos/*.jpg") == 1
    assert "photos/*.jpg is not there: name one image or one folder" in capsys.readouterr().err


def test_what_was_tuned_is_measured_for_all_that_is_left_open(bundle, tmp_path, capsys, monkeypatch):
    asked = []

    def advice(_bundle, setup, *, policy, size, tuning):
        asked.append((setup, policy, size, tuning))
        return Setup("fake", "fp32", setup.threads or 3, ())

    monkeypatch.setattr("boardfit.loading.advice", advice)
    words = ["bench", str(bundle), "--runs", "1", "--duration", "0.01", "--size", "48"]
    main([*words, "--out", str(tmp_path / "tuned")])
    assert "as tuned: fake fp32, 3 threads" in capsys.readouterr().err
    assert read_report(tmp_path / "tuned").measurements[0].case.threads == 3
    main([*words, "--threads", "1", "--out", str(tmp_path / "named")])
    assert read_report(tmp_path / "named").measurements[0].case.threads == 1
    assert asked == [(Setup(), None, 48, True), (Setup(threads=1), None, 48, True)]
    main([*words, "--threads", "1,2", "--tuning", "none", "--out", str(tmp_path / "several")])
    assert [row.case.threads for row in read_report(tmp_path / "several").measurements] == [1, 2]
    assert len(asked) == 2


def test_an_empty_folder_may_be_there(bundle, tmp_path):
    (tmp_path / "out").mkdir()
    bench(bundle, "--size", "32", "--out", tmp_path / "out")
    assert read_report(tmp_path / "out").bundle_name == "tiny net"
