from __future__ import annotations

import json
import math
import os
import resource
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from boardfit.errors import SinkError
from boardfit.runtime import camera
from boardfit.runtime.camera.records import Event, Frame
from boardfit.runtime.camera.sinks import Answer, SinkThread
from boardfit.runtime.camera.sinks.jsonl import JsonLines
from boardfit.runtime.camera.sinks.rotate import rotate
from boardfit.runtime.camera.sinks.video import Recording


@pytest.fixture
def answer(model):
    """Makes the answer to a picture that came at some second."""

    def make(index: int = 0, time_s: float | None = None, size_wh: tuple[int, int] = (64, 48)) -> Answer:
        image = np.full((size_wh[1], size_wh[0], 3), (37 * index) % 256, np.uint8)
        frame = Frame(image, time.monotonic() if time_s is None else time_s, index, "cam")
        return Answer(frame, model(image), age_s=0.01)

    return make


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


def test_a_file_that_cannot_be_begun_pushes_no_old_one_out(tmp_path):
    (tmp_path / "out.1.mp4").write_text("old")
    for _ in range(3):
        rotate(tmp_path / "out.mp4", 2)
    assert [file.name for file in tmp_path.iterdir()] == ["out.1.mp4"]


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


def frames_in(path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_film_of_every_answer(tmp_path, answer, suffix):
    sink = Recording(tmp_path / f"out.{suffix}", fps=10.0, real_time=False)
    for index in range(12):
        sink.write(answer(index))
    sink.close()
    assert frames_in(tmp_path / f"out.{suffix}") == 12


def test_a_film_at_the_speed_of_life(tmp_path, answer):
    sink = Recording(tmp_path / "out.avi", fps=10.0)
    for time_s in (0.0, 0.02, 0.5, 1.0, 900.0, 900.2):
        sink.write(answer(1, time_s))
    sink.close()
    # Until second 1 at ten frames a second; the outage is left out, and 0.2 s follow it.
    assert frames_in(tmp_path / "out.1.avi") + frames_in(tmp_path / "out.avi") == 11 + 3


def test_a_film_has_parts(tmp_path, answer):
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, part_s=1.0, keep=2)
    for tenth in range(35):
        sink.write(answer(1, tenth / 10))
    sink.close()
    assert sorted(path.name for path in tmp_path.glob("*.avi")) == ["out.1.avi", "out.2.avi", "out.avi"]
    assert frames_in(tmp_path / "out.1.avi") == 10


def test_what_stays_in_one_film_pushes_no_older_one_out(tmp_path, answer):
    for index in range(4):
        sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, part_s=math.inf, keep=1)
        for _ in range(index + 1):
            sink.write(answer(index))
        sink.close()
    films = ["out.3.avi", "out.2.avi", "out.1.avi", "out.avi"]
    assert [frames_in(tmp_path / name) for name in films] == [1, 2, 3, 4]


def test_pictures_of_another_size_fit_into_the_film(tmp_path, answer):
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False)
    sink.write(answer(0))
    sink.write(answer(1, size_wh=(31, 77)))
    sink.close()
    assert frames_in(tmp_path / "out.avi") == 2


def test_a_film_is_finished_while_there_is_room(tmp_path, answer, monkeypatch):
    free = [10**9]
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    sink = Recording(tmp_path / "out.mp4", fps=10.0, real_time=False, free_bytes=lambda folder: free[0])
    for index in range(5):
        sink.write(answer(index))
    free[0] = 1000
    with pytest.raises(SinkError, match="MB stay free"):
        sink.write(answer(5))
    assert frames_in(tmp_path / "out.mp4") == 5
    free[0] = 10**9
    sink.write(answer(6))
    sink.close()
    assert frames_in(tmp_path / "out.1.mp4") == 5 and frames_in(tmp_path / "out.mp4") == 1


