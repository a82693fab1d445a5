from __future__ import annotations

import pytest

from boardfit.benchmarks.journal import Journal
from boardfit.errors import ReportError


def test_what_was_finished_is_there_again(tmp_path):
    path = tmp_path / "j.json"
    Journal(path, {"net": (1, 2)}).put("a", ["x"], {"n": 1})
    again = Journal(path, {"net": (1, 2)})
    assert again.resumed == 1
    assert again.get("a", ["x"]) == {"n": 1}
    assert again.get("a", ["x", "y"]) is None and again.get("b", ["x"]) is None
    assert Journal(path, {"net": 2}).get("a", ["x"]) is None
    again.remove()
    again.remove()
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": 20261125, "subject": {}}'], ids=repr)
def test_a_damaged_journal_starts_anew(text, tmp_path):
    (tmp_path / "j.json").write_text(text)
    journal = Journal(tmp_path / "j.json", {})
    assert journal.resumed == 0 and journal.get("a", []) is None
    journal.put("a", [], 1)
    assert Journal(tmp_path / "j.json", {}).get("a", []) == 1


def test_a_place_that_cannot_be_written_shows_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReportError, match="cannot write"):
        Journal(tmp_path / "file" / "j.json", {}).check()


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, {})
    journal.check()
    journal.put("a", [], 1)
    assert journal.get("a", []) == 1
    journal.remove()
    assert list(tmp_path.iterdir()) == []
