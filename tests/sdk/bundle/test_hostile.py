"""Every bundle of the hostile table is refused: by the reader, or by verify where a loader reads nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from boardfit.bundle import open_bundle, verify_bundle
from boardfit.errors import BundleError

SPEC = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(SPEC)
sys.modules["hostile"] = hostile
SPEC.loader.exec_module(hostile)

CASES = hostile.cases()


def load_parts(path: Path) -> None:
    """Read what a session on the first artifact and its self-test read."""
    with open_bundle(path) as bundle:
        bundle.artifact_files(bundle.manifest.artifacts[0])
        bundle.golden_frame()


def test_the_bundle_that_is_spoilt_is_good(tmp_path):
    for form, name in (("file", "a.boardfit"), ("folder", "a")):
        hostile.write_case({"form": form, "do": []}, tmp_path / name)
        load_parts(tmp_path / name)
        verify_bundle(tmp_path / name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_it_is_refused_and_the_fault_is_named(case, tmp_path):
    path = tmp_path / ("tree" if case["form"] == "folder" else "a.boardfit")
    hostile.write_case(case, path)
    with pytest.raises(BundleError, match=case["says"]) as raised:
        {"load": load_parts, "verify": verify_bundle}[case["by"]](path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 2000
    with pytest.raises(BundleError):
        verify_bundle(path)


def test_the_table_is_written_for_other_readers(tmp_path, capsys):
    assert hostile.main([str(tmp_path / "out")]) == 0
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert len({row["name"] for row in index}) == len(index) == len(CASES)
    assert all(re.fullmatch("load|verify", row["by"]) for row in index)
