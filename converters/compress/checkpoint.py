"""Checkpoints and log of a training: all variables, where it stands, of what; written whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.errors import CompressError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch was like.

    Attributes:
        epoch: Counted from 1.
        phase: Name of the phase of training.
        steps: Steps that were run.
        seconds: Time that they took.
        images_per_s: Images seen per second.
        metrics: Means over the epoch by name, such as ``loss``.
    """

    epoch: int
    phase: str
    steps: int
    seconds: float
    images_per_s: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: Epochs that are complete.
        step: Steps of the next epoch that are done.
        sums: Sums over those steps of each metric.
        seconds: Time that those steps took.
        history: The complete epochs.
    """

    epoch: int = 0
    step: int = 0
    sums: Mapping[str, float] | None = None
    seconds: float = 0.0
    history: tuple[EpochRecord, ...] = ()


def fingerprint(variables: Sequence[Any], settings: Mapping[str, Any]) -> str:
    """Return a hash of what a checkpoint belongs to: what the training begins with, and its settings.

    Args:
        variables: Keras variables before the first step, in a fixed order.
        settings: JSON values.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for variable in variables:
        values = np.asarray(variable)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, variables: Sequence[Any], *, position: Position, belongs_to: str) -> None:
    """Write a checkpoint in place of an older one.

    Args:
        path: Of the file; the folder exists.
        variables: Keras variables, in a fixed order.
        position: Where the training stands.
        belongs_to: A ``fingerprint``.

    Raises:
        CompressError: It cannot be written, because the disk is full for example; the older one stays.
    """
    about = json.dumps({"schema": SCHEMA, "belongs_to": belongs_to, "position": asdict(position)})
    arrays: dict[str, Any] = {f"v{i}": np.asarray(variable) for i, variable in enumerate(variables)}
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("wb") as file:
            np.savez(file, about=np.frombuffer(about.encode(), np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CompressError(
            f"the checkpoint {path} cannot be written ({error.strerror}): the training is stopped. "
            f"{'The one before is whole' if path.exists() else 'There is none yet'}; "
            "make room and start again with --resume"
        ) from error


def load_checkpoint(path: Path, variables: Sequence[Any], *, belongs_to: str) -> Position:
    """Read a checkpoint into variables.

    Args:
        path: Of the file.
        variables: Keras variables, in the order in which they were saved; assigned only if all is well.
        belongs_to: The ``fingerprint`` that is expected.

    Returns:
        Where the training stood.

    Raises:
        CompressError: It is damaged, or belongs to another model, other data or other settings.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            if about["schema"] != SCHEMA or about["belongs_to"] != belongs_to:
                raise CompressError(
                    f"the checkpoint {path} belongs to another model, other images or other settings: "
                    "resume with those, or delete it to start anew"
                )
            values = [arrays[f"v{i}"] for i in range(len(variables))]
        position = _position(about["position"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, CompressError):
            raise
        raise CompressError(
            f"the checkpoint {path} cannot be read ({error}): delete it to start anew"
        ) from error
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return position


def write_log(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write the epochs as CSV, whole or not at all.

    Raises:
        CompressError: It cannot be written, because the disk is full for example.
    """
    if not history:
        return
    names = sorted({name for record in history for name in record.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "phase", "steps", "seconds", "images_per_s", *names])
    for record in history:
        row = [record.epoch, record.phase, record.steps, record.seconds, record.images_per_s]
        writer.writerow([*row, *(f"{record.metrics.get(name, math.nan):.6f}" for name in names)])
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.write_text(text.getvalue(), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise log_failed(path, error) from error


def log_failed(path: Path, error: OSError) -> CompressError:
    """Return what is raised where a log cannot be written, because the disk is full for example."""
    return CompressError(
        f"the log {path} cannot be written ({error.strerror}): the training is stopped. The checkpoint "
        "beside it is whole; make room and start again with --resume"
    )


def _position(data: Mapping[str, Any]) -> Position:
    history = tuple(EpochRecord(**record) for record in data["history"])
    return Position(**{**data, "history": history})
