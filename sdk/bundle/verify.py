"""Check every byte of a bundle."""

from __future__ import annotations

import os
import zlib

from boardfit.bundle import layout
from boardfit.bundle.reader import Bundle
from boardfit.bundle.rules import (
    FETCH_AGAIN,
    MANIFEST,
    MEASUREMENTS,
    RESERVED,
    SUMS,
    canonical_order,
    sums_text,
)
from boardfit.bundle.store import FolderStore, ZipStore, open_store
from boardfit.errors import BundleError


def verify_bundle(path: str | os.PathLike[str]) -> None:
    """Check every file, hash and size of a bundle, and in a .boardfit file every other byte too.

    Args:
        path: Of a .boardfit file, or of the same tree as a folder.

    Raises:
        BundleError: Something is damaged, missing, unlisted, or not in the one canonical layout.
    """
    store = open_store(path)
    try:
        bundle = Bundle(store)
        _check_listed(bundle, store)
        files = [_check_file(bundle, store, name) for name in canonical_order(store.sizes)]
        if isinstance(store, ZipStore):
            _check_layout(store, files)
    finally:
        store.close()


def _check_listed(bundle: Bundle, store: ZipStore | FolderStore) -> None:
    digests = {entry.path: entry.sha256 for entry in bundle.manifest.files}
    unlisted = sorted(set(store.sizes) - set(digests) - set(RESERVED))
    if unlisted:
        raise BundleError(
            f"{store.path} holds {unlisted[0]}, which its manifest does not list: {FETCH_AGAIN}"
        )
    digests[MANIFEST] = bundle.content_id
    if bundle.measurements is not None:
        digests[MEASUREMENTS] = bundle.measurements_sha256
    if store.read(SUMS) != sums_text(digests):
        raise BundleError(f"{SUMS} in {store.path} does not match the manifest: {FETCH_AGAIN}")


def _check_file(bundle: Bundle, store: ZipStore | FolderStore, name: str) -> tuple[str, int, int]:
    """Return path, CRC-32 and size of a file whose hash is right."""
    data = store.read(name) if name in RESERVED else bundle.read(name)
    return name, zlib.crc32(data), len(data)


def _check_layout(store: ZipStore, files: list[tuple[str, int, int]]) -> None:
    """Compare all that is not contents with what the writer would have written."""
    entries = layout.place(files)
    end = entries[-1].data_offset + entries[-1].size_bytes
    same = [entry.path for entry in store.entries] == [entry.path for entry in entries]
    same = same and all(
        store.read_at(entry.offset, entry.data_offset - entry.offset) == layout.local_header(entry)
        for entry in entries
    )
    if not same or store.read_at(end, store.zip_bytes - end) != layout.directory(entries):
        raise BundleError(
            f"{store.path} is damaged between its files, or was made by another tool: {FETCH_AGAIN}"
        )
