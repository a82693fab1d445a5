from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardfit.bundle.rules import (
    MANIFEST,
    MAX_TEXT_BYTES,
    canonical_order,
    check_path,
    check_paths,
    dump_json,
    parse_json,
    parse_sums,
    sums_text,
)
from boardfit.errors import BundleError


@pytest.mark.parametrize("path", ["a", "models/a-1.tflite", "x/y/z_2+3.bin", "SHA256SUMS"])
def test_safe_paths_pass(path):
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a/..",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:x",
        "a b",
        "a\n",
        "a\0",
        "-rf",
        ".hidden",
        "a/.git",
        "bîrd",
        "٣",
        "x" * 201,
        None,
        7,
    ],
    ids=repr,
)
def test_unsafe_paths_are_refused(path):
    with pytest.raises(BundleError, match="cannot be the name"):
        check_path(path)


@given(st.text(max_size=12))
def test_whatever_passes_stays_inside_a_folder(path):
    try:
        check_path(path)
    except BundleError:
        return
    parts = path.split("/")
    assert all(part not in ("", ".", "..") for part in parts)
    assert path.isascii() and path.isprintable() and "\\" not in path and ":" not in path


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]], ids=str)
def test_paths_that_cannot_stand_together_are_refused(paths):
    with pytest.raises(BundleError):
        check_paths(paths)


def test_the_manifest_comes_first():
    assert canonical_order(["z", "SHA256SUMS", MANIFEST, "a/b"]) == [MANIFEST, "SHA256SUMS", "a/b", "z"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        "{} {}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:20] or "empty",
)
def test_dubious_json_is_refused(text):
    if text.endswith("9}") and not _limits_digits():
        pytest.skip("this Python has no limit on the digits of an integer")
    with pytest.raises(BundleError):
        parse_json(text.encode(), "it")


@pytest.mark.parametrize("data", [b"\xff", b"\xef\xbb\xbf{}", b"{" + b" " * MAX_TEXT_BYTES + b"}"], ids=len)
def test_json_that_is_no_text_or_too_long_is_refused(data):
    with pytest.raises(BundleError):
        parse_json(data, "it")


def test_json_is_written_in_one_form():
    assert dump_json({"b": 1, "a": ["é"]}, "it") == '{\n  "a": [\n    "é"\n  ],\n  "b": 1\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, "\ud800"], ids=repr)
def test_what_is_not_json_is_not_written(value):
    with pytest.raises(BundleError):
        dump_json({"a": value}, "it")


def test_sums_come_back():
    digests = {"b/c": "1" * 64, MANIFEST: "2" * 64}
    assert parse_sums(sums_text(digests)) == digests
    assert sums_text(digests).startswith(b"2" * 64 + b"  manifest.json\n")


@pytest.mark.parametrize(
    "line",
    [
        b"0" * 63 + b"  a\n",
        b"0" * 64 + b" a\n",
        b"0" * 64 + b"  a",
        b"A" * 64 + b"  a\n",
        b"0" * 64 + b"  ../a\n",
        b"0" * 64 + b"  a\r\n",
        b"\xff\n",
        (b"0" * 64 + b"  a\n") * 2,
    ],
    ids=repr,
)
def test_damaged_sums_are_refused(line):
    with pytest.raises(BundleError):
        parse_sums(line)


def _limits_digits() -> bool:
    import sys

    return hasattr(sys, "get_int_max_str_digits") and sys.get_int_max_str_digits() > 0
