"""The bundle's measurements as records, row by row; what is not understood is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boardfit.cli.text import counted
from boardfit.specs import Artifact

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the build measured.

    Attributes:
        machine: Name of the machine that measured; empty where unknown.
        parity: Comparison with the source, by artifact name and size.
        times: Inference times, by artifact name and size.
        trained: What training changed at each size, in words; empty where nothing was trained.
    """

    machine: str
    parity: Mapping[tuple[str, int], Row]
    times: Mapping[tuple[str, int], Row]
    trained: str = ""

    def parity_cells(self, artifact: Artifact, size: int) -> list[str]:
        """Return images, max abs as a share of the output's range, cosine and flips as texts."""
        row = self.parity.get((artifact.name, size))
        if row is None:
            return ["-", "-", "-", "-"]
        max_abs, span = _number(row, "max_abs"), _number(row, "output_range")
        share = None if max_abs is None or not span else max_abs / span
        return [
            _text(_number(row, "images"), "d"),
            _text(share, ".1e"),
            _text(_number(row, "cosine"), ".5f"),
            _text(_number(row, "flips"), "d"),
        ]

    def time_cells(self, artifact: Artifact, size: int) -> list[str]:
        """Return milliseconds, engine and threads as texts."""
        row = self.times.get((artifact.name, size))
        if row is None:
            return ["-", "-"]
        p50_s = _number(row, "p50_s")
        threads = _number(row, "threads")
        where = str(row.get("engine", "?"))
        if threads is not None:
            where += f", {counted(int(threads), 'thread')}"
        return [_text(None if p50_s is None else p50_s * 1e3, ".2f"), where]


def read_measured(measurements: Row | None) -> Measured:
    """Return the measurements of a bundle; empty where it has none."""
    found = measurements or {}
    machine = found.get("machine", "")
    return Measured(
        machine=machine if isinstance(machine, str) else "",
        parity=_by_name_and_size(found.get("parity")),
        times=_by_name_and_size(found.get("times")),
        trained=_trained(found.get("compressed")),
    )


def _trained(record: object) -> str:
    rows = record.get("agreement") if isinstance(record, Mapping) else None
    parts, largest = [], 0
    for row in rows if isinstance(rows, list) else []:
        cells = (
            [_number(row, name) for name in ("size", "before", "after")] if isinstance(row, Mapping) else []
        )
        if not cells or None in cells:
            return ""
        size, before, after = cells
        largest = max(largest, int(size or 0))
        parts.append(f"{size}: {before:.1f} to {after:.1f} %")
    return f"answers as the source at {largest}, before to after: {', '.join(parts)}" if parts else ""


def _by_name_and_size(rows: object) -> dict[tuple[str, int], Row]:
    found = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    return {
        (row["artifact"], row["size"]): row
        for row in found
        if isinstance(row.get("artifact"), str) and type(row.get("size")) is int
    }


def _number(row: Row, name: str) -> float | int | None:
    value = row.get(name)
    return value if type(value) in (int, float) else None


def _text(value: float | None, spec: str) -> str:
    if value is None:
        return "-"
    return format(int(value) if spec == "d" else value, spec)
