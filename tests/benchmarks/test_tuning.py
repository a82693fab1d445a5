from __future__ import annotations

import json
from dataclasses import replace

import pytest

from boardfit.benchmarks.tuning import (
    TUNING_SCHEMA,
    Key,
    Trial,
    Tuning,
    key_here,
    machine_here,
    models_id,
    own_path,
    read_tuning,
    write_tuning,
)
from boardfit.bundle import open_bundle
from boardfit.errors import ReportError
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.specs import PolicySpec
from boardfit.timing import machine_name

A, B, C = (Setup("fake", precision, 1, ()) for precision in ("fp32", "fp16", "int8"))
KEY = Key("0" * 64, "some processor", {"fake": ""})


def trial(size: int, setup: Setup, p95_s: float, runs: int = 96) -> Trial:
    return Trial(size, setup, runs, p95_s * 0.9, p95_s)


def tuning(*trials: Trial) -> Tuning:
    told = ("litert: not installed",), ("32 pixels: other processes took 9 %",)
    return Tuning(KEY, "net", "1" * 64, "some-board", "p95", 96, trials, *told, "0.1", "2026-11-25")


@pytest.fixture
def manifest(tmp_path):
    write_fake_bundle(tmp_path / "b.boardfit")
    with open_bundle(tmp_path / "b.boardfit") as bundle:
        yield bundle.manifest


def test_it_is_the_same_after_the_disk(tmp_path):
    found = tuning(trial(32, replace(A, affinity=(2, 3)), 0.002), trial(64, B, 0.004))
    write_tuning(tmp_path / "deep" / "er" / "t.json", found)
    assert read_tuning(tmp_path / "deep" / "er" / "t.json") == found
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["t.json"]


def test_the_best_of_a_size_is_one_that_was_timed_to_the_end():
    found = tuning(
        trial(32, A, 0.003), trial(32, B, 0.002), trial(32, C, 0.001, runs=12), trial(32, B, 0.9, 6)
    )
    assert [each.setup for each in found.ranked(32)] == [B, A, C, B]
    assert found.best(32).setup == B
    # Further runs, to compare with another size's best, make none better.
    more = tuning(trial(32, A, 0.003, runs=132), trial(32, B, 0.002))
    assert more.best(32).setup == B


def test_several_sizes_get_the_setup_that_loses_least():
    found = tuning(
        *(trial(32, A, 0.001), trial(32, B, 0.0011), trial(32, C, 0.004)),
        *(trial(64, A, 0.008), trial(64, B, 0.0044), trial(64, C, 0.004)),
    )
    assert found.choose((32,)) == A and found.choose((64,)) == C
    assert found.choose((32, 64)) == B


def test_the_best_of_one_size_with_half_of_the_runs_elsewhere_stands_beside_the_others():
    found = tuning(
        *(trial(32, A, 0.001), trial(64, A, 0.005, runs=48)),
        *(trial(32, B, 0.002), trial(64, B, 0.004)),
        *(trial(32, C, 0.001, runs=12), trial(64, C, 0.001, runs=12)),
    )
    assert found.choose((32, 64)) == A


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (Setup(), A),
        (Setup(precision="fp16"), B),
        (Setup(engine="fake", precision="int8"), C),
        (Setup(threads=1, affinity=()), A),
        (Setup(threads=2), None),
        (Setup(engine="other"), None),
        (Setup(affinity=(0,)), None),
    ],
    ids=lambda value: value.text if value else "none",
)
def test_what_is_asked_for_is_never_changed(asked, chosen):
    found = tuning(trial(32, A, 0.001), trial(32, B, 0.002), trial(32, C, 0.003, runs=12))
    assert found.choose((32,), asked) == chosen


@pytest.mark.parametrize("sizes", [(), (48,), (32, 48)], ids=str)
def test_sizes_that_were_not_tuned_have_no_setup(sizes):
    assert tuning(trial(32, A, 0.001)).choose(sizes) is None


