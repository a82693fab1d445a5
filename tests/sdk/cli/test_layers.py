from __future__ import annotations

import pytest

from boardfit.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_the_slowest_layers_the_kinds_and_the_sum(three_engines, tmp_path, capfd, engine):
    page = tmp_path / "layers.html"
    command = ["layers", str(three_engines), "--engine", engine, "--threads", "1", "--runs", "5"]
    assert main([*command, "--report", str(page), "--all"]) == 0
    out = capfd.readouterr().out
    assert out.startswith(f"tiny, {engine} fp32, 1 thread, 31 pixels, on ")
    assert "Conv" in out and "of a whole inference" in out and f"wrote {page}" in out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_it_goes_by_the_tuning(three_engines, capfd):
    assert (
        main(["tune", str(three_engines), "--engine", "onnxruntime", "--precision", "fp16", "--runs", "6"])
        == 0
    )
    assert main(["layers", str(three_engines), "--runs", "2"]) == 0
    assert "tiny, onnxruntime fp16" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "ncnn"], "does not tell"),
        (["--threads", "0"], "at least 1"),
        (["--runs", "0"], "at least 1"),
        (["--size", "9"], "choose among these"),
        (["--report", "/no/such/folder/x.html"], "does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_told_in_one_line(three_engines, words, message, capfd):
    assert main(["layers", str(three_engines), *words]) == 1
    err = capfd.readouterr().err
    assert message in err and err.strip().splitlines()[-1].startswith("boardfit: error: ")
