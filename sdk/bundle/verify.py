"""Check every byte of a bundle."""

from __future__ import annotations

import os
import zlib

from boardfit.bundle import layout
from boardfit.bundle.reader import Bundle
from boardfit.bundle.rules import FETCH_AGAIN, MANIFEST, OPTIONAL, SUMS, canonical_order
from boardfit.bundle.store import Store, ZipStore, open_store
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
        if bundle.manifest.to_bytes() != store.read(MANIFEST):
            raise BundleError(f"{MANIFEST} in {store.path} is not in its canonical form: {FETCH_AGAIN}")
        _read_everything(bundle)
        files = [_check_file(bundle, store, name) for name in canonical_order(store.sizes)]
        if isinstance(store, ZipStore):
            _check_layout(store, files)
    finally:
        store.close()


def _read_everything(bundle: Bundle) -> None:
    """Read what the manifest does not speak for, and the arrays of the self-test."""
    _ = bundle.measurements, bundle.signatures, bundle.golden_frame()
    for size in bundle.manifest.golden.outputs if bundle.manifest.golden else ():
        bundle.golden_outputs(size)


def _check_file(bundle: Bundle, store: Store, name: str) -> tuple[str, int, int]:
    """Return path, CRC-32 and size of a file whose hash is right."""
    if name in OPTIONAL:
        data = bundle.read_optional(name) or b""
    else:
        # The reader has compared these two with each other when it opened the bundle.
        data = store.read(name) if name in (MANIFEST, SUMS) else bundle.read(name)
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
