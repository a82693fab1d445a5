from __future__ import annotations

import pytest

from boardfit.bundle import open_bundle
from boardfit.errors import RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines.fake import write_fake_bundle
from boardfit.runtime.times import BoardTimes, load_times, measure_board, measure_times, save_times


def test_board_times_survive_the_way_through_json():
    data = {"schema": 1, "machine": "m", "sizes": [8], "look_s": [0.5], "switch_s": 0.1, "entropy_s": 0.2}
    assert BoardTimes.from_dict(data).to_dict() == {**data, "look_s": (0.5,), "two_look_switch_s": None}
    assert BoardTimes.from_dict({**data, "two_look_switch_s": 0.01}).times.change_s("two-look") == 0.01


@pytest.mark.parametrize(("activation", "expected"), [("softmax", True), ("none", False)])
def test_a_change_of_size_is_timed_as_each_kind_of_policy_pays_it(tmp_path, activation, expected):
    write_fake_bundle(tmp_path / "b", sizes=(16, 24), activation=activation)
    with open_bundle(tmp_path / "b") as bundle:
        times = measure_times(bundle)
    assert (times.two_look_switch_s is not None) == expected
    assert min(times.look_s) > 0.0


def test_they_are_the_same_after_the_disk(tmp_path):
    write_fake_bundle(tmp_path / "b", sizes=(16, 24))
    with open_bundle(tmp_path / "b") as bundle:
        board = measure_board(bundle, setup=Setup("fake", threads=1))
    save_times(tmp_path / "t.json", board)
    assert load_times(tmp_path / "t.json") == board
    with pytest.raises(RecipeError, match="cannot write"):
        save_times(tmp_path / "none" / "t.json", board)
    with pytest.raises(RecipeError, match="cannot read"):
        load_times(tmp_path / "none.json")
