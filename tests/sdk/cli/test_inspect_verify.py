from __future__ import annotations

import json

import numpy as np
import pytest

from boardfit.bundle import open_bundle, write_bundle
from boardfit.cli import main
from boardfit.cli.measured import read_measured
from boardfit.cli.text import counted, megabytes, policy_text, table
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files
from boardfit.specs import Artifact, FitSummary, ImageSpec, PolicySpec, TensorSpec, classic_policy

FIT = FitSummary(
    images=100,
    labelled=False,
    drop_points=0.4,
    time_ratio=0.6,
    gain_points=2.0,
    gain_low=0.5,
    gain_high=3.5,
    machine="a test",
)


def test_people_see_what_matters(bundle, capsys):
    assert main(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    with open_bundle(bundle) as opened:
        assert opened.content_id in text
    for part in (
        "tiny net",
        "classify, 10 labels",
        "area resize",
        "below 4 bits 32, below 7 bits 48, else 64 (not fitted)",
        "keras 3.15.1",
        "Testbench 3000",
    ):
        assert part in text
    rows = [line.split() for line in text.splitlines() if "0.99987" in line]
    assert [row[-9:] for row in rows] == [
        [str(size), "40", "1.0e-04", "0.99987", "1", f"{size / 10:.2f}", "fake,", "1", "thread"]
        for size in (32, 48, 64)
    ]


def test_programs_get_json(bundle, capsys):
    assert main(["inspect", str(bundle), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    with open_bundle(bundle) as opened:
        assert data["content_id"] == opened.content_id
        assert data["manifest"] == opened.manifest.to_dict()
        assert data["measurements"] == opened.measurements


@pytest.mark.parametrize(
    "measurements",
    [
        None,
        {},
        {"machine": 7, "parity": "x", "times": {}},
        {
            "parity": [None, 3, {}, {"artifact": "fake-fp32", "size": 32}],
            "times": [{"artifact": 1, "size": 2}],
        },
        {"parity": [{"artifact": "fake-fp32", "size": 32, "max_abs": None, "cosine": "x", "images": True}]},
        {"times": [{"artifact": "fake-fp32", "size": 32, "p50_s": None}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["people", "json"])
def test_absent_or_odd_measurements_do_no_harm(tmp_path, capsys, measurements, form):
    write_bundle(
        tmp_path / "a.boardfit",
        name="a",
        labels=(),
        image=ImageSpec(),
        policy=classic_policy("fixed", (32,)),
        artifacts=[fake_artifact((32,))],
        files=fake_files(),
        measurements=measurements,
    )
    assert main(["inspect", str(tmp_path / "a.boardfit"), *(["--json"] if form == "json" else [])]) == 0
    assert "fake" in capsys.readouterr().out


def test_a_share_of_no_range_is_unknown():
    row = {"artifact": "fake-fp32", "size": 32, "max_abs": 1.0, "output_range": 0.0, "flips": 0, "images": 3}
    measured = read_measured({"parity": [row]})
    assert measured.parity_cells(fake_artifact((32, 48)), 32) == ["3", "-", "-", "0"]
    assert measured.parity_cells(fake_artifact((32, 48)), 48) == ["-"] * 4


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (PolicySpec("fixed", (112, 224)), "fixed: always 224"),
        (PolicySpec("entropy", (112,), fit=FIT), "entropy: always 112"),
        (PolicySpec("entropy", (1, 2), (5.5,), fit=FIT), "entropy: below 5.5 bits 1, else 2"),
        (
            PolicySpec("two-look", (1, 2, 3), (9.0, 9.0), second_look_bits=0.5, third_look_bits=0.9, fit=FIT),
            "two-look: first 1; looks again above 0.5, then 0.9 bits of doubt",
        ),
        (
            PolicySpec("two-look", (1, 2), (5.5,), second_look_bits=2.0),
            "two-look: below 5.5 bits 1, else 2; looks again above 2 bits of doubt (not fitted)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_policies_in_words(policy, text):
    assert policy_text(policy) == text


def test_small_words():
    assert table(["a", "bb"], [["x", "1"], ["yyy", "22"]]) == "a    bb\nx     1\nyyy  22"
    assert [megabytes(n) for n in (12, 49_000, 18_600_000)] == ["0.0 kB", "49.0 kB", "18.6 MB"]
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


def test_a_whole_bundle_is_verified(bundle, capsys):
    assert main(["verify", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "all 5 files as listed" in text and "answers: 3 right" in text


def test_a_damaged_bundle_is_refused(bundle, capsys):
    data = bytearray(bundle.read_bytes())
    data[-100] ^= 1
    bundle.write_bytes(data)
    assert main(["verify", str(bundle)]) == 1
    assert "boardfit: error:" in capsys.readouterr().err


def test_a_wrong_answer_is_told_and_1(bundle, capsys, monkeypatch):
    original = FakeEngine.run
    monkeypatch.setattr(FakeEngine, "run", lambda self, feeds: [a * 1.01 for a in original(self, feeds)])
    assert main(["verify", str(bundle)]) == 1
    text = capsys.readouterr().out
    assert text.count("WRONG\n") == 3 and "FAILED fake-fp32 at 48 on fake" in text


def test_an_engine_that_fails_is_told_and_1(bundle, capsys, monkeypatch):
    from boardfit.errors import EngineError

    def fails(self: FakeEngine, feeds: object) -> None:
        raise EngineError("out of luck")

    monkeypatch.setattr(FakeEngine, "run", fails)
    assert main(["verify", str(bundle)]) == 1
    assert "FAILED fake: out of luck" in capsys.readouterr().out


def test_bytes_only_runs_no_engine(bundle, capsys, monkeypatch):
    monkeypatch.setattr(FakeEngine, "run", None)
    assert main(["verify", str(bundle), "--bytes-only"]) == 0
    assert "answers" not in capsys.readouterr().out


def test_engines_that_are_not_installed_are_named(tmp_path, capsys, monkeypatch):
    from boardfit.runtime import engines

    spec = TensorSpec("image", (None, None, None, 3), layout="NHWC")
    write_bundle(
        tmp_path / "a.boardfit",
        name="a",
        labels=(),
        image=ImageSpec(),
        policy=classic_policy("fixed", (32,)),
        artifacts=[Artifact("onnx", "fp32", (32,), ("m.onnx",), (spec,), (TensorSpec("y", (None, 3)),))],
        files={"m.onnx": b"x"},
        golden_frame=np.zeros((4, 4, 3), np.uint8),
        golden_outputs={32: [np.zeros((1, 3), np.float32)]},
    )
    monkeypatch.setattr(engines, "is_installed", lambda _: False)
    assert main(["verify", str(tmp_path / "a.boardfit")]) == 0
    text = capsys.readouterr().out
    assert "not tried, since not installed: onnxruntime" in text
    assert "answers: not tested" in text and "right" not in text.partition("answers")[2]
