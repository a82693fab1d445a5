"""TensorFlow SavedModels: tf2onnx in a process of its own, then the ONNX importer; variables are frozen.

That process runs this module, with the limits of ``guard``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from boardfit.converters.ingest import onnx
from boardfit.converters.ingest.guard import TRUST, limits_for, require_affordable
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.errors import UnsupportedModel

SUFFIXES: tuple[str, ...] = ()

NOTE = "the source is compared with the ONNX that tf2onnx made of the SavedModel"


def ingest(request: SourceRequest) -> TrainedModel:
    """Read a SavedModel's default signature.

    Args:
        request: ``source`` is the path of the folder.

    Returns:
        The model; its reference is ONNX Runtime on what tf2onnx has made.

    Raises:
        UnsupportedModel: tf2onnx cannot convert it, or not within the limits, or the ONNX importer refuses
            what it made.
        ToolMissing: onnx or onnxruntime is not installed.
    """
    folder = Path(request.source)
    with _file(folder) as path:
        converted = replace(request, source=str(path))
        require_affordable(converted, "onnx")
        model = onnx.ingest(converted)
    return replace(model, notes=(NOTE, *model.notes))


def own_side(source: str) -> int | None:
    """Return the side that the signature fixes its input to, or None.

    Args:
        source: Path of the folder.
    """
    with _file(Path(source)) as path:
        return onnx.own_side(str(path))


@contextmanager
def _file(folder: Path) -> Iterator[Path]:
    """Lend the SavedModel as an ONNX file."""
    with tempfile.TemporaryDirectory(prefix="boardfit-") as place:
        path = Path(place) / f"{folder.resolve().name}.onnx"
        files = sorted(item for item in folder.rglob("*") if item.is_file())
        stamp = tuple((str(item), item.stat().st_mtime_ns, item.stat().st_size) for item in files)
        path.write_bytes(_converted(str(folder.resolve()), stamp))
        yield path


@lru_cache(maxsize=1)
def _converted(folder: str, stamp: tuple[object, ...]) -> bytes:  # noqa: ARG001 - a key of the cache
    with tempfile.TemporaryDirectory(prefix="boardfit-") as place:
        path = Path(place) / "net.onnx"
        limits = limits_for(Path(folder))
        memory_bytes = 0 if os.environ.get(TRUST) == "1" else limits.memory_bytes
        command = [sys.executable, "-m", __name__, folder, str(path), str(memory_bytes)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=limits.seconds
            )
        except subprocess.TimeoutExpired as error:
            raise UnsupportedModel(
                f"tf2onnx did not convert {folder} within {limits.seconds} s: bring the net from Keras, or "
                "as ONNX; where you made it yourself, raise BOARDFIT_IMPORT_SECONDS."
            ) from error
        if done.returncode != 0 or not path.is_file():
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            said = " / ".join(lines[-2:]) if done.returncode > 0 else f"exit status {done.returncode}"
            raise UnsupportedModel(
                f"tf2onnx cannot convert the SavedModel {folder} ({said}): save its Keras model as "
                "model.keras, or export ONNX; where it ran out of memory, raise BOARDFIT_IMPORT_MB."
            )
        return path.read_bytes()


def _convert(folder: str, out: str, memory_bytes: int) -> None:
    """Convert in this process, which may take so much memory more than it has now; 0 for any amount."""
    import tf2onnx.convert

    from boardfit.converters.ingest.guarded import limit_memory

    if memory_bytes:
        limit_memory(memory_bytes)
    sys.argv[1:] = ["--saved-model", folder, "--opset", "17", "--output", out]
    tf2onnx.convert.main()


if __name__ == "__main__":
    _convert(sys.argv[1], sys.argv[2], int(sys.argv[3]))
