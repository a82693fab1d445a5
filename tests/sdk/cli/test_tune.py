from __future__ import annotations

import argparse
import json
import logging

import pytest

import boardfit
from boardfit.benchmarks import tune as module
from boardfit.benchmarks.tuning import read_tuning
from boardfit.cli import main
from boardfit.cli.lists import cores
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.times import load_times

QUICK = ["--runs", "6", "--threads", "1"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "boardfit" / "tuning"


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_it_finds_is_what_load_uses(three_engines, cache, capfd, caplog):
    assert main(["tune", str(three_engines), *QUICK]) == 0
    out, err = capfd.readouterr()
    (path,) = files(cache)
    tuning = read_tuning(path)
    chosen = tuning.choose((16, 31))
    assert f"for the bundle's policy, at 16, 31: {chosen.text}" in out
    assert f"wrote {path}: boardfit.load uses it" in out
    assert "left out: onnxruntime int8 at 31" in out and "about 0 s to go" in err
    caplog.set_level(logging.INFO, "boardfit")
    with boardfit.load(three_engines) as model:
        assert (model.engine, model.precision, model.threads) == (chosen.engine, chosen.precision, 1)
    assert "tuned" in caplog.text


def test_run_goes_by_it_unless_told_otherwise(three_engines, tmp_path, capfd):
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "x.png"), np.full((40, 40, 3), 90, np.uint8))
    assert main(["tune", str(three_engines), *QUICK, "--engine", "ncnn"]) == 0
    assert main(["run", str(three_engines), str(tmp_path / "x.png")]) == 0
    assert "ncnn, fp32, 1 thread" in capfd.readouterr().out
    assert main(["run", str(three_engines), str(tmp_path / "x.png"), "--tuning", "none"]) == 0
    assert "litert, fp32" in capfd.readouterr().out
    assert main(["run", str(three_engines), str(tmp_path / "x.png"), "--tuning", str(tmp_path / "no")]) == 0
    assert "litert, fp32" in capfd.readouterr().out


def test_out_leaves_the_cache_alone_and_times_serve_fit(three_engines, tmp_path, cache, capfd):
    times, out = tmp_path / "times.json", tmp_path / "t.json"
    command = ["tune", str(three_engines), *QUICK, "--out", str(out), "--save-times", str(times)]
    assert main(command) == 0
    assert not cache.exists()
    assert read_tuning(out).sizes == (16, 24, 31)
    assert json.loads(times.read_text())["sizes"] == [16, 24, 31]
    assert min(load_times(times).times.look_s) > 0.0
    assert not list(tmp_path.glob("*.part"))


def test_fit_times_what_load_would_run(three_engines, tmp_path, capfd):
    assert main(["tune", str(three_engines), *QUICK, "--engine", "ncnn"]) == 0
    command = ["fit", str(three_engines), "--save-times", str(tmp_path / "times.json")]
    assert main(command) == 0
    assert "as tuned: ncnn fp32, 1 thread" in capfd.readouterr().err
    assert main([*command, "--tuning", "none"]) == 0
    assert main([*command, "--engine", "litert"]) == 0
    assert "as tuned" not in capfd.readouterr().err


def test_what_stayed_disturbed_is_told_with_what_to_do(three_engines, tmp_path, capfd, monkeypatch):
    from boardfit.boards.probes.load import BusyShare

    monkeypatch.setattr(BusyShare, "read", lambda self: 0.25)
    out = tmp_path / "t.json"
    assert (
        main(["tune", str(three_engines), *QUICK, "--engine", "ncnn", "--size", "16", "--out", str(out)]) == 0
    )
    told = "16 pixels: other processes took 25 % of all cores' time while it was timed"
    assert f"disturbed: {told}: tune again on a quieter machine" in capfd.readouterr().out
    assert read_tuning(out).disturbed == (told,)


def test_one_size_alone_has_no_times_to_fit_on(three_engines, tmp_path, capfd):
    command = ["tune", str(three_engines), *QUICK, "--size", "16", "--out", str(tmp_path / "t.json")]
    assert main([*command, "--save-times", str(tmp_path / "times.json")]) == 1
    assert "leave out --size" in capfd.readouterr().err
    assert read_tuning(tmp_path / "t.json").sizes == (16,)


