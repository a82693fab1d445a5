from __future__ import annotations

import base64
import json
import os
import re
from itertools import pairwise

import cv2
import numpy as np
import pytest

from boardfit.cli import main, sinks
from boardfit.cli.annotate import MIN_SIDE, annotate, ascii_text
from boardfit.cli.frames import find_inputs
from boardfit.cli.sinks import Pictures, Progress
from boardfit.errors import InputError


def json_lines(capsys) -> tuple[list[dict], dict]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return lines[:-1], lines[-1]


def test_a_table_for_people(bundle, photos, capsys):
    assert main(["run", str(bundle), str(photos)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split() == ["file", "answer", "score", "size", "bits", "ms"]
    rows = {line.split()[0].rpartition("/")[2]: line.split() for line in lines[1:4]}
    assert [rows[name][-3] for name in ("flat.png", "ramp.png", "noise.png")] == ["32", "48", "64"]
    assert rows["flat.png"][-2] == "0.00"
    assert rows["flat.png"][1] == "class"
    assert "3 frames, 0 skipped; fake, fp32" in out
    for stage in ("entropy", "preprocess", "inference", "postprocess", "total"):
        assert re.search(rf"^{stage} +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", out, re.MULTILINE)
    assert re.search(r"^48 +1 +33 %$", out, re.MULTILINE)


def test_json_lines_for_programs(bundle, photos, capsys):
    assert main(["run", str(bundle), str(photos / "ramp.png"), str(photos / "flat.png"), "--json"]) == 0
    lines, last = json_lines(capsys)
    assert [line["source"].rpartition("/")[2] for line in lines] == ["ramp.png", "flat.png"]
    assert lines[0]["size"] == 48 and lines[0]["looks"] == [48]
    assert 4.0 <= lines[0]["entropy_bits"] < 7.0
    assert len(lines[0]["top"]) == 5
    scores = [best["score"] for best in lines[0]["top"]]
    assert scores == sorted(scores, reverse=True)
    assert set(lines[0]["top"][0]) == {"label", "index", "score"}
    assert lines[0]["timings"]["total_s"] > 0.0
    assert last["summary"]["frames"] == 2 and last["summary"]["skipped"] == 0
    assert last["summary"]["by_size"] == {"32": 1, "48": 1}
    assert last["engine"].startswith("fake, fp32, ")


def test_a_size_means_the_fixed_policy_without_entropy(bundle, photos, capsys):
    assert main(["run", str(bundle), str(photos), "--size", "48", "--json", "--threads", "1"]) == 0
    lines, last = json_lines(capsys)
    assert [(line["size"], line["entropy_bits"]) for line in lines] == [(48, None)] * 3
    assert "entropy" not in last["summary"]["stages_s"]
    assert last["engine"] == "fake, fp32, 1 thread"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--size", "96"], "96"),
        (["--policy", "lunar"], "lunar"),
        (["--engine", "lunar"], "lunar"),
        (["--precision", "int8"], "int8"),
        (["--report", "no/such/folder/r.html"], "no/such/folder"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_named(bundle, photos, capsys, words, named):
    assert main(["run", str(bundle), str(photos), *words]) == 1
    out, err = capsys.readouterr()
    assert out == "" and named in err and err.startswith("boardfit: error:")


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
@pytest.mark.parametrize("flag", ["--top", "--size", "--threads"])
def test_counts_are_positive(bundle, photos, flag, value):
    with pytest.raises(SystemExit) as left:
        main(["run", str(bundle), str(photos), f"{flag}={value}"])
    assert left.value.code == 2


def test_top_k(bundle, photos, capsys):
    assert main(["run", str(bundle), str(photos / "flat.png"), "--top", "3"]) == 0
    assert capsys.readouterr().out.partition("\n\n")[0].count("class ") == 3


def test_a_bad_picture_among_good_ones_is_skipped_and_counted(bundle, photos, capsys):
    whole = (photos / "more" / "noise.png").read_bytes()
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("not a picture")
    assert main(["run", str(bundle), str(photos)]) == 1
    out, err = capsys.readouterr()
    assert "3 frames, 2 skipped" in out
    assert "broken.png" in err and "text.jpg" in err and "2 inputs skipped" in err


def test_skipped_pictures_stand_in_the_json(bundle, photos, capsys):
    (photos / "text.jpg").write_text("not a picture")
    assert main(["run", str(bundle), str(photos), "--json"]) == 1
    lines, last = json_lines(capsys)
    assert [line["source"].rpartition("/")[2] for line in lines if "error" in line] == ["text.jpg"]
    assert last["summary"]["frames"] == 3 and last["summary"]["skipped"] == 1


def test_only_bad_pictures(bundle, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not a picture")
    words = ["run", str(bundle), str(tmp_path / "text.jpg"), "--report", str(tmp_path / "r.html")]
    assert main(words) == 1
    assert "not a picture" not in capsys.readouterr().out
    assert "text.jpg" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_exif_rotation_is_honoured(bundle, photos, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the EXIF tag")
    with image.open(photos / "ramp.png") as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(tmp_path / "turned.jpg", exif=exif)
        width, height = picture.size
    out = tmp_path / "out"
    assert main(["run", str(bundle), str(tmp_path / "turned.jpg"), "--save", str(out), "--size", "32"]) == 0
    saved = cv2.imread(str(out / "turned.jpg"))
    # 48 wide and 128 high after the turn, enlarged alike, with a strip below.
    assert (width, height) == (128, 48)
    assert saved.shape[0] > 2 * saved.shape[1]


def test_annotated_pictures_are_written_under_distinct_names(bundle, photos, tmp_path, capsys):
    (photos / "flat.png").rename(photos / "noise.png")
    assert main(["run", str(bundle), str(photos), "--save", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "noise-2.jpg",
        "noise.jpg",
        "ramp.jpg",
    ]


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (12, 16), (480, 640), (200, 2000), (2000, 90), (5000, 1), (1, 5000), (1500, 2000)],
    ids=str,
)
def test_annotations_fit_any_picture(shape):
    frame = np.full((*shape, 3), 200, np.uint8)
    before = frame.copy()
    answers = [("a label that is much longer than any picture could ever be " * 3, 1.0), ("ü", 0.0)]
    drawn = annotate(frame, answers, footer="size 112   6.53 bits   12.3 ms")
    height, width = drawn.shape[:2]
    assert width >= MIN_SIDE and drawn.dtype == np.uint8
    assert height * width < 4 * max(frame.shape[0] * frame.shape[1], 600_000)
    assert np.array_equal(frame, before)
    strip_top = height - next(i for i, row in enumerate(drawn[::-1, 0].tolist()) if row == [200, 200, 200])
    assert (drawn[:strip_top, :1] == 200).all(), "the picture itself is not covered"
    # Where text stands there is white; in the margin at the right there is none.
    assert drawn[strip_top:].max() > 220
    assert drawn[strip_top:, -4:].max() < 100


def test_a_score_above_one_or_below_zero_draws_inside():
    drawn = annotate(np.zeros((300, 400, 3), np.uint8), [("x", 17.0), ("y", -3.0)], footer="")
    assert drawn.shape[1] == 400


@pytest.mark.parametrize(
    ("text", "plain"), [("café", "cafe"), ("Ångström", "Angstrom"), ("杯", "?"), ("a\tb\n", "a?b?")]
)
def test_labels_in_the_letters_that_the_font_has(text, plain):
    assert ascii_text(text) == plain


def test_a_video_runs_frame_by_frame(bundle, film, capsys):
    assert main(["run", str(bundle), str(film), "--json"]) == 0
    lines, last = json_lines(capsys)
    assert [line["frame"] for line in lines] == list(range(12))
    assert last["summary"]["frames"] == 12


def test_of_a_video_people_see_one_frame_a_second(bundle, film, tmp_path, capsys):
    assert main(["run", str(bundle), str(film), "--save", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0][-6:] for line in out.splitlines() if "#" in line] == [
        "000000",
        "000005",
        "000010",
    ]
    assert "12 frames" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"film-{index:06d}.jpg" for index in (0, 5, 10)
    ]


def test_a_video_streams_with_hysteresis_and_images_do_not(bundle, photos, film, monkeypatch, capsys):
    from boardfit.runtime import session

    seen = []
    original = session.load
    monkeypatch.setattr(
        session, "load", lambda *words, **named: seen.append(named["stream"]) or original(*words, **named)
    )
    assert main(["run", str(bundle), str(film), str(photos)]) == 0
    assert seen == [False, True]


def test_a_broken_video_is_skipped(bundle, photos, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    assert main(["run", str(bundle), str(photos), str(tmp_path / "bad.mp4")]) == 1
    out, err = capsys.readouterr()
    assert "3 frames, 1 skipped" in out and "bad.mp4 has no frame" in err


def test_a_video_whose_name_is_not_utf_8_is_skipped(bundle, film, photos, capsys):
    path = film.rename(film.with_name(os.fsdecode(b"fil\xff.avi")))
    assert main(["run", str(bundle), str(photos), str(path)]) == 1
    out, err = capsys.readouterr()
    assert "3 frames, 1 skipped" in out and "is not in UTF-8" in err


def test_inputs_are_found_once_each(photos, film):
    words = [str(photos), str(photos / "*.png"), str(film.parent / "*.avi"), str(film)]
    inputs = find_inputs(words)
    assert sorted(ref.path.name for ref in inputs.images) == ["flat.png", "noise.png", "ramp.png"]
    assert inputs.videos == (film,)


@pytest.mark.parametrize("word", ["no.jpg", "no/*.png", "no.mp4", "empty"])
def test_an_input_that_leads_nowhere_is_named(tmp_path, word):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        find_inputs([str(tmp_path / word)])


def test_progress_comes_now_and_then(monkeypatch, capsys):
    now_s = [0.0]
    monkeypatch.setattr(sinks.time, "monotonic", lambda: now_s[0])
    progress = Progress(100)
    for done in range(1, 101):
        now_s[0] += 1.0
        progress.step("x.jpg", done)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{done} of 100 done" for done in range(10, 101, 10)]


def test_no_progress_for_few(monkeypatch, capsys):
    now_s = iter(range(0, 10_000, 100))
    monkeypatch.setattr(sinks.time, "monotonic", lambda: float(next(now_s)))
    progress = Progress(0)
    progress.step("x.jpg", 1)
    progress.clear()
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_line_is_replaced_and_removed(monkeypatch, capsys):
    now_s = iter(range(100))
    monkeypatch.setattr(sinks.time, "monotonic", lambda: float(next(now_s)))
    monkeypatch.setattr(sinks.sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(None)
    progress.step("x.jpg", 7)
    progress.clear()
    progress.clear()
    assert capsys.readouterr().err == "\r\x1b[K7 frames done, x.jpg\r\x1b[K"


def test_the_page_of_a_long_film_keeps_pictures_from_all_of_it(bundle, photos):
    from boardfit.cli.frames import FrameRef
    from boardfit.runtime.images import read_image
    from boardfit.runtime.session import load

    frame = read_image(photos / "flat.png")
    with load(bundle) as model:
        result = model(frame)
    pictures = Pictures(None, at_least=3)
    for index in range(1000):
        pictures.add(FrameRef(photos, index), frame, result)
    kept = [ref.index for ref, _, _ in pictures.cards]
    assert Pictures.MOST // 2 <= len(kept) <= Pictures.MOST
    assert len({b - a for a, b in pairwise(kept)}) == 1
    assert kept[0] == 0 and kept[-1] > 950


def test_the_page_needs_nothing_but_itself(bundle, photos, tmp_path, capsys):
    (photos / "bad <b>.jpg").write_text("x")
    page = tmp_path / "r.html"
    assert main(["run", str(bundle), str(photos), "--report", str(page)]) == 1
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text) and "http" not in text and "@import" not in text
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == 3
    for picture in pictures:
        data = np.frombuffer(base64.b64decode(picture, validate=True), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape[1] <= 360
    assert "bad <b>" not in text and "bad &lt;b&gt;" in text
    for part in (
        "tiny net",
        "3 frames, 1 skipped",
        "1 at 48 (33 %)",
        "inference",
        "0.99987",
        "Testbench 3000",
    ):
        assert part in text
