"""Write a bundle: all of it or nothing, and the same bytes for the same content."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.bundle import layout
from boardfit.bundle.manifest import FileEntry, Golden, Manifest
from boardfit.bundle.reader import dump_npy
from boardfit.bundle.rules import (
    MANIFEST,
    MEASUREMENTS,
    OPTIONAL,
    RESERVED,
    SIGNATURES,
    SUMS,
    canonical_order,
    check_paths,
    dump_json,
    parse_sums,
    sha256_hex,
    sums_text,
)
from boardfit.bundle.signing import Signature, dump_signatures
from boardfit.bundle.store import FolderStore
from boardfit.errors import BundleError
from boardfit.files import beside, sync_folder, write_synced, write_whole
from boardfit.specs import Artifact, ImageSpec, PolicySpec

SUFFIX = ".boardfit"


def write_bundle(
    out: str | os.PathLike[str],
    *,
    name: str,
    labels: Sequence[str],
    image: ImageSpec,
    policy: PolicySpec,
    artifacts: Sequence[Artifact],
    files: Mapping[str, bytes],
    golden_frame: np.ndarray | None = None,
    golden_outputs: Mapping[int, Sequence[np.ndarray]] | None = None,
    golden_inputs: Sequence[np.ndarray] = (),
    recipe: Mapping[str, Any] | None = None,
    tools: Mapping[str, str] | None = None,
    measurements: Mapping[str, Any] | None = None,
    task: str = "classify",
) -> Manifest:
    """Write a bundle; the same arguments give the same bytes.

    A bundle that is already there is replaced when the new one is complete. On any error, and when the
    program is interrupted, nothing half-written stays.

    Args:
        out: One file if it ends in ``.boardfit``, else a folder; its parent must exist.
        name: Name of the model, for people.
        labels: Class names in the order of the first output; empty where none are known.
        image: How a frame becomes the input tensor.
        policy: Which size a frame gets.
        artifacts: The exported models.
        files: Contents by path; every path that an artifact names.
        golden_frame: Frame for the self-test, HxWx3 uint8 BGR.
        golden_outputs: By input side in pixels: what the source model answers to that frame, float32.
        golden_inputs: What it was given besides the frame; see ``Golden.inputs``.
        recipe: How the bundle was built, as JSON values.
        tools: Versions by the name of the tool.
        measurements: What the build measured, as JSON values; outside the content id.
        task: What the model is for, one of ``boardfit.specs.TASKS``.

    Returns:
        The manifest that was written.

    Raises:
        BundleError: The parts do not fit together, or the bundle cannot be written.
    """
    golden, contents = _golden(golden_frame, golden_outputs or {}, golden_inputs)
    taken = [path for path in files if path in contents or path in RESERVED]
    if taken:
        raise BundleError(f"{taken[0]} is the bundle's own: expected another name for a file")
    contents = {**contents, **files}
    manifest = Manifest(
        name=name,
        task=task,
        labels=tuple(labels),
        image=image,
        policy=policy,
        artifacts=tuple(artifacts),
        files=tuple(FileEntry.of(path, contents[path]) for path in sorted(contents)),
        golden=golden,
        recipe=dict(recipe or {}),
        tools=dict(tools or {}),
    )
    write_tree(out, manifest, contents=contents, measurements=measurements)
    return manifest


def write_tree(
    out: str | os.PathLike[str],
    manifest: Manifest,
    *,
    contents: Mapping[str, bytes],
    measurements: Mapping[str, Any] | None,
    signatures: Sequence[Signature] = (),
) -> None:
    """Write a bundle from its manifest and the contents of the files that it lists.

    Args:
        out: One file if it ends in ``.boardfit``, else a folder.
        manifest: Of exactly these contents.
        contents: By path.
        measurements: What the build measured, as JSON values, or None.
        signatures: Of this manifest.

    Raises:
        BundleError: The bundle cannot be written.
    """
    tree = {**contents, MANIFEST: manifest.to_bytes()}
    if measurements is not None:
        tree[MEASUREMENTS] = dump_json(measurements, MEASUREMENTS)
    if signatures:
        tree[SIGNATURES] = dump_signatures(signatures)
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    digests.update({path: sha256_hex(tree[path]) for path in (MANIFEST, *OPTIONAL) if path in tree})
    if set(digests) != set(tree):
        raise BundleError(f"the manifest lists {sorted(digests)}, but the contents are {sorted(tree)}")
    tree[SUMS] = sums_text(digests)
    check_paths(tree)
    target = Path(out).absolute()
    try:
        check_target(target)
        if target.suffix == SUFFIX:
            _write_file(target, tree)
        else:
            _write_folder(target, tree)
    except OSError as error:
        raise BundleError(
            f"cannot write {out} ({error.strerror or error}), nothing was written: "
            "make room, or choose another place"
        ) from error


def check_target(out: str | os.PathLike[str]) -> None:
    """Check that a bundle written there would destroy nothing but a bundle.

    Args:
        out: One file if it ends in ``.boardfit``, else a folder.

    Raises:
        BundleError: Something else is there.
    """
    target = Path(out).absolute()
    if target.suffix != SUFFIX:
        _refuse_other_content(target)
    elif target.is_dir():
        raise BundleError(
            f"{target} is a folder, and what ends in {SUFFIX} is written as one file: "
            "choose another name, or remove it"
        )


def zip_pieces(tree: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield the bytes of a .boardfit file."""
    order = canonical_order(tree)
    entries = layout.place([(path, zlib.crc32(tree[path]), len(tree[path])) for path in order])
    for entry in entries:
        yield layout.local_header(entry)
        yield tree[entry.path]
    yield layout.directory(entries)


