from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import pytest

from boardfit.bundle import write_bundle
from boardfit.cli import main
from boardfit.runtime.camera.source import Source
from boardfit.runtime.engines.fake import fake_artifact, fake_files
from boardfit.specs import ImageSpec, PolicySpec


def frames_in(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def test_a_film_is_watched_to_its_end(bundle, film, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ["watch", str(bundle), str(film), "--every-frame", "--jsonl", str(out)]
    assert main([*words, "--record", str(tmp_path / "out.mp4"), "--top", "2"]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    answers = [line for line in lines if "frame" in line]
    assert [line["frame"] for line in answers] == list(range(12))
    assert all(len(line["top"]) == 2 for line in answers)
    assert frames_in(tmp_path / "out.mp4") == 12
    shown, err = capsys.readouterr()
    assert re.match(r".*film\.avi#0  class \d  0\.\d\d  size \d+  \d+ ms old\n", shown)
    assert re.search(r"^inference +\d", err, re.MULTILINE) and "12 results" in err


@pytest.mark.parametrize("stays", ["all", "the newest"])
def test_of_a_camera_the_newest_stays_and_of_a_film_all(bundle, film, tmp_path, monkeypatch, stays):
    monkeypatch.setattr("boardfit.cli.watch._PART_S", 1e-3)
    monkeypatch.setattr("boardfit.cli.watch._JSONL_BYTES", 1000)
    words = ["watch", str(bundle), "--jsonl", str(tmp_path / "x.jsonl"), "--record", str(tmp_path / "x.mp4")]
    words += [str(film), "--every-frame"] if stays == "all" else ["synthetic:64x48@20", "--for", "1"]
    assert main([*words, "--quiet"]) == 0
    names = {path.name for path in tmp_path.glob("x.*")}
    if stays == "all":
        assert names == {"x.jsonl", "x.mp4"} and frames_in(tmp_path / "x.mp4") == 12
    else:
        old = {f"x.{number}.{suffix}" for number in (1, 2, 3, 4) for suffix in ("jsonl", "mp4")}
        assert names == {"x.jsonl", "x.mp4"} | old


def test_the_help_tells_how_much_stays(capsys):
    with pytest.raises(SystemExit):
        main(["watch", "--help"])
    assert "files of 10 minutes of film or 64 MB of lines, 4 old\nones of each" in capsys.readouterr().out


def test_a_camera_is_watched_for_a_while(bundle, capsys, monkeypatch):
    monkeypatch.setattr("boardfit.cli.watch._STATS_S", 0.5)
    words = ["watch", str(bundle), "synthetic:64x48@100", "synthetic:32x32@100", "--for", "1.5", "--stats"]
    assert main([*words, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert len(re.findall(r"^stage +p50 ms", err, re.MULTILINE)) >= 2
    assert "2 live" in err


def test_cameras_that_look_alike_without_their_passwords_have_numbers(bundle, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["synthetic:64x48@50"] * 3 + ["synthetic:32x32@50"]
    assert main(["watch", str(bundle), *words, "--for", "1", "--jsonl", str(out)]) == 0
    sources = {json.loads(line)["source"] for line in out.read_text().splitlines()}
    same = "synthetic:64x48@50"
    assert sources == {same, f"{same}#2", f"{same}#3", "synthetic:32x32@50"}


def test_cameras_are_closed_together(bundle, monkeypatch):
    closed = []
    for name, method in (("_ask_to_stop", Source._ask_to_stop), ("_join", Source._join)):

        def noted(source, *words, name=name, method=method):
            closed.append(name)
            method(source, *words)

        monkeypatch.setattr(Source, name, noted)
    assert main(["watch", str(bundle), "synthetic:64x48@100", "synthetic:32x32@100", "--for", "0.3"]) == 0
    assert closed == ["_ask_to_stop", "_ask_to_stop", "_join", "_join"]


def test_what_is_no_classifier_is_watched_too(tmp_path, film, capsys):
    out = tmp_path / "out.jsonl"
    write_bundle(
        tmp_path / "embed",
        name="embed",
        labels=(),
        image=ImageSpec(),
        policy=PolicySpec("fixed", (32,)),
        artifacts=(fake_artifact((32,), activation="none"),),
        files=fake_files(),
        task="embed",
    )
    words = ["watch", str(tmp_path / "embed"), str(film), "--every-frame", "--jsonl", str(out)]
    assert main([*words, "--record", str(tmp_path / "out.mp4")]) == 0
    assert re.match(r".*film\.avi#0  scores \[1, 10\]  size 32  \d+ ms old\n", capsys.readouterr().out)
    answer = json.loads(out.read_text().splitlines()[1])
    assert (answer["top"], answer["outputs"]) == ([], {"scores": [1, 10]})


@pytest.mark.parametrize("word", ["1e-7", "1e-11", "0", "nan", "inf", "x"])
def test_a_rate_that_makes_no_sense(word, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["watch", "x.boardfit", "synthetic", "--camera-fps", word])
    assert f"--camera-fps: {word!r}: expected " in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--still", "--camera-fps", "0.4"]], ids=["usual", "still and slow"])
def test_what_a_camera_is_told_to_be(bundle, words, monkeypatch):
    opened = []
    original = Source.__init__

    def noted(source, *args, **named):
        opened.append(named["settings"])
        original(source, *args, **named)

    monkeypatch.setattr(Source, "__init__", noted)
    assert main(["watch", str(bundle), "synthetic:64x48@50", "--for", "0.2", *words]) == 0
    assert (opened[0].frozen_s, opened[0].stall_s) == ((None, 6.25) if words else (0.7, 0.7))


@pytest.mark.parametrize("words", [["--fps", "1000"], ["--reuse"], ["--size", "32"]], ids=" ".join)
def test_how_to_look(bundle, film, words, capsys):
    assert main(["watch", str(bundle), str(film), "--every-frame", *words]) == 0
    assert "12 results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["no.mp4"], "no.mp4 is not there"),
        (["0"], "/dev/video0 is not there"),
        (["env:NO_SUCH_CAMERA"], "NO_SUCH_CAMERA is not set"),
        (["synthetic", "--jsonl", "no/such/folder/x.jsonl"], "no/such/folder/x.jsonl cannot be written"),
        (["synthetic", "synthetic:64x48", "--record", "no/x.mp4"], "--record films one camera: run one"),
        (["synthetic", "--size", "96"], "96"),
        (["rtsp://me:geheim@127.0.0.1:9/x"], "nobody listens on port 9"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_cannot_be_had_is_named(bundle, words, named, capsys):
    assert main(["watch", str(bundle), *words]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "boardfit: error: " in err and named in err
    assert "geheim" not in err


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("\udcff.mp4", "'\\udcff.mp4' is not in UTF-8"),
        ("x.gif", "a film's name ends in .mp4"),
        ("no/x.mp4", "the folder of no/x.mp4 does not exist"),
    ],
    ids=["not-utf-8", "suffix", "folder"],
)
def test_where_no_film_can_be_is_said_before_anything_begins(bundle, capsys, name, why):
    assert main(["watch", str(bundle), "synthetic", "--record", name]) == 1
    out, err = capsys.readouterr()
    assert out == "" and why in err and err.count("\n") == 1


def test_a_folder_whose_name_is_not_in_utf_8(bundle, photos, tmp_path, capsys):
    folder = photos.rename(photos.with_name("fotos\udcff"))
    out = tmp_path / "out.jsonl"
    assert main(["watch", str(bundle), str(folder), "--every-frame", "--jsonl", str(out)]) == 0
    assert "fotos\\udcff#0  class" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len([line for line in lines if "frame" in line]) == 3
    assert {line["source"] for line in lines} == {str(folder).replace("\udcff", "\\udcff")}


def test_a_source_from_the_environment(bundle, film, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_CAMERA", str(film))
    words = ["watch", str(bundle), "env:MY_CAMERA", "--every-frame", "--record", str(tmp_path / "out.mp4")]
    assert main(words) == 0
    assert "12 results" in capsys.readouterr().err
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 5.0, "the speed of the film that the variable names"
    capture.release()
    assert frames_in(tmp_path / "out.mp4") == 12


@pytest.mark.parametrize(
    "words", [["--for", "0"], ["--fps", "x"], ["--max-temp", "-3"], ["--camera-size", "640"]], ids=" ".join
)
def test_values_that_make_no_sense(bundle, words):
    with pytest.raises(SystemExit) as left:
        main(["watch", str(bundle), "synthetic", *words])
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("temperature_c", "throttled"), [(90.0, False), (20.0, True)], ids=["too hot", "clock held down"]
)
def test_heat_and_a_clock_that_is_held_down_take_smaller_inputs(
    bundle, tmp_path, monkeypatch, capsys, temperature_c, throttled
):
    monkeypatch.setattr("boardfit.boards.probes.Probes.temperature_c", lambda self: temperature_c)
    monkeypatch.setattr("boardfit.boards.probes.Probes.throttled", lambda self: throttled)
    out = tmp_path / "out.jsonl"
    words = ["watch", str(bundle), "synthetic:64x48@50", "--max-temp", "75", "--for", "1"]
    assert main([*words, "--policy", "fixed", "--quiet", "--jsonl", str(out)]) == 0
    sizes = [line["size"] for line in map(json.loads, out.read_text().splitlines()) if "frame" in line]
    assert sizes[0] == 64
    assert sizes[-1] == 48


def test_where_no_sensor_tells_a_temperature_a_limit_to_it_is_no_secret(bundle, monkeypatch, capsys):
    monkeypatch.setattr("boardfit.boards.probes.Probes.temperature_c", lambda self: None)
    assert main(["watch", str(bundle), "synthetic:64x48@50", "--max-temp", "75", "--for", "0.3"]) == 0
    assert "--max-temp: no sensor" in capsys.readouterr().err


def test_stats_are_shown_while_no_answer_comes(bundle, monkeypatch, capsys):
    monkeypatch.setattr("boardfit.cli.watch._STATS_S", 0.1)
    words = ["watch", str(bundle), "rtsp://127.0.0.1:9/none", "--wait", "--stats", "--for", "0.6"]
    assert main(words) == 0
    shown = capsys.readouterr().err
    assert shown.count("no frame was answered") >= 3
    assert "1 unplugged" in shown
