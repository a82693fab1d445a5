"""Open a bundle; every byte that is handed out was hashed first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from types import TracebackType
from typing import Any

import numpy as np

from boardfit.bundle.manifest import FileEntry, Manifest
from boardfit.bundle.rules import (
    FETCH_AGAIN,
    MANIFEST,
    MEASUREMENTS,
    SUMS,
    check_text_size,
    parse_json,
    parse_sums,
    sha256_hex,
)
from boardfit.bundle.store import Store, open_store
from boardfit.errors import BundleError
from boardfit.specs import Artifact


class Bundle:
    """An open bundle; made by ``open_bundle``. A context manager. Reading is thread-safe.

    Attributes:
        manifest: What the bundle says of itself.
        content_id: SHA-256 of manifest.json in hex, and so of all that the manifest lists.
        measurements_sha256: SHA-256 of measurements.json in hex; empty where there is none.
    """

    def __init__(self, store: Store) -> None:
        """Read the checksum list and the manifest, and compare them with each other.

        Args:
            store: Files of the bundle; ``close`` closes it.

        Raises:
            BundleError: A file is missing or damaged.
        """
        self._store = store
        self._sums = parse_sums(self._text(SUMS))
        data = self._checked(MANIFEST, self._sums.get(MANIFEST), self._text(MANIFEST))
        self.content_id = sha256_hex(data)
        self.manifest = Manifest.from_bytes(data)
        self.measurements_sha256 = self._sums.get(MEASUREMENTS, "")
        self._files = {entry.path: entry for entry in self.manifest.files}
        for entry in self.manifest.files:
            self._check_size(entry)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> str:
        """Path of the file or folder, for messages."""
        return str(self._store.path)

    @property
    def measurements(self) -> Mapping[str, Any] | None:
        """What the build measured, or None where the bundle carries none.

        Raises:
            BundleError: The file is damaged.
        """
        if MEASUREMENTS not in self._store.sizes:
            if MEASUREMENTS in self._sums:
                raise BundleError(f"{MEASUREMENTS} is missing from {self.path}: {FETCH_AGAIN}")
            return None
        data = self._checked(MEASUREMENTS, self.measurements_sha256, self._text(MEASUREMENTS))
        return parse_json(data, MEASUREMENTS)

    def read(self, path: str) -> bytes:
        """Return a file that the manifest lists, after its size and hash were checked.

        Args:
            path: As in the manifest.

        Raises:
            BundleError: There is no such file, it is damaged, or the bundle is closed.
        """
        entry = self._files.get(path)
        if entry is None:
            raise BundleError(f"{self.path} has no file {path!r}: it has {', '.join(self._files) or 'none'}")
        return self._checked(path, entry.sha256, self._store.read(path))

    def artifact_files(self, artifact: Artifact) -> dict[str, bytes]:
        """Return the checked contents of an artifact's files by path.

        Raises:
            BundleError: A file is damaged, or the bundle is closed.
        """
        return {path: self.read(path) for path in artifact.files}

    def golden_frame(self) -> np.ndarray | None:
        """Return the self-test's frame, HxWx3 uint8 BGR, or None where the bundle has none.

        Raises:
            BundleError: The file is damaged.
        """
        golden = self.manifest.golden
        return None if golden is None else parse_npy(self.read(golden.frame), golden.frame)

    def golden_outputs(self, size: int) -> list[np.ndarray]:
        """Return what the source model answered to the golden frame.

        Args:
            size: Input side in pixels.

        Returns:
            float32 arrays in the order of the outputs; empty where the bundle has none for this size.

        Raises:
            BundleError: A file is damaged.
        """
        golden = self.manifest.golden
        paths = golden.outputs.get(size, ()) if golden else ()
        return [parse_npy(self.read(path), path) for path in paths]

    def close(self) -> None:
        """Close the file. Twice does no harm; what was read stays valid."""
        self._store.close()

    def _text(self, name: str) -> bytes:
        size_bytes = self._store.sizes.get(name)
        if size_bytes is None:
            raise BundleError(f"{self.path} is not a bundle, it has no {name}: {FETCH_AGAIN}")
        check_text_size(size_bytes, name)
        return self._store.read(name)

    def _checked(self, path: str, sha256: str | None, data: bytes) -> bytes:
        if sha256_hex(data) != sha256:
            raise BundleError(f"{path} in {self.path} is damaged, its SHA-256 does not match: {FETCH_AGAIN}")
        return data

    def _check_size(self, entry: FileEntry) -> None:
        found = self._store.sizes.get(entry.path)
        if found is None:
            raise BundleError(f"{entry.path} is missing from {self.path}: {FETCH_AGAIN}")
        if found != entry.size_bytes:
            raise BundleError(
                f"{entry.path} in {self.path} has {found} bytes, the manifest says {entry.size_bytes}: "
                f"{FETCH_AGAIN}"
            )


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a .boardfit file, or the same tree as a folder.

    The manifest is hashed here, every other file when it is read.

    Args:
        path: Of the file or folder.

    Raises:
        BundleError: It does not exist, is no bundle, or is damaged.
    """
    store = open_store(path)
    try:
        return Bundle(store)
    except BaseException:
        store.close()
        raise


def dump_npy(array: np.ndarray) -> bytes:
    """Return a C-contiguous array as a .npy file of version 1.0."""
    stream = BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def parse_npy(data: bytes, what: str) -> np.ndarray:
    """Return the array in an untrusted .npy file of version 1.0, uint8 or float32.

    Raises:
        BundleError: It is anything else, or its header does not match its length.
    """
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, RecursionError) as error:
        raise BundleError(f"{what} is not a .npy file ({error}): {FETCH_AGAIN}") from error
    values = data[stream.tell() :]
    expected = dtype.itemsize
    for axis in shape:
        expected *= axis
    if version != (1, 0) or fortran or dtype.str not in ("|u1", "<f4") or expected != len(values):
        raise BundleError(f"{what} holds {dtype} {shape}: expected uint8 or float32 values, all of them")
    return np.frombuffer(values, dtype).reshape(shape)
