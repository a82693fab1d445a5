from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from boardfit.bundle import open_bundle
from boardfit.cli.remote import run_remotely
from boardfit.errors import BundleError, RemoteError

CARRIER = Path(__file__).resolve().parents[2] / "boards" / "remote" / "carrier.py"


@pytest.fixture
def kitchen(tmp_path, monkeypatch) -> Path:
    """A board behind a stand-in for ssh, with this Python."""
    folder = tmp_path / "carried"
    for inner in ("bin", "board/tmp", "board/bin"):
        (folder / inner).mkdir(parents=True)
    ssh = folder / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {sys.executable} -S {CARRIER} "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("CARRIER", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", sys.executable)
    return folder


def test_a_subcommand_runs_there_and_its_result_comes_back(kitchen, bundle, photos, tmp_path, capfd):
    out = tmp_path / "pictures"
    words = ["run", str(bundle), str(photos), "--engine", "fake", "--save", str(out)]
    status = run_remotely("ssh://pi@kitchen", words, bundle=bundle, inputs=[photos], out=out)
    said = capfd.readouterr()
    assert status == 0
    assert "noise.png" in said.out
    assert "sending boardfit.zip" in said.err
    assert len(list(out.rglob("*.*g"))) == 3
    assert not list(kitchen.rglob("boardfit-work-*"))


def test_its_exit_status_is_ours(kitchen, bundle, tmp_path, capfd):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    words = ["run", str(bundle), str(broken), "--engine", "fake"]
    assert run_remotely("ssh://pi@kitchen", words, bundle=bundle, inputs=[broken]) == 1
    assert "a.png" in capfd.readouterr().err


def test_nothing_that_was_made_is_nothing_fetched(kitchen, bundle, tmp_path):
    out = tmp_path / "nothing"
    assert run_remotely("ssh://pi@kitchen", ["inspect", str(bundle)], bundle=bundle, out=out) == 0
    assert not out.exists()


def test_a_damaged_bundle_is_not_sent(kitchen, bundle):
    bundle.write_bytes(bundle.read_bytes()[:100])
    with pytest.raises(BundleError):
        run_remotely("ssh://pi@kitchen", ["inspect", str(bundle)], bundle=bundle)
    assert not (kitchen / "words").exists()


def test_a_link_that_is_cut_while_it_runs(kitchen, bundle, photos, tmp_path):
    (kitchen / "cut").write_text("1000 100")
    with pytest.raises(RemoteError, match=r"lost during sending boardfit\.zip"):
        run_remotely("ssh://pi@kitchen", ["inspect", str(bundle)], bundle=bundle)
    assert not list(kitchen.rglob("boardfit-work-*"))


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("litert", [("ai_edge_litert", "ai-edge-litert>=2.1")]),
        ("onnxruntime:cuda", [("onnxruntime", "onnxruntime>=1.17")]),
        ("fake", []),
    ],
)
def test_an_engine_that_is_named_is_the_one_that_is_sent(bundle, engine, expected):
    from boardfit.cli.remote import _engine_needs

    assert [(need.module, need.requirement) for need in _engine_needs(bundle, engine)] == expected


def test_without_a_name_those_that_run_the_bundle(lite0_bundle):
    from boardfit.cli.remote import _base_needs, _engine_needs

    with open_bundle(lite0_bundle) as opened:
        assert {artifact.format for artifact in opened.manifest.artifacts} == {"tflite", "onnx", "ncnn"}
    found = [need.module for need in _engine_needs(lite0_bundle, None)]
    assert found == ["ai_edge_litert", "onnxruntime", "ncnn", "tflite_runtime"]
    assert [need.debian for need in _base_needs()] == ["python3-numpy", "python3-opencv"]