def _golden(
    frame: np.ndarray | None, outputs: Mapping[int, Sequence[np.ndarray]], inputs: Sequence[np.ndarray]
) -> tuple[Golden | None, dict[str, bytes]]:
    """Return the record of the self-test and the contents of its files."""
    if frame is None:
        if outputs:
            raise BundleError("golden outputs without a golden frame: give both or none")
        return None, {}
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise BundleError(f"the golden frame is {frame.dtype} {frame.shape}: expected HxWx3 uint8")
    contents = {"golden/frame.npy": dump_npy(frame)}
    further = tuple(f"golden/input-{place}.npy" for place in range(len(inputs)))
    for path, array in zip(further, inputs, strict=True):
        contents[path] = dump_npy(array if array.dtype == np.uint8 else np.asarray(array, dtype="<f4"))
    paths: dict[int, tuple[str, ...]] = {}
    for size, arrays in sorted(outputs.items()):
        paths[size] = tuple(f"golden/{size}-{index}.npy" for index in range(len(arrays)))
        for path, array in zip(paths[size], arrays, strict=True):
            contents[path] = dump_npy(np.asarray(array, dtype="<f4"))
    return Golden("golden/frame.npy", paths, further), contents


def _write_file(target: Path, tree: Mapping[str, bytes]) -> None:
    write_whole(target, zip_pieces(tree))


def _write_folder(target: Path, tree: Mapping[str, bytes]) -> None:
    with beside(target) as temporary:
        temporary.mkdir()
        for path, data in tree.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            write_synced(temporary / path, [data])
        for folder in {(temporary / path).parent for path in tree}:
            sync_folder(folder)
        _swap(temporary, target)
    sync_folder(target.parent)


def _refuse_other_content(target: Path) -> None:
    """Raise BundleError if replacing a folder would destroy anything but a bundle."""
    if not os.path.lexists(target):
        return
    refusal = f"{target} is there already and is not a bundle: choose another place, or remove it"
    if target.is_symlink() or not target.is_dir():
        raise BundleError(refusal)
    try:
        found = set(FolderStore(target).sizes)
        listed = set(parse_sums((target / SUMS).read_bytes())) if SUMS in found else set()
    except BundleError as error:
        raise BundleError(refusal) from error
    if not found <= {*listed, SUMS}:
        raise BundleError(refusal)


def _swap(temporary: Path, target: Path) -> None:
    """Put a complete folder in place of another one, which comes back if that fails."""
    if not target.exists():
        temporary.rename(target)
        return
    with beside(target) as old:
        target.rename(old)
        try:
            temporary.rename(target)
        except BaseException:
            old.rename(target)
            raise
