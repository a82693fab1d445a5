"""Images with the index of their class, from a table."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from boardfit.errors import InputError, RecipeError


def read_labels(table: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[tuple[Path, int]]:
    """Return the images that a CSV file with the columns ``file`` and ``label`` names, in its order.

    Args:
        table: Path of the CSV file; labels are class indices.
        folder: Where the files lie.

    Raises:
        RecipeError: The table cannot be read, lacks a column, holds no number, or names a file twice.
        InputError: A file that it names is not there.
    """
    labels: dict[str, int] = {}
    try:
        with Path(table).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise RecipeError(f"{table} has the columns {reader.fieldnames}: expected file and label")
            for row in reader:
                name, label = row["file"] or "", row["label"] or ""
                if not label.isdecimal():
                    raise RecipeError(
                        f"{table}, line {reader.line_num}: the label is {label!r}: expected an index"
                    )
                if name in labels:
                    raise RecipeError(f"{table}, line {reader.line_num}: {name} was named before")
                labels[name] = int(label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"cannot read {table}: {error}") from error
    found = [(Path(folder) / name, label) for name, label in labels.items()]
    absent = [str(path) for path, _ in found if not path.is_file()]
    if absent:
        raise InputError(f"{table} names {len(absent)} files that are not there; the first: {absent[0]}")
    return found
