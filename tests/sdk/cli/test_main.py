from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import boardfit
from boardfit import cli
from boardfit.cli import SUBCOMMANDS, inspect, main


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"boardfit {boardfit.__version__}\n"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_help_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert f"\n  boardfit {name} " in capsys.readouterr().out.partition("examples:")[2]


def test_the_first_help_names_all_subcommands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in SUBCOMMANDS)
    assert "examples:" in text


@pytest.mark.parametrize("argv", [[], ["fly"], ["inspect"], ["pack", "x"]], ids=str)
def test_wrong_usage_leaves_with_2(argv, capsys):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: boardfit" in capsys.readouterr().err


def test_an_error_is_one_line_and_1(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "no.boardfit")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("boardfit: error: ") and err.count("\n") == 1


def test_debugging_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("BOARDFIT_DEBUG", "1")
    with pytest.raises(boardfit.errors.BundleError):
        main(["inspect", str(tmp_path / "no.boardfit")])


def test_a_bug_is_not_hidden(monkeypatch, bundle):
    def broken(_: object) -> int:
        raise TypeError("a bug")

    monkeypatch.setattr(inspect, "run", broken)
    with pytest.raises(TypeError, match="a bug"):
        main(["inspect", str(bundle)])


def test_an_interrupt_is_130(monkeypatch, bundle, capsys):
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "run", interrupted)
    assert main(["inspect", str(bundle)]) == 130
    assert capsys.readouterr().err == "boardfit: interrupted\n"


def test_a_reader_that_goes_away_causes_no_traceback(bundle):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", cli.__name__.partition(".")[0], "inspect", str(bundle)],
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.stderr == ""
    assert done.returncode == 141


def test_only_the_command_itself_leaves_beside_a_thread_of_a_camera(monkeypatch, bundle):
    class Full:
        def write(self, text):
            return len(text)

        def flush(self):
            raise OSError(28, "No space left on device")

    left, over = [], threading.Event()
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(sys, "argv", ["boardfit", "inspect", str(bundle)])
    thread = threading.Thread(target=over.wait, name="read cam", daemon=True)
    thread.start()
    try:
        assert main() == 0 and left == []
        monkeypatch.setattr(sys, "stdout", Full())
        assert cli.entry() == 1 and left == [1]
    finally:
        over.set()
        thread.join()
    assert cli.entry() == 1 and left == [1]