def test_parts_that_fill_the_disk_make_room_the_oldest_one_first(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    taken = [0]

    def free_bytes(folder):
        return 30_000 - taken[0] - sum(path.stat().st_size for path in folder.glob("*.avi"))

    options = {"fps": 10.0, "real_time": False, "min_free_bytes": 10_000, "free_bytes": free_bytes}
    sink = Recording(tmp_path / "out.avi", part_s=1.0, **options)
    for tenth in range(95):
        sink.write(answer(tenth, tenth / 10))
    sink.close()
    names = sorted(path.name for path in tmp_path.glob("*.avi"))
    assert names == ["out.1.avi", "out.2.avi", "out.avi"], "five would fit into its number, three on the disk"
    taken[0] = 25_000  # by others: all parts together would not bring enough
    with pytest.raises(SinkError, match="MB stay free"):
        Recording(tmp_path / "out.avi", **options).write(answer())
    assert sorted(path.name for path in tmp_path.glob("*.avi")) == names
    taken[0] = 18_000  # a single part may fill the disk too
    sink = Recording(tmp_path / "out.avi", **options)
    sink.write(answer())
    sink.close()
    assert [path.name for path in tmp_path.glob("*.avi")] == ["out.avi"]


def test_a_part_at_a_look_goes_where_its_room_is_told_late(tmp_path, answer):
    for number in (1, 2, 3):
        (tmp_path / f"out.{number}.avi").write_bytes(bytes(1000))
    (tmp_path / "link").hardlink_to(tmp_path / "out.3.avi")  # removing it would bring nothing
    options = {"min_free_bytes": 10_000, "free_bytes": lambda folder: 9500}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    sink.write(answer())
    sink.close()
    assert sorted(path.name for path in tmp_path.glob("*.avi")) == ["out.1.avi", "out.3.avi", "out.avi"]


@contextmanager
def file_limit(most):
    """Bounds the length of the files that this process writes, pytest's own log among them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("suffix", "most", "why"),
    [
        ("mp4", 0, "may this user write there"),
        ("mp4", 100, "does not grow"),
        ("mkv", 100, "does not grow"),
        ("avi", 100, "does not grow"),
    ],
)
def test_a_film_that_cannot_be_written_is_an_error_and_pushes_no_old_part_out(
    tmp_path, answer, monkeypatch, suffix, most, why
):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._STILL_PIXELS", 3_000_000)
    (tmp_path / f"out.1.{suffix}").write_text("old")
    sink = Recording(tmp_path / f"out.{suffix}", fps=10.0, real_time=False, keep=1)
    for _ in range(2):
        with file_limit(most), pytest.raises(SinkError, match=why):
            for index in range(3000):
                sink.write(answer(index))
    assert (tmp_path / f"out.1.{suffix}").read_text() == "old"


def test_a_film_whose_end_cannot_be_written_is_an_error(tmp_path, answer):
    sink = Recording(tmp_path / "out.mp4", fps=10.0, real_time=False)
    sink.write(answer(0))
    with file_limit(0), pytest.raises(SinkError, match="does not grow"):
        sink.close()


def test_a_film_that_is_moved_is_finished_and_a_new_one_begun(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    sink = Recording(tmp_path / "out.mp4", fps=10.0, real_time=False)
    for index in range(5):
        sink.write(answer(index))
    (tmp_path / "out.mp4").rename(tmp_path / "kept.mp4")
    for index in range(3):
        sink.write(answer(index))
    (tmp_path / "out.mp4").rename(tmp_path / "last.mp4")
    sink.close()
    assert [frames_in(tmp_path / name) for name in ("kept.mp4", "last.mp4")] == [5, 3]


def test_a_still_film_goes_on(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._STILL_PIXELS", 50 * 64 * 48)
    sink = Recording(tmp_path / "out.mp4", fps=10.0, real_time=False)
    for _ in range(80):
        sink.write(answer(0))
    sink.close()
    assert sum(map(frames_in, tmp_path.glob("out*.mp4"))) == 80


class Slow:
    """A sink that waits to be let on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.items: list = []
        self.closed = False

    def write(self, item) -> None:
        self.go.wait(10.0)
        self.items.append(item)

    def close(self) -> None:
        self.closed = True


def test_a_slow_sink_loses_the_oldest_answers_and_holds_nobody(answer):
    slow = Slow()
    thread = SinkThread(slow, waits=lambda: False, tell=lambda event: None)
    began = time.monotonic()
    for index in range(30):
        thread.put(answer(index))
    assert time.monotonic() - began < 5.0
    slow.go.set()
    thread.end(10.0)
    assert thread.join(10.0) and slow.closed
    indices = [item.frame.index for item in slow.items]
    assert thread.dropped == 30 - len(indices) and len(indices) <= 9
    assert indices[-8:] == list(range(22, 30))


def test_a_recorder_slower_than_the_camera_finishes_its_film(tmp_path, bench, model):
    def draw(answer):
        time.sleep(0.1)
        return answer.frame.image

    film = Recording(tmp_path / "out.mp4", fps=10.0, draw=draw)
    with camera.open(bench) as source, camera.loop(source, model, sinks=[film]) as running:
        for _ in running:
            if running.stats.results >= 30:
                running.stop()
        assert frames_in(tmp_path / "out.mp4") >= 1
        assert running.counters["sinks_dropped"] >= 5


def event(number: int = 0) -> Event:
    return Event("stalled", 0.0, "cam", str(number))


def test_answers_push_no_event_out(answer):
    slow = Slow()
    thread = SinkThread(slow, waits=lambda: False, tell=lambda event: None)
    thread.put(answer(0))
    thread.put(event())
    for index in range(30):
        thread.put(answer(index))
    slow.go.set()
    thread.end(10.0)
    assert thread.join(10.0)
    assert [item.kind for item in slow.items if isinstance(item, Event)] == ["stalled"]


def test_events_wait_for_a_sink_to_work_again(answer, monkeypatch, until):
    monkeypatch.setattr("boardfit.runtime.camera.sinks._RETRY_S", 0.2)
    fails, items, told = [True], [], []

    class Sink(Slow):
        def write(self, item):
            if fails:
                raise SinkError("the disk is full")
            items.append(item)

    thread = SinkThread(Sink(), waits=lambda: False, tell=lambda event: told.append(event.kind))
    thread.put(answer(0))
    until(lambda: thread.dropped == 1)
    for number in range(100):
        thread.put(event(number))
        thread.put(answer(number))
    assert len(thread._queue) <= 64 + 8, "it holds no more, however long it lasts"
    time.sleep(0.5)
    fails.clear()
    until(lambda: len(items) == 64)
    assert [item.detail for item in items] == [str(number) for number in range(36, 100)]
    assert told == ["sink-failed"], "a film takes every event: only an answer tells that it works"
    thread.put(answer(200))
    until(lambda: thread.written == 1 and told[1:] == ["sink-works"])
    thread.end(10.0)
    assert thread.join(10.0) and thread.dropped == 101


def test_an_event_that_a_sink_cannot_digest_is_no_end(answer, monkeypatch, until):
    monkeypatch.setattr("boardfit.runtime.camera.sinks._RETRY_S", 0.01)

    class Sink(Slow):
        def write(self, item):
            item.frame  # noqa: B018

    thread = SinkThread(Sink(), waits=lambda: False, tell=lambda event: None)
    thread.put(event())
    time.sleep(0.1)
    thread.put(answer(1))
    until(lambda: thread.written == 1)
    thread.end(10.0)
    assert thread.join(10.0)


def test_a_lossless_sink_makes_the_loop_wait(answer):
    items = []

    def sink(item):
        time.sleep(0.002)
        items.append(item)

    thread = SinkThread(sink, waits=lambda: True, tell=lambda event: None)
    for index in range(40):
        thread.put(answer(index))
    thread.end(10.0)
    assert thread.join(10.0)
    assert [item.frame.index for item in items] == list(range(40)) and thread.dropped == 0


def test_a_sink_that_fails_is_an_event_and_is_tried_again(bench, model, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks._RETRY_S", 0.1)
    broken, seen, events = [True], [], []

    def sink(answer):
        if broken[0]:
            raise OSError(28, "No space left on device")
        seen.append(answer)

    with (
        camera.open(bench) as source,
        camera.loop(source, model, sinks=[sink], on_event=events.append) as running,
    ):
        for _ in running:
            if running.stats.results == 10:
                broken[0] = False
            if len(seen) >= 3:
                break
        assert running.counters["sinks_dropped"] >= 1
    told = [event for event in events if event.kind.startswith("sink")]
    assert [event.kind for event in told] == ["sink-failed", "sink-works"]
    assert "No space left" in told[0].detail


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
