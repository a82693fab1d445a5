"""Opening a Keras file from a stranger: what it costs and what it runs are checked before it is loaded."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boardfit.errors import ToolMissing, UnsupportedModel

_MIB = 1 << 20
FREE_BYTES = 64 * _MIB
"""A file may always unpack to this much."""
MAX_GROWTH = 20
"""Beyond that, to this multiple of its own size: float weights do not compress by more."""
MAX_BYTES = 4 << 30
_MAX_CONFIG_BYTES = 64 * _MIB
_MAX_OBJECTS = 200_000

CODE_CLASSES = frozenset({"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "FlaxLayer", "JaxLayer"})
"""Classes that run code, or load further files, that came with the model."""


def load_keras_file(path: Path) -> Any:
    """Load a ``.keras`` or ``.h5`` file without running anything of its author's.

    Args:
        path: The file.

    Returns:
        keras.Model, not compiled.

    Raises:
        UnsupportedModel: Not a Keras model, damaged, unpacking to more than it may, or with a Lambda
            layer or a class of its author's.
        ToolMissing: keras or h5py is not installed.
    """
    keras = _require_keras()
    if path.suffix.lower() == ".keras":
        config = _check_archive(path)
    else:
        config = _check_hdf5(path, path, limit=unpack_limit(path.stat().st_size), model=True)
    _refuse_code(config, path)
    try:
        return keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the layer's constructor raised
        reason = str(error).strip().split("\n")[0]
        raise UnsupportedModel(
            f"{path} cannot be loaded by Keras ({reason}). Expected a model of Keras' own layers, saved by "
            "model.save('name.keras')."
        ) from error


def unpack_limit(file_bytes: int) -> int:
    """Return how many bytes a file of some length may unpack to."""
    return min(max(FREE_BYTES, MAX_GROWTH * file_bytes), MAX_BYTES)


def _check_archive(path: Path) -> Any:
    """Check a .keras zip and return its configuration."""
    limit = unpack_limit(path.stat().st_size)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_total(sum(entry.file_size for entry in entries), limit, path)
            for entry in entries:
                if entry.file_size > FREE_BYTES and entry.file_size > MAX_GROWTH * entry.compress_size:
                    raise _too_large(path, entry.file_size, MAX_GROWTH * entry.compress_size)
            sizes = {entry.filename: entry.file_size for entry in entries}
            if "config.json" not in sizes or sizes["config.json"] > _MAX_CONFIG_BYTES:
                raise _not_a_model(path, "it has no config.json, or a huge one")
            config = _json(path, archive.read("config.json"))
            if "model.weights.h5" not in sizes:
                raise _not_a_model(path, "it has no model.weights.h5")
            weights = io.BytesIO(archive.read("model.weights.h5"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _not_a_model(path, str(error)) from error
    _check_hdf5(weights, path, limit=limit, model=False)
    return config


def _check_hdf5(source: Any, path: Path, *, limit: int, model: bool) -> Any:
    """Check that an HDF5 file's arrays stay within a limit and inside the file; return its configuration."""
    try:
        import h5py
    except ImportError as error:
        raise ToolMissing("h5py is not installed. Install it: pip install 'boardfit[convert]'") from error
    try:
        with h5py.File(source, "r") as file:
            total = 0
            for dataset in _datasets(h5py, file, path):
                total += dataset.nbytes
                _check_total(total, limit, path)
            text = file.attrs.get("model_config")
    except UnsupportedModel:
        raise
    except Exception as error:  # h5py raises what its C library or its Cython code happens to
        raise _not_a_model(path, str(error)) from error
    if not model:
        return None
    if text is None:
        raise _not_a_model(path, "it has weights, but no model: save with model.save, not save_weights")
    return _json(path, text)


def _datasets(h5py: Any, file: Any, path: Path) -> Iterator[Any]:
    """Yield every array of a file once; refuse what reaches out of the file."""
    groups, seen = [file], 0
    visited: set[int] = set()
    while groups:
        group = groups.pop()
        for key in group:
            seen += 1
            if seen > _MAX_OBJECTS:
                raise _not_a_model(path, f"it has more than {_MAX_OBJECTS} parts")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _not_a_model(path, f"its part {key!r} is a link")
            item = group[key]
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise _not_a_model(path, f"its array {key!r} lies in another file")
                yield item
            elif isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in visited:
                    visited.add(address)
                    groups.append(item)


def _refuse_code(config: Any, path: Path) -> None:
    """Refuse Lambda layers and foreign classes, however deep they are nested."""
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        if not isinstance(item, dict):
            continue
        # How the model was compiled is never loaded.
        pending.extend(value for key, value in item.items() if key != "compile_config")
        found = item.get("class_name")
        if isinstance(found, str):
            _refuse_class(item, found, path)


def _refuse_class(item: dict[str, Any], found: str, path: Path) -> None:
    inner = item.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    label = f"{found} {name!r}" if name else found
    if found in CODE_CLASSES:
        raise UnsupportedModel(
            f"{path} has the layer {label}, which carries code of its author's: boardfit runs none. "
            "Build that part from Keras' own layers and save the model again."
        )
    module, registered = item.get("module"), item.get("registered_name")
    foreign = isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins")
    custom = isinstance(registered, str) and ">" in registered and not registered.startswith("keras>")
    if foreign or custom:
        raise UnsupportedModel(
            f"{path} has the object {label} ({registered or module}), which is none of Keras' own. "
            "Build that part from Keras' own layers and save the model again."
        )


def _json(path: Path, text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise _not_a_model(path, f"its configuration is no JSON: {error}") from error


def _check_total(total: int, limit: int, path: Path) -> None:
    if total > limit:
        raise _too_large(path, total, limit)


def _too_large(path: Path, total: int, limit: int) -> UnsupportedModel:
    return UnsupportedModel(
        f"{path} ({path.stat().st_size / _MIB:.1f} MiB) would unpack to {total / _MIB:.0f} MiB or more: "
        f"expected at most {limit / _MIB:.0f}. Trained weights do not do that: "
        "get the file from its author again."
    )


def _not_a_model(path: Path, why: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{path} is not a Keras model, or is damaged ({why}). Save it again with model.save('name.keras')."
    )


def _require_keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise ToolMissing("keras is not installed. Install it: pip install 'boardfit[convert]'") from error
    return keras
