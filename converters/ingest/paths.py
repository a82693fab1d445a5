"""What a path holds, told without opening it."""

from __future__ import annotations

from pathlib import Path


def is_saved_model(path: Path) -> bool:
    """Return whether a path is a folder that holds a TensorFlow SavedModel."""
    return path.is_dir() and (path / "saved_model.pb").is_file()
