from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boardfit.bundle import open_bundle
from boardfit.cli import main
from boardfit.cli.remote import run_remotely
from boardfit.errors import BundleError, RemoteError


def left_in(folder: Path) -> list[Path]:
    return list((folder / "board" / "tmp").glob("boardfit-work-*"))


def test_a_subcommand_runs_there_and_its_result_comes_back(kitchen, bundle, photos, tmp_path, capfd):
    out = tmp_path / "pictures"
    words = ["run", str(bundle), str(photos), "--engine", "fake", "--save", str(out)]
    status = run_remotely("ssh://pi@kitchen", words, bundle=bundle, inputs=[photos], out=out)
    said = capfd.readouterr()
    assert status == 0
    assert "noise.png" in said.out
    assert "sending boardfit.zip" in said.err
    assert len(list(out.rglob("*.*g"))) == 3
    assert left_in(kitchen) == []


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
    assert left_in(kitchen) == []


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("litert", [("ai_edge_litert", "ai-edge-litert>=2.1")]),
        ("onnxruntime:cuda", [("onnxruntime", "onnxruntime>=1.17")]),
        ("fake", []),
    ],
)
def test_an_engine_that_is_named_is_the_one_that_is_sent(engine, expected):
    from boardfit.cli.remote import _named_engine

    assert [(need.module, need.requirement) for need in _named_engine(engine)] == expected


def test_without_a_name_those_that_run_the_bundle(lite0_bundle):
    from boardfit.cli.remote import _base_needs, _engine_needs

    with open_bundle(lite0_bundle) as opened:
        assert {artifact.format for artifact in opened.manifest.artifacts} == {"tflite", "onnx", "ncnn"}
    found = [need.module for need in _engine_needs(lite0_bundle)]
    assert found == ["ai_edge_litert", "onnxruntime", "ncnn"]
    assert [need.debian for need in _base_needs()] == ["python3-numpy", "python3-opencv"]


def test_paths_are_replaced_however_they_are_written(kitchen, bundle, photos, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "pictures"
    words = ["run", "./made/tiny.boardfit", "photos/", "--engine=fake", f"--save={out}"]
    paths = {"bundle": Path("./made/tiny.boardfit"), "inputs": [Path("photos/")], "out": out}
    assert run_remotely("ssh://pi@kitchen", words, **paths) == 0
    assert len(list(out.rglob("*.*g"))) == 3


def test_a_pattern_is_told_from_a_folder(kitchen, bundle):
    with pytest.raises(RemoteError, match="sent files and folders, and no patterns"):
        run_remotely("ssh://pi@kitchen", ["run"], bundle=bundle, inputs=[Path("photos/*.jpg")])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_bench_that_ends_early_leaves_nothing_here_and_there(
    kitchen, bundle, tmp_path, eventually_gone, how
):
    words = ["bench", str(bundle), "--engine", "fake", "--quick", "--runs", "50"]
    words += ["--board", "ssh://pi@kitchen", "--out", str(tmp_path / "report")]
    owner = subprocess.Popen([sys.executable, "-m", "boardfit", *words], stderr=subprocess.PIPE, text=True)
    while "run 1 of 50" not in owner.stderr.readline():
        assert owner.poll() is None
    owner.send_signal(how)
    owner.stderr.read()
    assert owner.wait() == (130 if how == signal.SIGINT else -how)
    assert eventually_gone(kitchen)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("command", ["bench", "tune"])
@pytest.mark.parametrize(
    ("board", "expected"),
    [
        ("raspberry-pi-5", "a kind of board, not one of yours"),
        ("raspberry-pie-5", "raspberry-pi-5"),
        ("ssh://pi:secret@kitchen", "has a password in it"),
        ("telnet://kitchen", "expected local, ssh://"),
    ],
)
def test_what_is_no_address_is_told_first(bundle, command, board, expected, capsys):
    assert main([command, str(bundle), "--board", board, "--out", "x"]) == 1
    said = capsys.readouterr().err
    assert expected in said
    assert "secret" not in said


@pytest.fixture
def eventually_gone():
    def wait(folder: Path) -> bool:
        deadline = time.monotonic() + 20
        while left_in(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        return not left_in(folder)

    return wait