def test_energy_ranks_where_it_was_metered():
    hungry, frugal = Trial(32, A, 96, 0.001, 0.001, 0.9), Trial(32, B, 96, 0.002, 0.002, 0.1)
    found = replace(tuning(hungry, frugal), goal="energy")
    assert found.best(32).setup == B
    assert replace(found, goal="p95").best(32).setup == A


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"models_id": "f" * 64}, "other models"),
        ({"machine": "another processor"}, "another processor"),
        ({"versions": {"fake": "2"}}, "fake was of no version, and now is 2"),
        ({"versions": {}}, "not installed"),
    ],
    ids=["models", "machine", "version", "gone"],
)
def test_a_key_that_differs_says_in_what(change, word):
    assert word in KEY.differs_from(replace(KEY, **change))
    assert KEY.differs_from(replace(KEY, versions={"fake": "", "more": "1"})) == ""


def test_the_models_are_the_same_under_another_policy(manifest):
    refitted = replace(manifest, policy=PolicySpec("fixed", (64,)), labels=tuple("abcdefghij"))
    assert models_id(refitted) == models_id(manifest)
    other = [replace(entry, sha256="0" * 64) for entry in manifest.files]
    assert models_id(replace(manifest, files=tuple(other))) != models_id(manifest)
    image = replace(manifest.image, resize="linear")
    assert models_id(replace(manifest, image=image)) != models_id(manifest)


def test_the_key_of_here_knows_what_is_installed(manifest):
    key = key_here(manifest, ["fake", "no-such-engine"])
    assert key.versions == {"fake": ""} and key.models_id == models_id(manifest)


@pytest.mark.parametrize(("named", "used"), [("/some/cache", True), ("relative", False), ("", False)])
def test_the_folder_is_the_one_of_the_xdg_specification(named, used, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = named if used else f"{tmp_path}/.cache"
    path = own_path("abc", "this board")
    assert str(path.parent) == f"{root}/boardfit/tuning/abc"
    assert path != own_path("abc", "that board")


def test_a_board_is_known_by_its_device_tree_and_its_processor(tmp_path):
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    assert machine_here(tmp_path) == f"Raspberry Pi 4 Model B Rev 1.4, {machine_name()}"
    assert machine_here(tmp_path / "none") == machine_name()


def damaged() -> dict[str, object]:
    whole = tuning(trial(32, A, 0.001)).to_dict()
    row = whole["trials"][0]

    def with_row(**change):
        return {**whole, "trials": [{**row, **change}]}

    def with_setup(**change):
        return with_row(setup={**row["setup"], **change})

    return {
        "no object": [],
        "empty": {},
        "another schema": {**whole, "schema": TUNING_SCHEMA - 1},
        "no trials": {**whole, "trials": []},
        "a field more": {**whole, "more": 1},
        "a field less": {name: value for name, value in whole.items() if name != "goal"},
        "goal": {**whole, "goal": "speed"},
        "runs": {**whole, "runs": "96"},
        "key": {**whole, "key": None},
        "versions": {**whole, "key": {**whole["key"], "versions": {"fake": 1}}},
        "no version": {**whole, "key": {**whole["key"], "versions": {}}},
        "threads": with_setup(threads="2"),
        "no threads": with_setup(threads=0),
        "no engine": with_setup(engine=None),
        "affinity": with_setup(affinity=["0"]),
        "no affinity": with_setup(affinity=None),
        "nan": with_row(p95_s=float("nan")),
        "negative": with_row(p50_s=-1.0),
        "text": with_row(p50_s="1"),
        "size": with_row(size=0),
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_damaged_is_refused(name, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(damaged()[name]), encoding="utf-8")
    with pytest.raises(ReportError, match="tun"):
        read_tuning(tmp_path / "t.json")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"]
)
def test_what_is_no_json_is_refused(text, tmp_path):
    (tmp_path / "t.json").write_bytes(text)
    with pytest.raises(ReportError, match="tune again"):
        read_tuning(tmp_path / "t.json")
    with pytest.raises(ReportError, match="cannot read"):
        read_tuning(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReportError, match="--out"):
        write_tuning(tmp_path / "file" / "t.json", tuning(trial(32, A, 0.001)))
