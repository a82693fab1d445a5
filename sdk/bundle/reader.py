"""Open a bundle; every byte that is handed out was hashed first."""

from __future__ import annotations

import math
import os
import re
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
    OPTIONAL,
    RESERVED,
    SIGNATURES,
    SUMS,
    check_text_size,
    parse_json,
    parse_sums,
    sha256_hex,
    sums_text,
)
from boardfit.bundle.signing import Signature, parse_signatures
from boardfit.bundle.store import Store, open_store
from boardfit.errors import BundleError
from boardfit.specs import Artifact

_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"(\{'descr': '(\|u1|<f4)', 'fortran_order': False, 'shape': "
    rb"\(((?:[1-9][0-9]{0,9}, ?){0,8}(?:[1-9][0-9]{0,9})?)\), \} *\n)",
    re.DOTALL,
)
"""Header of a .npy file: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""


class Bundle:
    """An open bundle; made by ``open_bundle``. A context manager. Reading is thread-safe.

    Attributes:
        manifest: What the bundle says of itself.
        content_id: SHA-256 of manifest.json in hex, and so of all that the manifest lists.
    """

    def __init__(self, store: Store) -> None:
        """Read the checksum list and the manifest, and compare them with each other.

        Args:
            store: Files of the bundle; ``close`` closes it.

        Raises:
            BundleError: A file is missing or damaged.
        """
        self._store = store
        sums = self._text(SUMS)
        self._sums = parse_sums(sums)
        data = self._checked(MANIFEST, self._sums.get(MANIFEST), self._text(MANIFEST))
        self.content_id = sha256_hex(data)
        self.manifest = Manifest.from_bytes(data)
        self._files = {entry.path: entry for entry in self.manifest.files}
        for entry in self.manifest.files:
            self._check_size(entry)
        self._check_listed(sums)

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
        data = self.read_optional(MEASUREMENTS)
        return None if data is None else parse_json(data, MEASUREMENTS)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures that the bundle carries; who made them is not checked here.

        Raises:
            BundleError: The file is damaged.
        """
        data = self.read_optional(SIGNATURES)
        return () if data is None else parse_signatures(data)

    def signatures_for(self, manifest: Manifest) -> tuple[Signature, ...]:
        """Return the signatures that hold for another bundle of that manifest: all, or none."""
        return self.signatures if sha256_hex(manifest.to_bytes()) == self.content_id else ()

    def read_optional(self, name: str) -> bytes | None:
        """Return the contents of one of ``rules.OPTIONAL`` after its hash was checked, None where absent.

        Raises:
            BundleError: The file is damaged, or the bundle is closed.
        """
        if name not in self._store.sizes:
            return None
        return self._checked(name, self._sums[name], self._text(name))

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
        if golden is None:
            return None
        frame = parse_npy(self.read(golden.frame), golden.frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise BundleError(f"{golden.frame} holds {frame.dtype} {frame.shape}: expected HxWx3 uint8")
        return frame

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

    def golden_inputs(self) -> list[np.ndarray]:
        """Return what the self-test gives besides its frame, in the order of an artifact's further inputs.

        Returns:
            HxWx3 uint8 BGR for an image, else float32 without the batch's axis.

        Raises:
            BundleError: A file is damaged, or is not what the artifacts take.
        """
        golden = self.manifest.golden
        found = []
        specs = self.manifest.artifacts[0].inputs[1:]
        for path, spec in zip(golden.inputs if golden else (), specs, strict=False):
            array = parse_npy(self.read(path), path)
            shape, dtype = array.shape, array.dtype
            image = dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
            if not (image if spec.layout else dtype == np.float32 and shape == spec.shape[1:]):
                raise BundleError(f"{path} holds {dtype} {shape}: expected what {spec.name!r} takes")
            found.append(array)
        return found

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

    def _check_listed(self, sums: bytes) -> None:
        """Compare which files there are, and the checksum list, with the manifest."""
        unlisted = sorted(set(self._store.sizes) - set(self._files) - set(RESERVED))
        if unlisted:
            raise BundleError(
                f"{self.path} holds {unlisted[0]}, which its manifest does not list: {FETCH_AGAIN}"
            )
        lost = [name for name in OPTIONAL if name in self._sums and name not in self._store.sizes]
        if lost:
            raise BundleError(f"{lost[0]} is missing from {self.path}: {FETCH_AGAIN}")
        digests = {entry.path: entry.sha256 for entry in self.manifest.files}
        digests[MANIFEST] = self.content_id
        digests.update({name: self._sums.get(name, "") for name in OPTIONAL if name in self._store.sizes})
        if sums != sums_text(digests):
            raise BundleError(f"{SUMS} in {self.path} does not match the manifest: {FETCH_AGAIN}")

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
    np.lib.format.write_array(stream, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def parse_npy(data: bytes, what: str) -> np.ndarray:
    """Return the array in an untrusted .npy file of version 1.0, uint8 or float32, C-contiguous.

    The header is compared with the one form in which numpy writes it; nothing in it is evaluated.

    Raises:
        BundleError: It is anything else, or its header does not match its length.
    """
    match = _NPY.match(data)
    if match is None or int.from_bytes(match[1], "little") != len(match[2]):
        raise BundleError(f"{what} is not a .npy file of uint8 or float32 values: {FETCH_AGAIN}")
    dtype = np.dtype(match[3].decode())
    shape = tuple(int(axis) for axis in match[4].split(b",") if axis.strip())
    if math.prod(shape) * dtype.itemsize != len(data) - match.end():
        raise BundleError(
            f"{what} holds {len(data) - match.end()} bytes, its header says {dtype} {shape}: {FETCH_AGAIN}"
        )
    return np.frombuffer(data, dtype, math.prod(shape), match.end()).reshape(shape)
