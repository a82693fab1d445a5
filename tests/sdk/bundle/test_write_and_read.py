from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from boardfit.bundle import open_bundle, verify_bundle, write_bundle, writer
from boardfit.bundle.reader import dump_npy, parse_npy
from boardfit.errors import BundleError

FORMS = ["a.boardfit", "tree"]


def tree_bytes(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_what_was_written_is_read(tmp_path, parts, form):
    manifest = write_bundle(tmp_path / form, **parts)
    verify_bundle(tmp_path / form)
    with open_bundle(tmp_path / form) as bundle:
        assert bundle.manifest == manifest
        assert bundle.measurements == parts["measurements"]
        for path, data in parts["files"].items():
            assert bundle.read(path) == data
        ncnn = manifest.artifacts[1]
        assert bundle.artifact_files(ncnn) == {path: parts["files"][path] for path in ncnn.files}
        assert np.array_equal(bundle.golden_frame(), parts["golden_frame"])
        assert [array.tolist() for array in bundle.golden_outputs(48)] == [
            parts["golden_outputs"][48][0].tolist()
        ]
        assert bundle.golden_outputs(96) == []


def test_both_forms_have_one_content_id(tmp_path, parts):
    ids = set()
    for form in FORMS:
        write_bundle(tmp_path / form, **parts)
        with open_bundle(tmp_path / form) as bundle:
            ids.add(bundle.content_id)
    assert len(ids) == 1


@pytest.mark.parametrize("form", FORMS)
def test_the_same_content_gives_the_same_bytes(tmp_path, parts, form):
    write_bundle(tmp_path / form, **parts)
    first = tree_bytes(tmp_path / form)
    reordered = {
        **parts,
        "files": dict(reversed(parts["files"].items())),
        "golden_outputs": dict(reversed(parts["golden_outputs"].items())),
        "golden_frame": np.asfortranarray(parts["golden_frame"]),
    }
    write_bundle(tmp_path / form, **reordered)
    assert tree_bytes(tmp_path / form) == first


def test_measurements_are_outside_the_content_id(tmp_path, parts):
    ids = set()
    for machine in ("one", "two"):
        write_bundle(tmp_path / "a.boardfit", **{**parts, "measurements": {"machine": machine}})
        with open_bundle(tmp_path / "a.boardfit") as bundle:
            assert bundle.measurements == {"machine": machine}
            ids.add(bundle.content_id)
    assert len(ids) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_may_lack_golden_frame_and_measurements(tmp_path, parts, form):
    for name in ("golden_frame", "golden_outputs", "measurements"):
        del parts[name]
    write_bundle(tmp_path / form, **parts)
    verify_bundle(tmp_path / form)
    with open_bundle(tmp_path / form) as bundle:
        assert bundle.measurements is None
        assert bundle.golden_frame() is None
        assert bundle.golden_outputs(32) == []


def test_other_tools_read_the_zip(tmp_path, parts):
    write_bundle(tmp_path / "a.boardfit", **parts)
    write_bundle(tmp_path / "tree", **parts)
    with zipfile.ZipFile(tmp_path / "a.boardfit") as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        assert archive.namelist()[1:] == sorted(archive.namelist()[1:])
        assert {name: archive.read(name) for name in archive.namelist()} == tree_bytes(tmp_path / "tree")
        for info in archive.infolist():
            assert (info.date_time, info.compress_type, info.extra) == ((1980, 1, 1, 0, 0, 0), 0, b"")


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils' sha256sum is not installed")
def test_sha256sum_accepts_the_tree(tmp_path, parts):
    write_bundle(tmp_path / "tree", **parts)
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=tmp_path / "tree", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(tree_bytes(tmp_path / "tree")) - 1


def test_files_get_the_usual_permissions(tmp_path, parts):
    write_bundle(tmp_path / "a.boardfit", **parts)
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a.boardfit").stat().st_mode == (tmp_path / "plain").stat().st_mode


FULL_DISK = """
import resource, sys
import numpy as np
from boardfit.errors import BundleError
from boardfit.runtime.engines.fake import write_fake_bundle
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_fake_bundle(sys.argv[1])
except BundleError as error:
    print(error)
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_write_that_the_system_refuses_half_way_leaves_nothing(tmp_path, form):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / form)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout and "nothing was written" in done.stdout
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
@pytest.mark.parametrize("before", [True, False], ids=["over an old one", "new"])
def test_an_interrupted_write_leaves_all_as_it_was(tmp_path, parts, monkeypatch, form, error, before):
    out = tmp_path / form
    if before:
        write_bundle(out, **{**parts, "name": "old"})
    calls = []

    def fails_late(fd: int) -> None:
        calls.append(fd)
        if len(calls) == (1 if form.endswith(".boardfit") else 4):
            raise error

    monkeypatch.setattr(writer.os, "fsync", fails_late)
    expected = BundleError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as raised:
        write_bundle(out, **parts)
    if expected is BundleError:
        assert str(out) in str(raised.value) and "No space left" in str(raised.value)
    assert names_in(tmp_path) == ([form] if before else [])
    if before:
        verify_bundle(out)
        with open_bundle(out) as bundle:
            assert bundle.manifest.name == "old"


def test_a_folder_that_cannot_be_put_in_place_brings_the_old_one_back(tmp_path, parts, monkeypatch):
    write_bundle(tmp_path / "tree", **{**parts, "name": "old"})
    rename = Path.rename

    def refuses_the_new_one(self: Path, target: Path) -> Path:
        if Path(target).name == "tree" and (self / "manifest.json").read_bytes().find(b'"old"') < 0:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuses_the_new_one)
    with pytest.raises(BundleError, match="Input/output error"):
        write_bundle(tmp_path / "tree", **parts)
    assert names_in(tmp_path) == ["tree"]
    with open_bundle(tmp_path / "tree") as bundle:
        assert bundle.manifest.name == "old"


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path, parts):
    write_bundle(tmp_path / "tree", **parts)
    (tmp_path / "tree" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(tmp_path / "tree", **parts)
    assert (tmp_path / "tree" / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_replaced(tmp_path, parts):
    (tmp_path / "tree").mkdir()
    write_bundle(tmp_path / "tree", **parts)
    verify_bundle(tmp_path / "tree")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {}}, "does not list it"),
        ({"golden_frame": np.zeros((2, 2), np.uint8)}, "golden frame"),
        ({"golden_frame": None}, "without a golden frame"),
        ({"recipe": {"x": float("nan")}}, "JSON"),
        ({"name": ""}, "name is"),
        ({"labels": ("a",)}, "labels"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, parts, change, message):
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "a.boardfit", **{**parts, **change})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "golden/frame.npy", "../x", "models"])
def test_a_name_that_is_taken_or_unsafe_is_refused(tmp_path, parts, name):
    files = {**parts["files"], name: b"x"}
    with pytest.raises(BundleError):
        write_bundle(tmp_path / "a.boardfit", **{**parts, "files": files})
    assert names_in(tmp_path) == []


def test_a_missing_parent_is_named(tmp_path, parts):
    with pytest.raises(BundleError, match="No such file or directory"):
        write_bundle(tmp_path / "no" / "a.boardfit", **parts)


def test_reading_after_close_is_refused(tmp_path, parts):
    write_bundle(tmp_path / "a.boardfit", **parts)
    bundle = open_bundle(tmp_path / "a.boardfit")
    bundle.close()
    bundle.close()
    with pytest.raises(BundleError, match="closed"):
        bundle.read("models/ncnn-fp16.bin")


def test_an_open_bundle_survives_its_replacement(tmp_path, parts):
    write_bundle(tmp_path / "a.boardfit", **parts)
    with open_bundle(tmp_path / "a.boardfit") as bundle:
        write_bundle(tmp_path / "a.boardfit", **{**parts, "name": "new"})
        assert bundle.read("models/ncnn-fp16.bin") == parts["files"]["models/ncnn-fp16.bin"]


def test_an_unknown_file_is_named_with_what_there_is(tmp_path, parts):
    write_bundle(tmp_path / "a.boardfit", **parts)
    with open_bundle(tmp_path / "a.boardfit") as bundle, pytest.raises(BundleError, match=r"ncnn-fp16\.bin"):
        bundle.read("models/other.bin")


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3), np.float64), np.array(["a"]), np.zeros((0,), np.complex64)],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_other_types_are_refused(array):
    with pytest.raises(BundleError):
        parse_npy(dump_npy(array), "it")


def test_an_array_shorter_than_its_header_is_refused():
    data = dump_npy(np.zeros((4, 4), np.float32))
    for cut in (0, 5, 40, len(data) - 1):
        with pytest.raises(BundleError):
            parse_npy(data[:cut], "it")
