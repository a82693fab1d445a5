"""Ingest: every source format becomes one TrainedModel.

A format is a module with ``SUFFIXES``, ``ingest(request)`` and ``own_side(source)``, found through the
entry-point group ``boardfit.ingest``.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from boardfit.converters.ingest.guard import require_affordable
from boardfit.converters.ingest.paths import is_saved_model
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.errors import InputError, RecipeError, UnsupportedModel
from boardfit.specs import ImageSpec

TORCH = "torch"

_FACTORY = re.compile(r"[^:\n]+:[A-Za-z_]\w*\Z")


def ingest(request: SourceRequest, kind: str | None = None) -> TrainedModel:
    """Read a trained model of any known format.

    Args:
        request: What to read, and for which sizes.
        kind: Name of the format (``keras``, ``onnx``, ``savedmodel``, ``torch``), or None to tell it from
            the source: by the suffix of a file, or as PyTorch where it reads ``package.module:factory``.
            A PyTorch factory runs its author's code.

    Returns:
        The model, not yet checked for the requested sizes: see ``TrainedModel.require_sizes``.

    Raises:
        InputError: The source does not exist, is a folder, or is of no known format.
        UnsupportedModel: The source is damaged, unsafe, or has a part that cannot be carried over.
        RecipeError: ``kind`` is unknown, or the labels do not fit the outputs.
        ToolMissing: The library that reads this format is not installed.
    """
    modules = {entry.name: entry for entry in entry_points(group="boardfit.ingest")}
    if kind is not None and kind not in modules:
        raise RecipeError(f"source kind {kind!r} is unknown: expected one of {', '.join(sorted(modules))}.")
    if kind is None:
        kind = TORCH if looks_like_factory(request.source) else _kind_of_file(request.source, modules)
    if kind != TORCH:
        require_file(request.source)
        require_affordable(request, kind)
    model: TrainedModel = modules[kind].load().ingest(request)
    columns = model.outputs[0].shape[-1]
    if request.task == "classify" and request.labels and len(request.labels) != columns:
        raise RecipeError(
            f"there are {len(request.labels)} labels for the {columns} outputs of {model.name}: expected "
            "as many. Give one line per class, in the order of the output."
        )
    return model


def own_side(source: str, kind: str | None = None) -> int | None:
    """Return the input side in pixels that a source was made for, or None where it says nothing.

    Args:
        source: As for ``ingest``.
        kind: As for ``ingest``.

    Raises:
        InputError, UnsupportedModel, ToolMissing: The source cannot be read.
    """
    modules = {entry.name: entry for entry in entry_points(group="boardfit.ingest")}
    if kind is None:
        kind = TORCH if looks_like_factory(source) else _kind_of_file(source, modules)
    if kind != TORCH:
        require_file(source)
        require_affordable(SourceRequest(source=source, sizes=(), image=ImageSpec()), kind)
    found: int | None = modules[kind].load().own_side(source)
    return found


def looks_like_factory(source: str) -> bool:
    """Return whether a source names a Python function: ``package.module:factory`` or ``file.py:factory``."""
    return _FACTORY.match(source) is not None and not Path(source).exists()


def _kind_of_file(source: str, modules: dict[str, Any]) -> str:
    require_file(source)
    if is_saved_model(Path(source)):
        return "savedmodel"
    suffix = Path(source).suffix.lower()
    known = {item: name for name, entry in sorted(modules.items()) for item in entry.load().SUFFIXES}
    if suffix in known:
        return known[suffix]
    hint = " A TFLite file can only be packed as it is: --pass-through." if suffix == ".tflite" else ""
    if suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        hint = " Weights alone are no model: name the factory that builds the net, package.module:factory."
    raise InputError(
        f"{source} has the suffix {suffix or '(none)'!r}: expected {', '.join(sorted(known))}, "
        f"or package.module:factory for PyTorch.{hint}"
    )


def require_file(source: str) -> None:
    """Refuse a source that is neither a file with something in it nor the folder of a SavedModel.

    Raises:
        InputError: There is no such file.
        UnsupportedModel: It is empty.
    """
    path = Path(source)
    if is_saved_model(path):
        return
    if path.is_dir():
        raise InputError(
            f"{source} is a folder without a saved_model.pb: expected one model file, or a SavedModel. Save "
            "a Keras model as model.keras, or export ONNX."
        )
    if not path.exists():
        raise InputError(
            f"{source} does not exist: expected a model file, or package.module:factory for PyTorch."
        )
    if not path.is_file():
        raise InputError(f"{source} is no plain file: expected a model file.")
    if path.stat().st_size == 0:
        raise UnsupportedModel(f"{source} is empty: expected a model. Export or copy it again.")
