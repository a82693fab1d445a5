"""TensorFlow SavedModels: tf2onnx in a process of its own, then the ONNX importer; variables are frozen."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from boardfit.converters.ingest import onnx
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.errors import UnsupportedModel

SUFFIXES: tuple[str, ...] = ()

TIMEOUT_S = 600.0

NOTE = "the source is compared with the ONNX that tf2onnx made of the SavedModel"


def ingest(request: SourceRequest) -> TrainedModel:
    """Read a SavedModel's default signature.

    Args:
        request: ``source`` is the path of the folder.

    Returns:
        The model; its reference is ONNX Runtime on what tf2onnx has made.

    Raises:
        UnsupportedModel: tf2onnx cannot convert it, or the ONNX importer refuses what it made.
        ToolMissing: onnx or onnxruntime is not installed.
    """
    folder = Path(request.source)
    with _file(folder) as path:
        model = onnx.ingest(replace(request, source=str(path)))
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
        path.write_bytes(_converted(str(folder.resolve())))
        yield path


@lru_cache(maxsize=1)
def _converted(folder: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="boardfit-") as place:
        path = Path(place) / "net.onnx"
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", folder, "--opset", "17"]
        try:
            done = subprocess.run(
                [*command, "--output", str(path)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise UnsupportedModel(
                f"tf2onnx did not convert {folder} within {TIMEOUT_S:.0f} s: bring the net from Keras, or "
                "as ONNX."
            ) from error
        if done.returncode != 0 or not path.is_file():
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise UnsupportedModel(
                f"tf2onnx cannot convert the SavedModel {folder} ({' / '.join(lines[-2:])}): save its Keras "
                "model as model.keras, or export ONNX."
            )
        return path.read_bytes()
