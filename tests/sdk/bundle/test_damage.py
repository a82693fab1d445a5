"""Damage of every kind is refused, with a sentence."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from boardfit.bundle import layout, open_bundle, verify_bundle, write_bundle
from boardfit.bundle.store import ZipStore
from boardfit.errors import BundleError


def read_used(path: Path) -> None:
    """Read what a loader reads that runs the first artifact and the self-test."""
    with open_bundle(path) as bundle:
        bundle.artifact_files(bundle.manifest.artifacts[0])
        bundle.golden_frame()


@pytest.fixture
def zipped(tmp_path, parts) -> Path:
    path = tmp_path / "a.boardfit"
    write_bundle(path, **parts)
    return path


def flips(path: Path):
    """Yield (offset, bit) with the file on disk flipped there, and repair it after each.

    One bit of each byte, another one from byte to byte; benchmarks/evidence/bit_flips.py flips all.
    """
    size = path.stat().st_size
    with path.open("r+b", buffering=0) as stream:
        for offset in range(size):
            original = os.pread(stream.fileno(), 1, offset)
            bit = offset % 8
            os.pwrite(stream.fileno(), bytes([original[0] ^ (1 << bit)]), offset)
            yield offset, bit
            os.pwrite(stream.fileno(), original, offset)


def accepts(check, path: Path) -> bool:
    try:
        check(path)
    except BundleError:
        return False
    return True


def test_verify_refuses_a_flipped_bit_in_every_byte(zipped):
    before = zipped.read_bytes()
    unseen = [place for place in flips(zipped) if accepts(verify_bundle, zipped)]
    assert unseen == []
    assert zipped.read_bytes() == before
    verify_bundle(zipped)


def test_reading_refuses_a_flipped_bit_in_every_byte_that_it_uses(zipped):
    store = ZipStore(zipped)
    used = {"manifest.json", "models/tflite-fp32.tflite", "golden/frame.npy"}
    spans = [
        range(entry.data_offset, entry.data_offset + entry.size_bytes)
        for entry in store.entries
        if entry.path in used
    ]
    store.close()
    assert len(spans) == len(used)
    unseen = [
        (offset, bit)
        for offset, bit in flips(zipped)
        if any(offset in span for span in spans) and accepts(read_used, zipped)
    ]
    assert unseen == []
    read_used(zipped)


def test_every_truncation_is_refused(zipped):
    for length in reversed(range(zipped.stat().st_size)):
        os.truncate(zipped, length)
        assert not accepts(open_bundle, zipped), length


@pytest.mark.parametrize("extra", [b"\0", b"PK\x05\x06" + b"\0" * 18], ids=["zero", "second end"])
def test_bytes_before_or_after_are_refused(zipped, extra):
    data = zipped.read_bytes()
    for changed in (extra + data, data + extra):
        zipped.write_bytes(changed)
        with pytest.raises(BundleError, match="not a usable bundle"):
            open_bundle(zipped)


@pytest.mark.parametrize("data", [b"", b"PK", b"hello\n" * 100, bytes(5000)], ids=len)
def test_what_is_no_bundle_is_refused_in_one_sentence(tmp_path, data):
    path = tmp_path / "a.boardfit"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"not a usable bundle.*again$") as raised:
        open_bundle(path)
    assert "\n" not in str(raised.value)


def test_a_zip_of_another_tool_is_refused(zipped, tmp_path):
    import zipfile

    other = tmp_path / "b.boardfit"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(BundleError, match="canonical layout"):
        open_bundle(other)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(BundleError, match="does not exist"):
        open_bundle(tmp_path / "no.boardfit")


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.boardfit")
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(tmp_path / "a.boardfit")


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "models/ncnn-fp16.bin"])
def test_a_folder_with_a_missing_file_is_refused(tmp_path, parts, name):
    write_bundle(tmp_path / "tree", **parts)
    (tmp_path / "tree" / name).unlink()
    with pytest.raises(BundleError, match=re.escape(name)):
        open_bundle(tmp_path / "tree")


def test_an_unlisted_file_is_refused_by_verify(tmp_path, parts):
    write_bundle(tmp_path / "tree", **parts)
    (tmp_path / "tree" / "models" / "more.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"more\.bin"):
        verify_bundle(tmp_path / "tree")


def test_a_link_in_a_folder_is_refused(tmp_path, parts):
    write_bundle(tmp_path / "tree", **parts)
    target = tmp_path / "tree" / "models" / "ncnn-fp16.bin"
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="link"):
        open_bundle(tmp_path / "tree")


@pytest.mark.parametrize("name", ["manifest.json", "measurements.json", "models/tflite-fp32.tflite"])
def test_a_changed_file_in_a_folder_is_refused_by_verify(tmp_path, parts, name):
    write_bundle(tmp_path / "tree", **parts)
    path = tmp_path / "tree" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=re.escape(name)):
        verify_bundle(tmp_path / "tree")


def test_a_zip_that_needs_64_bits_is_refused():
    with pytest.raises(BundleError, match="4 GiB"):
        layout.place([("a", 0, 1 << 31), ("b", 0, 1 << 31)])
