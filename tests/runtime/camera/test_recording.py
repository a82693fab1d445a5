"""Answers as films: their parts, their end, and disks that are full."""

from __future__ import annotations

import math
import os
import resource
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from watched import frames_in

from boardfit.errors import SinkError
from boardfit.runtime import camera
from boardfit.runtime.camera.sinks.rotate import rotate
from boardfit.runtime.camera.sinks.video import Recording


def test_a_file_that_cannot_be_begun_pushes_no_old_one_out(tmp_path):
    (tmp_path / "out.1.mp4").write_text("old")
    for _ in range(3):
        rotate(tmp_path / "out.mp4", 2)
    assert [file.name for file in tmp_path.iterdir()] == ["out.1.mp4"]


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


@pytest.mark.parametrize("gap_s", [0.5, 3.0, 6.0])
def test_the_film_of_a_slow_camera_has_parts_too(tmp_path, answer, gap_s):
    sink = Recording(tmp_path / "out.avi", fps=15.0, part_s=60.0, keep=9)
    for index in range(int(200 / gap_s)):
        sink.write(answer(index, index * gap_s))
    sink.close()
    assert len(list(tmp_path.glob("*.avi"))) == 4


def test_a_film_whose_name_is_not_in_utf_8_is_refused(tmp_path):
    with pytest.raises(SinkError, match=r"not in UTF-8"):
        Recording(tmp_path / os.fsdecode(b"\xff.mp4"), fps=10.0)


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
    taken[0] = 12_000  # the old parts bring enough, the newest film stays
    frames = frames_in(tmp_path / "out.avi")
    sink = Recording(tmp_path / "out.avi", **options)
    sink.write(answer())
    sink.close()
    assert frames_in(tmp_path / "out.1.avi") == frames and frames_in(tmp_path / "out.avi") == 1


def test_the_film_that_was_closed_for_a_full_disk_stays(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    (tmp_path / "out.1.avi").write_bytes(bytes(100))
    free = [20_000]
    options = {"min_free_bytes": 10_000, "free_bytes": lambda folder: free[0]}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    for index in range(10):
        sink.write(answer(index))
    free[0] = 9000  # without the film it would be enough
    for _ in range(3):
        with pytest.raises(SinkError, match="MB stay free"):
            sink.write(answer())
    assert frames_in(tmp_path / "out.avi") == 10 and (tmp_path / "out.1.avi").exists()


def test_a_part_that_would_fill_the_disk_is_two(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    room = 6_000_000  # a picture takes a quarter of a megabyte

    def noise(answer):
        return np.random.RandomState(answer.frame.index).randint(0, 256, (480, 640, 3)).astype(np.uint8)

    def held():
        return sum(path.stat().st_size for path in tmp_path.glob("*.mp4"))

    options = {"min_free_bytes": 10_000_000, "free_bytes": lambda folder: room + 10_000_000 - held()}
    sink = Recording(tmp_path / "out.mp4", fps=10.0, real_time=False, draw=noise, **options)
    most = 0
    for index in range(120):
        sink.write(answer(index))
        most = max(most, held())
        assert most < room / 3 or held() > room / 3, "a third of what there is room for stays at any time"
    sink.close()
    assert most > room / 2 and sum(map(frames_in, tmp_path.glob("*.mp4"))) < 120


def test_a_part_at_a_look_goes_where_its_room_is_told_late(tmp_path, answer):
    for number in (1, 2, 3):
        (tmp_path / f"out.{number}.avi").write_bytes(bytes(1000))
    (tmp_path / "link").hardlink_to(tmp_path / "out.3.avi")  # removing it would bring nothing
    options = {"min_free_bytes": 10_000, "free_bytes": lambda folder: 9500}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    sink.write(answer())
    sink.close()
    assert sorted(path.name for path in tmp_path.glob("*.avi")) == ["out.1.avi", "out.3.avi", "out.avi"]


def test_no_further_part_goes_while_the_last_one_brought_nothing(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LATE_S", 0.0)
    for number in (1, 2, 3, 4):
        (tmp_path / f"out.{number}.avi").write_bytes(bytes(1000))
    free = [9500]
    options = {"min_free_bytes": 10_000, "free_bytes": lambda folder: free[0]}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    sink.write(answer())
    for _ in range(5):
        with pytest.raises(SinkError, match="MB stay free"):
            sink.write(answer())
    left = [path.name for path in tmp_path.glob("out.?.avi")]
    assert sorted(left) == ["out.1.avi", "out.2.avi", "out.3.avi"]
    free[0] = 9800  # now it has
    sink.write(answer())
    sink.close()
    assert sorted(path.name for path in tmp_path.glob("out.?.avi")) == ["out.1.avi", "out.2.avi", "out.3.avi"]


def test_a_film_goes_on_while_its_room_may_be_told_late(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    for number in (1, 2, 3, 4):
        (tmp_path / f"out.{number}.avi").write_bytes(bytes(1000))
    free = [9500]
    options = {"min_free_bytes": 10_000, "free_bytes": lambda folder: free[0]}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    for _ in range(5):
        sink.write(answer())
    assert len(list(tmp_path.glob("out.?.avi"))) == 3
    free[0] = 4000  # others need the disk
    with pytest.raises(SinkError, match="MB stay free"):
        sink.write(answer())


def test_where_removing_brings_nothing_another_part_goes_after_a_while_that_doubles(
    tmp_path, answer, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video.time.monotonic", lambda: now[0])
    for number in (1, 2, 3, 4):
        (tmp_path / f"out.{number}.avi").write_bytes(bytes(1000))
    options = {"min_free_bytes": 10_000, "free_bytes": lambda folder: 9500}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    made = answer(0, 0.0)
    gone = []
    unlink = Path.unlink

    def note(path, **how):
        gone.append(now[0])
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", note)
    for now[0] in range(250):
        with suppress(SinkError):
            sink.write(made)
    assert gone == [0, 60, 180]


def test_a_small_part_whose_room_the_film_takes_at_once_has_brought_some(tmp_path, answer, monkeypatch):
    monkeypatch.setattr("boardfit.runtime.camera.sinks.video._LOOK_S", 0.0)
    for number, length in ((4, 600), (3, 9000), (2, 9000), (1, 9000)):
        (tmp_path / f"out.{number}.avi").write_bytes(bytes(length))

    room = [38_000]

    def free_bytes(folder):
        return room[0] - sum(path.stat().st_size for path in folder.glob("*.avi"))

    options = {"part_s": 1.0, "min_free_bytes": 10_000, "free_bytes": free_bytes}
    sink = Recording(tmp_path / "out.avi", fps=10.0, real_time=False, **options)
    for tenth in range(25):
        if tenth == 10:
            room[0] = 37_500  # by others; this picture also brings the first part's end
        sink.write(answer(tenth, tenth / 10))
    sink.close()
    assert sum(map(frames_in, tmp_path.glob("*.avi"))) == 25


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
