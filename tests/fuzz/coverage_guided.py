"""Fuzz the reader's parsers with atheris, which steers by the lines that an input reaches.

Usage: python tests/fuzz/coverage_guided.py [-atheris_runs=N] [-max_total_time=S] [CORPUS_FOLDER]
       (libFuzzer's options: https://llvm.org/docs/LibFuzzer.html#options)

Needs atheris: pip install 'boardfit[fuzz]'. The first byte of an input chooses the parser.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["boardfit.bundle", "boardfit.specs", "json"]):
    from boardfit.bundle import layout
    from boardfit.bundle.manifest import Manifest
    from boardfit.bundle.reader import parse_npy
    from boardfit.bundle.rules import parse_json, parse_sums
    from boardfit.bundle.signing import parse_signatures

from boardfit.errors import BundleError


def parse_zip(data: bytes) -> None:
    """Parse the end of a zip and its directory, as the store does."""
    end = layout.parse_end(data[-layout.END_BYTES :], len(data))
    layout.parse_directory(data[end.directory_offset : end.directory_offset + end.directory_bytes], end)


def parse_manifest(data: bytes) -> None:
    """What is read must be written and read again."""
    manifest = Manifest.from_bytes(data)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


PARSERS = (
    parse_manifest,
    parse_zip,
    parse_signatures,
    parse_sums,
    lambda data: parse_npy(data, "it"),
    lambda data: parse_json(data, "it"),
)


def one_input(data: bytes) -> None:
    if data:
        with suppress(BundleError):
            PARSERS[data[0] % len(PARSERS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
