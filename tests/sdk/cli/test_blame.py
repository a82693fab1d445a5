"""boardfit blame: what the build measured of each layer, as a table and as a page."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.bundle import write_bundle
from boardfit.cli import main
from boardfit.runtime.engines.fake import FakeEngine, fake_artifact, fake_files
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec, PolicySpec

VERDICT = {
    "images": 200,
    "flips": 2.5,
    "flips_low": 1.1,
    "flips_high": 5.7,
    "drop": None,
    "drop_low": None,
    "drop_high": None,
    "divergence": 0.012,
    "limit": 5.0,
    "passed": True,
}


def layer(number, **changes):
    row = {
        "layer": f"n{number}_Conv",
        "kind": "conv",
        "macs": 100,
        "integer": True,
        "sqnr_db": 40.0 - number,
        "added": 0.001 * number,
    }
    return {**row, **changes}


LAYERS = [layer(n) for n in range(13)]


@pytest.fixture
def quantized(tmp_path):
    """Return a function that writes a bundle with some rows about quantized artifacts."""

    def make(*rows):
        artifact, files = fake_artifact((32,)), fake_files()
        frame = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
        engine = FakeEngine(artifact, files, threads=1)
        path = tmp_path / "made.boardfit"
        write_bundle(
            path,
            name="a <net>",
            labels=(),
            image=ImageSpec(),
            policy=PolicySpec("fixed", (32,)),
            artifacts=(artifact,),
            files=files,
            golden_frame=frame,
            golden_outputs={32: engine.run({"image": Preprocessor(ImageSpec(), "NHWC").fit(frame, 32)[0]})},
            measurements={"schema": 1, "quantized": {"schema": 1, "artifacts": list(rows)}},
        )
        return path

    return make


def row(size=32, artifact="", layers=LAYERS, **changes):
    return {
        "format": "onnx",
        "size": size,
        "asked": "int8",
        "artifact": artifact or None,
        "verdict": VERDICT,
        "blame": layers,
        **changes,
    }


def printed(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines() if line]


def test_the_ten_worst_layers_come_first(quantized, capsys):
    assert main(["blame", str(quantized(row(artifact="onnx-int8-32")))]) == 0
    lines = printed(capsys)
    assert " ".join(lines[0]) == "onnx-int8-32: flips 2.5 % (1.1 to 5.7)"
    assert [line[0] for line in lines[2:]] == [f"n{n}_Conv" for n in range(12, 2, -1)]
    assert lines[2] == ["n12_Conv", "conv", "7.7", "%", "int8", "28.0", "+0.012"]


def test_all_layers_and_what_runs_in_float(quantized, capsys):
    layers = [*LAYERS, layer(13, integer=False, sqnr_db=60.0, added=-0.5)]
    assert main(["blame", str(quantized(row(artifact="onnx-mixed-32", layers=layers))), "--all"]) == 0
    lines = printed(capsys)
    assert len(lines) == 2 + 14
    assert lines[-1][-3:] == ["float", "60.0", "-0.5"]


def test_one_artifact_among_several(quantized, capsys):
    path = quantized(row(artifact="onnx-int8-32"), row(size=64, layers=[layer(3)]))
    assert main(["blame", str(path), "--artifact", "onnx-int8-64"]) == 0
    lines = printed(capsys)
    assert " ".join(lines[0]).startswith("onnx-int8-64, outside the gate: ")
    assert len(lines) == 3


def test_the_page_has_a_dot_for_every_layer(quantized, tmp_path, capsys):
    path = quantized(row(artifact="onnx-int8-32", layers=[*LAYERS, layer(13, integer=False)]))
    page = tmp_path / "blame.html"
    assert main(["blame", str(path), "--report", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "a &lt;net&gt;" in text and "a <net>" not in text
    # Drawn twice, for wide and for narrow screens.
    assert text.count('<g class="noise"><circle') == 2 * 13
    assert text.count('<g class="float"><circle') == 2
    assert "n12_Conv: 28.0 dB" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ((), (), "has no quantized artifact"),
        ((row(artifact="onnx-int8-32"),), ("--artifact", "x"), "has no 'x': expected one of onnx-int8-32"),
        ((row(layers=[]),), ("--report", "page.html"), "no layer was measured"),
        ((row(artifact="onnx-int8-32"),), ("--report", "absent/page.html"), "cannot write"),
    ],
    ids=["none", "unknown", "no layers", "no folder"],
)
def test_what_cannot_be_shown_is_said(rows, flags, message, quantized, tmp_path, monkeypatch, capsys):
    path = quantized(*rows)
    monkeypatch.chdir(tmp_path)
    assert main(["blame", str(path), *flags]) != 0
    assert message in capsys.readouterr().err


def test_rows_that_are_not_understood_are_left_out(quantized, capsys):
    path = quantized(row(artifact="onnx-int8-32", layers=[layer(1), {"layer": "half"}, 7], verdict="odd"))
    assert main(["blame", str(path)]) == 0
    lines = printed(capsys)
    assert lines[0] == ["onnx-int8-32:", "-"]
    assert len(lines) == 3
