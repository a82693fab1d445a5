from __future__ import annotations

import json
import os
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from boardfit.benchmarks.figure import Area, Dot, Drawing, Line, Words
from boardfit.benchmarks.plot import Canvas
from boardfit.benchmarks.store import write_report
from boardfit.cli import main
from boardfit.cli.bench_text import report_text
from boardfit.cli.raster import HEADING_PX, SCALE, png

MADE = Path(__file__).parents[2] / "benchmarks" / "conftest.py"


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """What makes reports by numbers."""
    return SimpleNamespace(**runpy.run_path(str(MADE)))


@pytest.fixture(scope="session")
def measured(tmp_path_factory, made) -> Path:
    """pi5 and nano, two boards; base, slow and again, one board measured three times."""
    rich = made.rich_report()
    few = tuple(each for each in rich.measurements if each.case.scenario == "single-stream")[:3]
    nano = made.make_report(
        made.make_measurement(seed=1, p50_s=0.017, accuracy=few[0].accuracy),
        board="jetson-orin-nano",
        board_title="Jetson Orin Nano",
    )
    reports = {
        "pi5": replace(rich, measurements=few),
        "nano": nano,
        "base": made.make_report(made.make_measurement(runs=10, seed=1)),
        "slow": made.make_report(made.make_measurement(runs=10, seed=2, p50_s=0.00824)),
        "again": made.make_report(made.make_measurement(runs=10, seed=3)),
    }
    folder = tmp_path_factory.mktemp("measured")
    for name, report in reports.items():
        write_report(folder / name, report)
    return folder


@pytest.fixture
def folders(measured, tmp_path, monkeypatch) -> Path:
    """A copy of them, in which the commands run."""
    copy = tmp_path / "benches"
    shutil.copytree(measured, copy)
    monkeypatch.chdir(copy)
    return copy


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_pages_lie_beside_the_report(folders, capsys):
    assert main(["report", "pi5"]) == 0
    found = files(folders / "pi5")
    pictures = ["accuracy.png", "distribution.png", "heat.png", "latencies.png"]
    assert found == [*pictures, "report.html", "report.json", "report.md"]
    assert "wrote pi5/report.html" in capsys.readouterr().out
    text = (folders / "pi5" / "report.md").read_text()
    assert all(f"]({name})" in text for name in pictures)
    for name in pictures:
        picture = cv2.imread(str(folders / "pi5" / name))
        assert picture.shape[1] == 860 * SCALE
        assert 0.001 < (picture < 128).mean() < 0.5


def test_several_boards_on_one_page(folders):
    assert main(["report", "pi5", "nano/report.json", "-o", "boards"]) == 0
    assert files(folders / "boards") == ["accuracy.png", "latencies.png", "report.html", "report.md"]
    assert "Jetson Orin Nano: litert" in (folders / "boards" / "report.html").read_text()
    assert main(["report", "pi5", "nano"]) == 0
    assert (folders / "report" / "report.html").is_file()


