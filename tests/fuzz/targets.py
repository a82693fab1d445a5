"""What is fuzzed: each target makes the damaged input of a seed, and gives it to the code under test.

A target raises nothing but boardfit's own errors. ``ENGINES`` are the libraries of others: that they crash is
expected, and that their process alone dies is what is tested.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mutate import mutate

from boardfit.errors import BoardfitError
from boardfit.specs import Artifact, TensorSpec

CORPUS = Path(__file__).with_name("corpus")
Target = Callable[[int], None]


def bundle_bytes() -> Target:
    """Damage anywhere in a .boardfit file."""
    from boardfit.runtime.engines.fake import write_fake_bundle

    path = scratch() / "a.boardfit"
    write_fake_bundle(path, sizes=(8, 16), classes=3)
    good = path.read_bytes()

    def run(seed: int) -> None:
        path.write_bytes(mutate(good, seed))
        _read_all(path)

    return run


def bundle_contents() -> Target:
    """Damage in the text files and arrays of a bundle, whose hashes and layout are then made right again."""
    from boardfit.bundle import layout, open_bundle
    from boardfit.bundle.rules import canonical_order
    from boardfit.runtime.engines.fake import write_fake_bundle

    path = scratch() / "a.boardfit"
    write_fake_bundle(path, sizes=(8, 16), classes=3)
    with open_bundle(path) as bundle:
        good = {name: bundle._store.read(name) for name in bundle._store.sizes}
    good["signatures.json"] = (CORPUS / "signatures.json").read_bytes()
    good["measurements.json"] = (
        b'{"schema": 1, "machine": "m", "parity": [], "times": [], "quantized": {"artifacts": []}}\n'
    )
    names = sorted(set(good) - {"SHA256SUMS", "golden/frame.npy", "model/fake.json"})

    def run(seed: int) -> None:
        files = dict(good)
        name = random.Random(seed).choice([*names, "manifest.json", "manifest.json"])
        old = files[name]
        files[name] = mutate(old, seed, text=name.endswith(".json"))
        if name != "manifest.json":
            before, after = (hashlib.sha256(data).hexdigest().encode() for data in (old, files[name]))
            size = b'"size_bytes": %d' % len(old), b'"size_bytes": %d' % len(files[name])
            files["manifest.json"] = files["manifest.json"].replace(before, after).replace(*size)
        order = canonical_order([key for key in files if key != "SHA256SUMS"])
        lines = [f"{hashlib.sha256(files[key]).hexdigest()}  {key}\n" for key in order]
        files["SHA256SUMS"] = "".join(lines).encode()
        order = canonical_order(files)
        entries = layout.place([(key, zlib.crc32(files[key]), len(files[key])) for key in order])
        parts = [part for entry in entries for part in (layout.local_header(entry), files[entry.path])]
        path.write_bytes(b"".join([*parts, layout.directory(entries)]))
        _read_all(path)

    return run


def onnx_import() -> Target:
    """Damage in an ONNX file that the importer reads, folds and makes Keras layers of."""
    os.environ["KERAS_BACKEND"] = "numpy"
    good, path = (CORPUS / "net.onnx").read_bytes(), scratch() / "net.onnx"

    def run(seed: int) -> None:
        path.write_bytes(mutate(good, seed))
        import_onnx(path)

    return run


def import_onnx(path: Path) -> None:
    """Do what building does with an ONNX file, for two sizes. Raises nothing but boardfit's own errors."""
    from boardfit.converters.ingest.onnx import fold
    from boardfit.converters.ingest.onnx_convert import convert_graphs
    from boardfit.converters.ingest.onnx_file import read_onnx
    from boardfit.converters.ingest.onnx_fold import SizeImpossible
    from boardfit.converters.ingest.onnx_records import SYMBOLIC, SizeBound

    with suppress(SizeImpossible, SizeBound):
        source = read_onnx(path)
        graphs = [fold(source, side) for side in (16, 24)]
        convert_graphs(graphs, reading=SYMBOLIC, own=0, layout=source.layout, name="net")


