"""Answers and events as lines of JSON, and what a file of them may hold at the start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from boardfit.errors import SinkError
from boardfit.runtime import camera
from boardfit.runtime.camera.records import Event
from boardfit.runtime.camera.sinks.jsonl import JsonLines
from boardfit.runtime.camera.sinks.video import Recording


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_for_each_answer_and_event(tmp_path, answer):
    path = tmp_path / "out.jsonl"
    sink = JsonLines(path, top=2)
    sink.write(answer(5))
    sink.write(Event("stalled", time.monotonic(), "cam", "no frame"))
    assert len(lines_of(path)) == 2, "a line stands in the file as soon as it is written"
    sink.close()
    first, second = lines_of(path)
    assert (first["source"], first["frame"], first["reused"]) == ("cam", 5, False)
    assert len(first["top"]) == 2 and set(first["top"][0]) == {"label", "index", "score"}
    assert abs(first["time"] - time.time()) < 5.0
    assert (second["event"], second["detail"]) == ("stalled", "no frame")


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b"", 0),
        (b'{"a": 1}\n', 1),
        (b'{"a": 1}\n{"b": ', 1),
        (b'{"torn', 0),
        (b'{"a": 1}\n' * 3 + b"\x00" * 50, 3),
    ],
    ids=["empty", "whole", "torn", "only-torn", "zeros"],
)
def test_a_torn_tail_is_cut_off(tmp_path, answer, before, kept):
    path = tmp_path / "out.jsonl"
    path.write_bytes(before)
    sink = JsonLines(path)
    sink.write(answer())
    sink.close()
    assert len(lines_of(path)) == kept + 1


def test_a_last_line_that_lacks_only_its_end_gets_it(tmp_path, answer):
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}')
    sink = JsonLines(path)
    sink.write(answer())
    sink.close()
    first, second, third = lines_of(path)
    assert (first, second) == ({"a": 1}, {"b": 2}) and third["frame"] == 0


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r", b"\0\0\0\x20ftyp\n\0", b"name,score\n", b"[1]", b'{\n "a": 1\n}', b"{ text"],
    ids=str,
)
def test_what_is_no_file_of_json_lines_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(SinkError, match="holds something else than JSON lines"):
        JsonLines(path)
    assert path.read_bytes() == content


def test_what_else_stands_in_the_standard_output_stays_there(tmp_path):
    lines = """
from boardfit.runtime.camera.records import Event
from boardfit.runtime.camera.sinks.jsonl import JsonLines
sink = JsonLines("/dev/stdout")
sink.write(Event("live", 0.0, "cam", ""))
sink.close()
"""
    path = tmp_path / "log.txt"
    path.write_text("begun by cron\n")
    with path.open("a") as log:
        subprocess.run([sys.executable, "-c", lines], stdout=log, check=True)
    first, second = path.read_text().splitlines()
    assert first == "begun by cron" and json.loads(second)["event"] == "live"


def test_what_came_in_the_place_of_the_file_is_left_as_it_is(tmp_path, answer):
    path = tmp_path / "out.jsonl"
    sink = JsonLines(path)
    sink.close()
    path.write_bytes(b"\x89PNG")
    for _ in range(2):
        with pytest.raises(SinkError, match="holds something else"):
            sink.write(answer())
    assert path.read_bytes() == b"\x89PNG"


def test_a_torn_tail_that_no_reader_gets_to_the_end_of(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b'{"a":' * 100_000)
    JsonLines(path).close()
    assert lines_of(path) == [{"a": 1}]


@pytest.mark.parametrize("zeros", [100, 5000])
def test_of_a_file_that_a_power_cut_left_as_zeros_nothing_stays(tmp_path, answer, zeros):
    path = tmp_path / "out.jsonl"
    path.write_bytes(bytes(zeros))
    sink = JsonLines(path)
    sink.write(answer())
    sink.close()
    assert len(lines_of(path)) == 1
    path.write_bytes(bytes(zeros) + b"\n" + path.read_bytes())
    JsonLines(path).close()


def test_files_are_rotated_and_the_oldest_one_goes(tmp_path, answer):
    path = tmp_path / "out.jsonl"
    sink = JsonLines(path, max_bytes=4000, keep=2)
    for index in range(40):
        sink.write(answer(index))
    sink.close()
    assert sorted(file.name for file in tmp_path.iterdir() if "jsonl" in file.name) == [
        "out.1.jsonl",
        "out.2.jsonl",
        "out.jsonl",
    ]
    files = [tmp_path / name for name in ("out.2.jsonl", "out.1.jsonl", "out.jsonl")]
    frames = [line["frame"] for file in files for line in lines_of(file)]
    assert frames == list(range(frames[0], 40))
    assert all(file.stat().st_size <= 4000 for file in files)


def test_lines_into_a_pipe(tmp_path, answer):
    out, into = os.pipe()
    (tmp_path / "stdout").symlink_to(f"/proc/self/fd/{into}")
    sink = JsonLines(tmp_path / "stdout", max_bytes=1000)
    for index in range(5):
        sink.write(answer(index))
    sink.close()
    os.close(into)
    with os.fdopen(out, encoding="utf-8") as file:
        assert [json.loads(line)["frame"] for line in file] == list(range(5))
    assert [path.name for path in tmp_path.glob("std*")] == ["stdout"], "what is no file is not rotated"


def test_the_file_behind_a_link_is_rotated(tmp_path, answer):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "out.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "logs" / "out.jsonl")
    sink = JsonLines(tmp_path / "link.jsonl", max_bytes=1000)
    for index in range(5):
        sink.write(answer(index))
    sink.close()
    assert (tmp_path / "link.jsonl").is_symlink() and (tmp_path / "logs" / "out.1.jsonl").exists()


@pytest.mark.parametrize("score", [np.nan, np.inf], ids=["nan", "inf"])
def test_a_score_that_is_no_number_is_null(tmp_path, answer, score):
    path = tmp_path / "out.jsonl"
    bad = answer()
    bad.result.scores[:] = score
    sink = JsonLines(path)
    sink.write(bad)
    sink.close()
    line = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert {best["score"] for best in line["top"]} == {None}


def test_an_event_that_names_a_file_which_is_not_in_utf_8(tmp_path):
    sink = JsonLines(tmp_path / "out.jsonl")
    sink.write(Event("unplugged", time.monotonic(), "cam", "fotos\udcff is not there"))
    sink.close()
    assert lines_of(tmp_path / "out.jsonl")[0]["detail"] == "fotos\udcff is not there"


def test_a_full_disk_is_an_error_each_time(answer):
    sink = JsonLines("/dev/full")
    for _ in range(2):
        with pytest.raises(SinkError, match="No space left"):
            sink.write(answer())
    sink.close()


@pytest.mark.parametrize("kind", [JsonLines, lambda path: Recording(path, fps=10.0)], ids=["jsonl", "film"])
def test_a_folder_that_is_not_there(tmp_path, kind):
    with pytest.raises(SinkError):
        kind(tmp_path / "no" / "x.mp4")


def test_events_stand_among_the_lines(tmp_path, bench, model):
    path = tmp_path / "out.jsonl"
    with camera.open(bench) as source, camera.loop(source, model, sinks=[JsonLines(path)]) as running:
        for count, _ in enumerate(running):
            if count == 5:
                bench.fault = "garbage"
                time.sleep(0.1)
                bench.fault = ""
            if count == 10:
                break
    lines = lines_of(path)
    assert [line["event"] for line in lines if "event" in line][:2] == ["garbage", "live"]
    assert [line["frame"] for line in lines if "frame" in line] == sorted(
        line["frame"] for line in lines if "frame" in line
    )
