"""The labelled photographs that the evidence scripts read where they lie."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path


def data_folder() -> Path:
    """Return BOARDFIT_DATA, or shared/data beside the checkout."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("BOARDFIT_DATA", default))
    if not folder.is_dir():
        raise SystemExit(f"the photographs are not in {folder}: set BOARDFIT_DATA")
    return folder


def labelled(name: str, limit: int | None = None) -> Iterator[tuple[Path, int]]:
    """Yield each photograph of a set, ``photos_fit`` or ``photos_score``, with its ImageNet index."""
    folder = data_folder()
    with (folder / f"{name}.csv").open() as file:
        for number, row in enumerate(csv.DictReader(file)):
            if limit is None or number < limit:
                yield folder / name / row["file"], int(row["label"])
