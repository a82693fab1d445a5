"""A board is made ready: wheels that code makes, pip's own resolution, no network."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from boardfit.boards.remote import connect
from boardfit.boards.remote.package import pack_package
from boardfit.boards.remote.python_there import PythonThere
from boardfit.boards.remote.session import prepare
from boardfit.boards.remote.wheels import Need, fetch_wheel
from boardfit.errors import RemoteError

PI = PythonThere("/usr/bin/python3", (3, 11), "armv7l", "glibc", (2, 36), False, "", frozenset())


def make_wheel(folder: Path, name: str, tag: str = "py3-none-any", *, code: str = "", data: str = "") -> Path:
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", code)
        if data:
            archive.writestr(f"{name}-1.0.data/platlib/{name}/{data}", "")
            archive.writestr(f"{name}-1.0.data/scripts/{name}", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: sky\n"
        )
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that is all that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("BOARDFIT_BOARD_PYTHON", sys.executable)
    return folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def test_what_is_missing_is_sent_and_found_there(board, index, cache):
    make_wheel(index, "moonlib", code="from moonlib import half", data="half.py")
    needs, notes = [Need("numpy", "numpy"), Need("moonlib", "moonlib>=1")], []
    with connect(board.address) as remote:
        prepared = prepare(remote, needs=needs, cache=cache, on_note=notes.append)
        site = Path(remote.workspace()) / "site"
        code = "import moonlib.half, boardfit, numpy; print(moonlib.half.__file__, boardfit.__file__)"
        done = remote.run([prepared.python.path, "-c", code], env=prepared.env)
        assert done.stdout.split() == [str(site / "moonlib/half.py"), str(site / "boardfit/__init__.py")]
        assert remote.run(prepared.words("--version"), env=prepared.env).stdout.startswith("boardfit ")
        assert not (site / "moonlib-1.0.data").exists()
        assert list((site / "moonlib" / "__pycache__").iterdir())
        assert not list((Path(remote.workspace()) / "wheels").iterdir())
    assert prepared.sent == ("boardfit.zip", "moonlib-1.0-py3-none-any.whl")
    assert "sending moonlib" in "\n".join(notes)
    assert board.leftovers() == []


def test_the_first_engine_that_the_board_has_is_enough(local_board, index, cache):
    engines = [Need("moonlib", "moonlib"), Need("json", "json")]
    with connect("local") as remote:
        assert prepare(remote, needs=[], engines=engines, cache=cache).sent == ("boardfit.zip",)


def test_else_the_first_engine_that_has_a_wheel_is_sent(local_board, index, cache):
    make_wheel(index, "sunlib")
    engines = [Need("moonlib", "moonlib"), Need("sunlib", "sunlib")]
    with connect("local") as remote:
        prepared = prepare(remote, needs=[], engines=engines, cache=cache)
    assert prepared.sent == ("boardfit.zip", "sunlib-1.0-py3-none-any.whl")


def test_no_engine_for_this_board_names_the_best(local_board, index, cache):
    engines = [Need("moonlib", "moonlib"), Need("sunlib", "sunlib")]
    with (
        connect("local") as remote,
        pytest.raises(RemoteError, match=r"no wheel of moonlib .*another engine"),
    ):
        prepare(remote, needs=[], engines=engines, cache=cache)


def test_a_library_that_does_not_work_there_is_told(local_board, index, cache):
    make_wheel(index, "moonlib", code="raise ImportError('libGL.so.1: cannot open shared object file')")
    with connect("local") as remote, pytest.raises(RemoteError, match=r"moonlib: ImportError: libGL\.so\.1"):
        prepare(remote, needs=[Need("moonlib", "moonlib")], cache=cache)
    assert local_board.leftovers() == []


def test_too_little_room_is_told_before_anything_is_sent(local_board, index, cache, monkeypatch):
    with connect("local") as remote:
        monkeypatch.setattr(remote._keeper, "free_bytes", 100_000)
        with pytest.raises(RemoteError, match=r"takes \d+ MB, and at .* 0 MB are free: make room"):
            prepare(remote, needs=[], cache=cache)
        assert not (Path(remote.workspace()) / "wheels").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, r"on armv7l \(glibc 2.36\); install it there: sudo apt install python3-numpy python3-opencv"),
        ({"machine": "riscv64"}, r"on riscv64 \(glibc 2.36\)"),
        ({"libc": "musl"}, r"on armv7l \(musl\); .*own package manager"),
        ({"libc": "bionic"}, r"on armv7l \(bionic\)"),
        ({"libc": ""}, r"on armv7l \(unknown libc\)"),
    ],
    ids=["armv7l", "riscv64", "musl", "android", "unknown"],
)
def test_what_has_no_wheel_for_this_board_is_told_with_what_to_install(
    local_board, index, cache, changes, expected, monkeypatch
):
    make_wheel(index, "numpy", "cp311-cp311-manylinux_2_28_aarch64")
    there = replace(PI, **changes)
    monkeypatch.setattr("boardfit.boards.remote.session.find_python", lambda *_: there)
    needs = [Need("numpy", "numpy>=1", "python3-numpy"), Need("cv2", "opencv", "python3-opencv")]
    with connect("local") as remote, pytest.raises(RemoteError, match=f"lacks numpy and cv2, .*{expected}"):
        prepare(remote, needs=needs, cache=cache)


def test_an_engine_that_is_named_and_has_no_wheel(local_board, index, cache):
    with connect("local") as remote, pytest.raises(RemoteError, match=r"lacks moonlib.*take another engine"):
        prepare(remote, needs=[Need("moonlib", "moonlib")], cache=cache)


def test_every_engine_is_sent_that_has_a_wheel(local_board, index, cache):
    make_wheel(index, "sunlib")
    make_wheel(index, "starlib")
    engines = [Need(name, name) for name in ("json", "moonlib", "sunlib", "starlib")]
    with connect("local") as remote:
        prepared = prepare(remote, needs=[], engines=engines, every_engine=True, cache=cache)
    assert [name.partition("-")[0] for name in prepared.sent] == ["boardfit.zip", "sunlib", "starlib"]


def test_an_index_that_cannot_be_reached_is_told(local_board, index, cache, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with connect("local") as remote, pytest.raises(RemoteError, match=r"fetching it here failed.*network"):
        prepare(remote, needs=[Need("moonlib", "moonlib")], cache=cache)


@pytest.mark.parametrize(
    ("tag", "served"),
    [
        ("cp311-cp311-manylinux_2_31_armv7l", True),
        ("cp37-abi3-manylinux2014_armv7l", True),
        ("cp311-cp311-linux_armv7l", True),
        ("cp311-cp311-manylinux_2_38_armv7l", False),
        ("cp312-cp312-manylinux_2_31_armv7l", False),
        ("cp311-cp311-manylinux_2_31_x86_64", False),
        ("cp311-cp311-musllinux_1_2_armv7l", False),
    ],
)
def test_pip_chooses_for_the_board_and_not_for_this_machine(index, cache, tag, served):
    path = make_wheel(index, "moonlib", tag)
    if served:
        assert fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache).path.name == path.name
    else:
        assert fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache) is None


def test_a_wheel_is_kept_by_its_hash_and_fetched_once(index, cache):
    source = make_wheel(index, "moonlib")
    first = fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache)
    source.unlink()
    assert fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache) == first
    assert first.path.parent.name == first.sha256


def test_a_damaged_wheel_in_the_cache_is_fetched_again(index, cache):
    make_wheel(index, "moonlib")
    first = fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache)
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1])
    assert fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache).path.read_bytes() == whole


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "../..", "name": "etc"}'])
def test_a_damaged_note_in_the_cache_is_passed_over(index, cache, text):
    make_wheel(index, "moonlib")
    first = fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache)
    (note,) = cache.glob("*.json")
    note.write_text(text)
    assert fetch_wheel(Need("moonlib", "moonlib"), PI, board="b", cache=cache) == first
    assert json.loads(note.read_text())["sha256"] == first.sha256


def test_our_own_package_leaves_the_converters_at_home(tmp_path):
    pack_package(tmp_path / "one.zip")
    pack_package(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        names = set(archive.namelist())
        points = archive.read("boardfit-0.1.0.dist-info/entry_points.txt").decode()
    assert {
        "boardfit/__main__.py",
        "boardfit/cli/run.py",
        "boardfit/bundle/reader.py",
        "boardfit/runtime/engines/litert.py",
        "boardfit/boards/remote/keeper.sh",
        "boardfit/benchmarks/records.py",
    } <= names
    assert not [name for name in names if "converters" in name or "evidence" in name or name.endswith(".pyc")]
    assert "litert = boardfit.runtime.engines.litert:LiteRTEngine" in points
    assert "converters" not in points
