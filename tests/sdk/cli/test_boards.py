from __future__ import annotations

import json

import pytest

from boardfit.boards.profile import profiles
from boardfit.cli import main


def test_all_boards_are_listed(capsys):
    assert main(["boards"]) == 0
    out = capsys.readouterr().out
    assert all(profile.name in out for profile in profiles())
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_one_board_is_shown_with_its_sources(profile, capsys):
    assert main(["boards", profile.name]) == 0
    out = capsys.readouterr().out
    assert profile.title in out
    assert all(choice.name in out for choice in profile.engines)
    # What the page refers to in brackets stands below it.
    for key in profile.sources:
        assert f"{key}: " in out


def test_a_python_that_is_too_old_is_said_to_be(capsys):
    main(["boards", "jetson-nano"])
    assert "Python 3.6 (boardfit needs 3.10" in capsys.readouterr().out
    main(["boards", "raspberry-pi-5"])
    assert "boardfit needs" not in capsys.readouterr().out


def test_where_we_are_fits_one_screen(capsys):
    assert main(["boards", "detect"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("board  ")
    assert "processor" in out and "emulated" in out
    assert len(out.splitlines()) <= 24


def test_boards_as_json(capsys):
    main(["boards", "--json"])
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == [each.name for each in profiles()]
    main(["boards", "jetson-nano", "--json"])
    assert json.loads(capsys.readouterr().out)["clusters"][0]["cpu"] == "Cortex-A57"
    main(["boards", "detect", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["board"] in {each.name for each in profiles()}
    assert found["now"]["memory"]["rss_bytes"] > 0


def test_an_unknown_board(capsys):
    assert main(["boards", "rasberry-pi-5"]) == 1
    assert "did you mean raspberry-pi-5" in capsys.readouterr().err