def keras_import() -> Target:
    """Damage in a .keras file, in its zip or in its parts, that is checked and loaded."""
    os.environ["KERAS_BACKEND"] = "numpy"
    import zipfile

    from boardfit.converters.ingest.keras_file import load_keras_file

    good, path = (CORPUS / "net.keras").read_bytes(), scratch() / "net.keras"
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def run(seed: int) -> None:
        name = random.Random(seed).choice([None, *parts, "config.json"])
        if name is None:
            path.write_bytes(mutate(good, seed))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for key, data in parts.items():
                    damaged = mutate(data, seed, text=key.endswith(".json")) if key == name else data
                    archive.writestr(key, damaged)
        load_keras_file(path)

    return run


def engine(name: str) -> Callable[[], Target]:
    """Damage in a model file that an engine loads and runs once."""

    def make() -> Target:
        from boardfit.runtime.engines import find_engine

        made = find_engine(name)
        artifact, files = _model(made.formats[0])
        planar = artifact.inputs[0].layout == "NCHW"
        feed = {"image": np.zeros((1, 3, 16, 16) if planar else (1, 16, 16, 3), np.float32)}

        def run(seed: int) -> None:
            path = random.Random(seed).choice(artifact.files)
            damaged = mutate(files[path], seed, text=path.endswith(".param"))
            running = made(artifact, {**files, path: damaged}, 1)
            try:
                running.run(feed)
            finally:
                running.close()

        return run

    return make


TARGETS: dict[str, Callable[[], Target]] = {
    "bundle-bytes": bundle_bytes,
    "bundle-contents": bundle_contents,
    "onnx-import": onnx_import,
    "keras-import": keras_import,
}
ENGINES: dict[str, Callable[[], Target]] = {
    f"engine-{name}": engine(name) for name in ("litert", "onnxruntime", "ncnn", "opencv")
}


def dying() -> Target:
    """Stands for an engine: every third seed kills the process."""

    def run(seed: int) -> None:
        if seed % 3 == 2:
            os.kill(os.getpid(), signal.SIGSEGV)

    return run


def raising() -> Target:
    """Stands for a bug of ours: every third seed raises what it must not."""

    def run(seed: int) -> None:
        if seed % 3 == 2:
            raise KeyError(seed)

    return run


def endless() -> Target:
    """Stands for an engine: every third seed never comes back."""

    def run(seed: int) -> None:
        while seed % 3 == 2:
            pass

    return run


SELF_TEST: dict[str, Callable[[], Target]] = {
    "engine-dying": dying,
    "engine-endless": endless,
    "dying": dying,
    "raising": raising,
}
"""Whether the fuzzer itself sees what happens."""


def refused(target: Target, seed: int) -> bool:
    """Run one seed; return whether it was refused. Whatever is no error of boardfit's comes out."""
    try:
        target(seed)
    except BoardfitError:
        return True
    return False


def _read_all(path: Path) -> None:
    from boardfit.bundle import open_bundle, verify_bundle
    from boardfit.cli.inspect import json_text, people_text

    try:
        verify_bundle(path)
    except BoardfitError:
        # The reader must stand what verify refuses, without its help.
        with open_bundle(path) as bundle:
            for artifact in bundle.manifest.artifacts:
                bundle.artifact_files(artifact)
            bundle.golden_frame()
        raise
    with open_bundle(path) as bundle:
        json_text(bundle)
        people_text(bundle).encode()


def _model(format_name: str) -> tuple[Artifact, dict[str, bytes]]:
    names = {"tflite": ("net.tflite",), "onnx": ("net.onnx",), "ncnn": ("net.param", "net.bin")}[format_name]
    planar = format_name != "tflite"
    shape: tuple[Any, ...] = (None, 3, None, None) if planar else (None, None, None, 3)
    artifact = Artifact(
        format=format_name,
        precision="fp32",
        sizes=(16,),
        files=names,
        inputs=(TensorSpec("image", shape, layout="NCHW" if planar else "NHWC"),),
        outputs=(TensorSpec("scores", (None, 5), activation="logits"),),
    )
    return artifact, {name: (CORPUS / name).read_bytes() for name in names}


def scratch() -> Path:
    """Make a folder, in memory where there is a file system for that."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="boardfit-fuzz-", dir=memory if memory.is_dir() else None))