def test_after_an_interruption_the_same_command_goes_on(three_engines, cache, capfd, monkeypatch):
    told = module._Clerk.tell

    def interrupt(self, size, step, rounds, *, fresh):
        if size == 31:
            raise KeyboardInterrupt
        told(self, size, step, rounds, fresh=fresh)

    monkeypatch.setattr(module._Clerk, "tell", interrupt)
    assert main(["tune", str(three_engines), *QUICK]) == 130
    assert "goes on from there" in capfd.readouterr().err
    (part,) = files(cache)
    assert part.suffix == ".part"
    monkeypatch.setattr(module._Clerk, "tell", told)
    assert main(["tune", str(three_engines), *QUICK]) == 0
    assert "going on after 3 steps" in capfd.readouterr().err
    assert [path.suffix for path in files(cache)] == [".json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "tensorrt"], "no engine 'tensorrt'"),
        (["--precision", "int16x8"], "not int16x8"),
        (["--size", "99"], "choose among these"),
        (["--affinity", "4000"], "usable cores"),
        (["--runs", "1"], "at least 6"),
        (["--out", "/proc/no/t.json"], "cannot write"),
        (["--out", "/tmp"], "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_told_in_one_line_before_any_work(three_engines, words, message, capfd):
    assert main(["tune", str(three_engines), *words]) == 1
    err = capfd.readouterr().err
    assert message in err and "setups at" not in err
    assert err.strip().splitlines()[-1].startswith("boardfit: error: ")


@pytest.mark.parametrize(
    "words",
    [["--threads", "0"], ["--threads", "a"], ["--size", "1,,2"], ["--affinity", "3-1"], ["--affinity", ""]],
    ids=" ".join,
)
def test_what_is_no_list_is_wrong_usage(three_engines, words):
    with pytest.raises(SystemExit) as error:
        main(["tune", str(three_engines), *words])
    assert error.value.code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", (0,)), ("0-3,6", (0, 1, 2, 3, 6)), ("2, 1", (1, 2)), ("1,1-2", (1, 2)), ("all", ())],
)
def test_a_list_of_cores_reads_as_taskset_does(text, expected):
    assert cores(text) == expected


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "a", "0x1", "1-99999999"])
def test_what_is_no_list_of_cores_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        cores(text)


def test_energy_where_the_board_tells_its_power(three_engines, capfd, monkeypatch):
    from boardfit.benchmarks import energy
    from boardfit.boards.probes import Probes
    from boardfit.boards.records import Snapshot

    assert main(["tune", str(three_engines), *QUICK, "--for", "energy"]) == 1
    assert "does not tell its power" in capfd.readouterr().err
    monkeypatch.setattr(Probes, "read", lambda self, time_s: Snapshot(time_s, power_w={"VDD_IN": 4.0}))
    monkeypatch.setattr(energy, "METER_S", 0.01)
    assert main(["tune", str(three_engines), *QUICK, "--for", "energy", "--engine", "ncnn"]) == 0
    assert "mJ" in capfd.readouterr().out


@pytest.mark.usefixtures("kitchen")
def test_a_board_elsewhere_is_tuned_and_what_it_found_comes_here(tmp_path, cache, monkeypatch, capfd):
    write_fake_bundle(tmp_path / "fake.boardfit")
    monkeypatch.chdir(tmp_path)
    words = ["tune", "fake.boardfit", "--board", "ssh://pi@kitchen", "--engine", "fake", "--runs", "6"]
    assert main(words) == 0
    assert read_tuning(tmp_path / "tuning.json").sizes == (32, 48, 64)
    assert main([*words, "--out", "other.json", "--size", "32"]) == 0
    assert read_tuning(tmp_path / "other.json").sizes == (32,)
    assert main([*words, "-oshort.json", "--size", "32"]) == 0
    assert read_tuning(tmp_path / "short.json").sizes == (32,)
    assert main(["tune", "fake.boardfit", "--b", *words[3:], "--out=third.json", "--size", "32"]) == 0
    assert not cache.exists() and not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("kitchen")
@pytest.mark.parametrize("command", ["fit", "bench"])
def test_what_a_board_elsewhere_was_tuned_to_serves_there_again(tmp_path, monkeypatch, capfd, command):
    write_fake_bundle(tmp_path / "fake.boardfit")
    monkeypatch.chdir(tmp_path)
    there = ["fake.boardfit", "--board", "ssh://pi@kitchen"]
    assert main(["tune", *there, "--engine", "fake", "--threads", "1", "--runs", "6", "-o", "t.json"]) == 0
    what = {"fit": ["--save-times", "x.json"], "bench": ["--runs", "1", "--duration", "0.1"]}
    capfd.readouterr()
    main([command, *there, *what[command], "--tuning", "t.json"])
    assert "as tuned: fake fp32, 1 thread" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--board", "raspberry-pi-5"], "kind of board"),
        (["--board", "no-such-board"], "no-such-board"),
        (["--board", "ssh://pi@kitchen", "--save-times", "t.json"], "--save-times"),
        (["--board", "ssh://pi@kitchen", "--out", "/no/such/t.json"], "--out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_asked_of_a_board_is_told(three_engines, words, message, capfd):
    assert main(["tune", str(three_engines), *words]) == 1
    assert message in capfd.readouterr().err


@pytest.mark.usefixtures("kitchen")
def test_a_policy_is_fitted_on_the_times_of_a_board_elsewhere(tmp_path, monkeypatch, capfd):
    write_fake_bundle(tmp_path / "fake.boardfit")
    monkeypatch.chdir(tmp_path)
    command = ["fit", "fake.boardfit", "--board", "ssh://pi@kitchen", "--engine", "fake"]
    assert main([*command, "--save-times", "times.json"]) == 0
    assert load_times(tmp_path / "times.json").sizes == (32, 48, 64)
    # Timed there; what lacks are the answers, of which this bundle has none.
    assert main(command) == 1
    assert "no recorded answers" in capfd.readouterr().err
    assert main([*command, "--times", "times.json"]) == 1
    assert "leave out one" in capfd.readouterr().err