def test_the_index_links_pages_and_names_what_it_left_out(folders, capsys):
    assert main(["report", "pi5"]) == 0
    (folders / ".half").mkdir()
    (folders / ".half" / "report.json").write_text("{")
    assert main(["report", "--index", "."]) == 0
    text = (folders / "index.html").read_text()
    assert ".half" not in text
    assert 'href="pi5/report.html"' in text and 'href="nano/report.json"' in text
    whole = (folders / "pi5" / "report.json").read_bytes()
    (folders / "nano" / "report.json").write_bytes(whole[: len(whole) // 2])
    (folders / "deep" / "copy of pi5").mkdir(parents=True)
    (folders / "deep" / "copy of pi5" / "report.json").write_bytes(whole)
    assert main(["report", "--index", str(folders)]) == 1
    text = (folders / "index.html").read_text()
    told = capsys.readouterr().err
    for sentence in ("nano/report.json is cut short", "pi5 is the same report as deep/copy of pi5"):
        assert sentence in text and sentence in told
    assert 'href="deep/copy%20of%20pi5/report.json"' in text


def test_a_report_in_the_folder_itself_has_its_name(folders):
    assert main(["report", "--index", "pi5"]) == 0
    assert '<a href="report.json">pi5</a>' in (folders / "pi5" / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name reports, or a folder"),
        (["pi5", "--index", "."], "two things"),
        (["pi5", "pi5/report.json"], "pi5 and pi5/report.json are the same report"),
        (["nowhere"], "nowhere does not exist"),
        (["cut"], "cut short or damaged"),
        (["other"], "schema 1"),
        (["pi5", "-o", "pi5/report.json"], "cannot write pi5/report.json"),
        (["pi5", "-o", "no/such/folder"], "cannot write no/such/folder"),
        (["--index", "empty"], "no report to show in empty"),
        (["--index", "nowhere"], "no report to show in nowhere"),
        (["--index", "cut"], "cut short"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(folders, capsys, words, told):
    whole = (folders / "pi5" / "report.json").read_text()
    (folders / "empty").mkdir()
    for name, text in (("cut", whole[:-100]), ("other", json.dumps({**json.loads(whole), "schema": 1}))):
        (folders / name).mkdir()
        (folders / name / "report.json").write_text(text)
    before = sorted(folders.rglob("*"))
    assert main(["report", *words]) == 1
    told_lines = capsys.readouterr().err.splitlines()
    assert len(told_lines) == 1 and told in told_lines[0]
    assert sorted(folders.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(folders, capsys):
    (folders / "locked").mkdir(mode=0o555)
    assert main(["report", "pi5", "-o", "locked"]) == 1
    assert "cannot write locked" in capsys.readouterr().err


def test_a_page_that_cannot_be_made_leaves_the_old_ones(folders, monkeypatch):
    assert main(["report", "base"]) == 0
    before = {path: path.read_bytes() for path in (folders / "base").iterdir()}

    def broken(drawing, heading):
        raise MemoryError

    monkeypatch.setattr("boardfit.cli.raster.png", broken)
    write_report(folders / "base", json_report(folders / "slow"))
    with pytest.raises(MemoryError):
        main(["report", "base"])
    after = {path: path.read_bytes() for path in (folders / "base").iterdir()}
    changed = [path.name for path in after if after[path] != before.get(path)]
    assert changed == ["report.json"]


def json_report(folder: Path):
    from boardfit.benchmarks.store import read_report

    return read_report(folder)


def test_the_times_of_an_emulated_processor_are_not_in_the_terminal_either(made):
    text = report_text(made.rich_report(emulated=True))
    assert "emulated" in text and "89.4" in text
    assert not re.search(r"\d ms|MiB|frames/s|°C", text)


# Comparing.


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["base", "slow"], 3, "slower"),
        (["base", "slow", "--fail-on", "never"], 0, "slower"),
        (["slow", "base"], 0, "faster"),
        (["slow", "base", "--fail-on", "difference"], 3, "faster"),
        (["base", "slow", "--least", "5"], 0, "no difference"),
        (["base", "again"], 0, "no difference"),
        (["base", "nano", "--across-boards"], 4, "board differs: raspberry-pi-5 against jetson-orin-nano"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_status_says_what_came_out(folders, capsys, words, status, told):
    if "--across-boards" in words:
        few = json_report(folders / "nano").measurements[0]
        report = replace(json_report(folders / "nano"), measurements=(replace(few, runs=few.runs[:3]),))
        write_report(folders / "nano", report)
    assert main(["compare", *words]) == status
    assert told in capsys.readouterr().out


def test_equal_runs_show_no_verdict_but_no_difference(folders, capsys):
    assert main(["compare", "base", "again"]) == 0
    text = capsys.readouterr().out
    assert "faster" not in text and "slower" not in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["base", "base"], "same report"),
        (["base", "pi5"], "no such thing"),
        (["base", "nano"], "unlike reports (board: raspberry-pi-5 against jetson-orin-nano"),
        (["base", "nowhere"], "does not exist"),
        (["base", "slow", "--least", "-1"], "--least"),
        (["base", "slow", "--least", "nan"], "--least"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared_is_status_1(folders, capsys, words, told):
    if words[1] == "pi5":
        report = json_report(folders / "pi5")
        write_report(folders / "pi5", replace(report, bundle_id="00" * 32))
        told = "unlike reports (bundle:"
    assert main(["compare", *words]) == 1
    assert told in capsys.readouterr().err


def test_json_has_the_numbers(folders, capsys):
    assert main(["compare", "base", "slow", "--json", "--fail-on", "never"]) == 0
    found = json.loads(capsys.readouterr().out)
    (p50,) = [line for line in found["lines"] if line["metric"] == "p50"]
    assert found["outcome"] == "worse"
    assert p50["change"]["low"] < 1.03 < p50["change"]["high"]


# The painter.


def test_a_long_heading_takes_more_lines_and_stays_inside():
    drawing = Drawing(Canvas(css="wide", width=860, height=60, ticks_xy=(4, 4)), ())
    heading = "efficientnet-lite0 on a Pi 5, " * 6
    picture = cv2.imdecode(np.frombuffer(png(drawing, heading), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] == (60 + 2 * HEADING_PX) * SCALE
    assert (picture[:, -4:] == 255).all()


def painted(*shapes) -> np.ndarray:
    canvas = Canvas(css="wide", width=120, height=60, ticks_xy=(4, 4))
    data = png(Drawing(canvas, shapes), "heading")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (picture[: HEADING_PX * SCALE] < 128).any()
    return picture[HEADING_PX * SCALE :]


def test_shapes_are_painted_where_and_as_they_should_be():
    picture = painted(
        Area(((10, 10), (30, 10), (30, 30), (10, 30)), "red"),
        Area(((40, 10), (60, 10), (60, 30), (40, 30)), "red", opacity=0.5),
        Dot((80, 20), 6.0, "blue"),
        Dot((100, 20), 6.0, "blue", hollow=True),
        Line(((0, 50), (120, 50)), "green", width=2.0),
    )
    red, blue, green = (0x1F, 0x12, 0xC1), (0x97, 0x6F, 0x2A), (0x4A, 0x7D, 0x2F)
    pixels = {(20, 20): red, (80, 20): blue, (60, 50): green, (100, 20): (255,) * 3, (70, 5): (255,) * 3}
    for (x, y), colour in pixels.items():
        assert tuple(picture[y * SCALE, x * SCALE]) == colour
    mixed = picture[20 * SCALE, 50 * SCALE].astype(int)
    assert np.abs(mixed - (np.array(red) + 255) // 2).max() <= 1
    assert tuple(picture[20 * SCALE, 94 * SCALE + 1]) != (255,) * 3


def test_a_dashed_line_has_gaps():
    row = painted(Line(((0, 30), (120, 30)), dashed=True))[30 * SCALE]
    dark = row[:, 0] < 128
    assert 0.3 < dark.mean() < 0.8
    assert np.count_nonzero(np.diff(dark.astype(int))) > 20


@pytest.mark.parametrize(
    ("anchor", "left", "right"), [("start", 60, 120), ("end", 0, 60), ("middle", 30, 90)]
)
@pytest.mark.parametrize("font", ["own", "strokes of OpenCV 4"])
def test_words_lie_on_the_side_of_their_anchor(monkeypatch, anchor, left, right, font):
    if font != "own":
        monkeypatch.delattr(cv2, "FontFace", raising=False)
    picture = painted(Words((60, 30), "12 °C", anchor=anchor))
    columns = np.flatnonzero((picture < 128).any(axis=(0, 2)))
    assert len(columns) > 10
    assert left * SCALE - 4 <= columns.min() and columns.max() <= right * SCALE + 4


@pytest.fixture
def compressed(bundle, tmp_path) -> Path:
    """A bundle that tells of a compression."""
    from boardfit.bundle import open_bundle, write_tree

    sides = [
        {"parameters": count, "macs": {str(size): count * size for size in (32, 64)}} for count in (1000, 600)
    ]
    score = {"images": 40, "lost": None, "gained": None, "before": 100.0, "after": 97.5}
    times = {"engine": "fake", "format": "fake", "precision": "fp32", "threads": 1, "size": 64}
    integers = {"size": 64, "measure": "drop", "error_before": 0.2, "error_after": None}
    record = {
        "schema": 2,
        "stages": ["prune", "distill", "qat"],
        "before": sides[0],
        "after": sides[1],
        "agreement": [{**score, "size": 32}, {**score, "size": 64}],
        "right": [],
        "files": [{"format": "fake", "precision": "fp32", "before_bytes": 4000, "after_bytes": 2400}],
        "times": [{**times, "before_s": 0.002, "after_s": 0.0015, "ratio": 0.75}],
        "integers": [
            {**integers, "artifact": "onnx-int8-64", "before": 1.5, "after": 0.25, "used": True},
            {**integers, "artifact": "ncnn-int8-64", "before": 0.5, "after": None, "used": False},
        ],
        "curves": [
            {
                "stage": "distill",
                "epochs": [1, 2],
                "phases": ["all", "all"],
                "series": {
                    "seconds": [4.0, 5.0],
                    "loss": [2.0, 1.0],
                    "agreement": [0.5, 0.75],
                    "images_per_s": [20000.0, 21000.0],
                },
            }
        ],
    }
    with open_bundle(bundle) as opened:
        contents = {entry.path: opened.read(entry.path) for entry in opened.manifest.files}
        measurements = {**opened.measurements, "compressed": record}
        write_tree(tmp_path / "small.boardfit", opened.manifest, contents=contents, measurements=measurements)
    return tmp_path / "small.boardfit"


def test_a_bundle_that_was_compressed_has_a_page(compressed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(compressed)]) == 0
    found = files(tmp_path / "report")
    assert found == ["compression.html", "left.png", "training-1-distill.png"]
    assert capsys.readouterr().out.splitlines() == [f"wrote report/{name}" for name in found]
    text = (tmp_path / "report" / "compression.html").read_text(encoding="utf-8")
    expected = (
        "prune and distill and qat: at 64 pixels 0.60 of the parameters, 0.60 of the multiplications, 0.75 "
        "of the time on fake are left; answers that are the source&#x27;s 100.0 to 97.5 %; onnx-int8-64 "
        "drop +1.5 points to +0.2 points."
    )
    assert expected in text
    assert "Training of distill: 2 epochs, 9 s" in text
    assert "thousand images/s" in text
    assert "Testbench 3000" in text
    for name in found[1:]:
        picture = cv2.imread(str(tmp_path / "report" / name))
        assert picture.shape[1] == 860 * SCALE
        assert 0.001 < (picture < 128).mean() < 0.5


def test_what_qat_did_is_not_told_as_of_the_source(compressed):
    from boardfit.bundle import open_bundle
    from boardfit.cli.compressed import compression_table, read_compression

    with open_bundle(compressed) as opened:
        rows = compression_table(read_compression(opened)).splitlines()
    assert [row.split("  ")[0] for row in rows if "int8" in row] == [
        "drop of onnx-int8-64, without and with qat",
        "drop of ncnn-int8-64, without and with qat",
    ]
    assert [row.endswith("not used") for row in rows[-2:]] == [False, True]


def test_a_bundle_folder_is_not_written_into(compressed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from boardfit.bundle import open_bundle, write_tree

    with open_bundle(compressed) as opened:
        contents = {entry.path: opened.read(entry.path) for entry in opened.manifest.files}
        write_tree(tmp_path / "tree", opened.manifest, contents=contents, measurements=opened.measurements)
    assert main(["report", "tree", "-o", "out"]) == 0
    assert main(["verify", "tree"]) == 0
    assert "compression.html" in files(tmp_path / "out")


def test_a_bundle_that_was_not_compressed_is_told(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(bundle)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "was not compressed, so there is no before and after to show" in line
    assert not (tmp_path / "report").exists()


def test_a_compressed_bundle_among_reports_is_told(folders, compressed, capsys):
    assert main(["report", "pi5", str(compressed)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_inspect_tells_what_compressing_changed(compressed, capsys):
    assert main(["inspect", str(compressed)]) == 0
    assert "answers as the source at 64, before to after: 32: 100.0 to 97.5 %" in capsys.readouterr().out
