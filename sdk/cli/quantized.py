"""What the build measured of quantized artifacts, for people; what is not understood is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boardfit.cli.measured import read_measured
from boardfit.cli.text import table

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Quantized:
    """One artifact that was asked for in integers.

    Attributes:
        asked: As artifacts are named: ``tflite-int8-224``.
        artifact: The name of what is in the bundle; empty where nothing is.
        size: Input side in pixels.
        row: All that the build wrote of it.
        speedup: Against fp32 on the machine of the build; None where that is not known.
    """

    asked: str
    artifact: str
    size: int
    row: Row
    speedup: float | None


def read_quantized(measurements: Row | None) -> list[Quantized]:
    """Return the quantized artifacts of a bundle; empty where it has none."""
    section = (measurements or {}).get("quantized")
    rows = section.get("artifacts") if isinstance(section, Mapping) else None
    times = read_measured(measurements).times
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, Mapping) or type(row.get("size")) is not int:
            continue
        artifact = row.get("artifact") or ""
        speedup = times.get((artifact, row["size"]), {}).get("speedup")
        found.append(
            Quantized(
                asked=f"{row.get('format')}-{row.get('asked')}-{row['size']}",
                artifact=artifact if isinstance(artifact, str) else "",
                size=row["size"],
                row=row,
                speedup=speedup if isinstance(speedup, float) else None,
            )
        )
    return found


def quantized_table(measurements: Row | None) -> str:
    """Return one line per artifact that was asked for in integers; empty where none was."""
    rows = [
        [
            each.artifact or f"no {each.asked}",
            _percent(each.row.get("share"), "macs"),
            _percent(each.row.get("share"), "file"),
            gate_text(each.row.get("verdict")),
            divergence_text(each.row.get("verdict")),
            speed_text(each),
            _ranges(each.row.get("steps")),
        ]
        for each in read_quantized(measurements)
    ]
    header = ["quantized", "MACs in int8", "of fp32 file", "gate", "KL", "speed", "how"]
    return table(header, rows, left=(0, 3, 5, 6)) if rows else ""


def speed_text(each: Quantized) -> str:
    """Return how an artifact's time compares with fp32 on the machine of the build."""
    if each.speedup is None:
        return "not measured"
    precision = each.artifact.split("-")[1] if each.artifact.count("-") else each.artifact
    if each.speedup >= 1.0:
        return f"{precision}: {each.speedup:.1f} x faster here"
    return f"{precision}: slower here: {each.speedup:.1f} x"


def gate_text(verdict: object) -> str:
    """Return the gate's measure with its interval."""
    if not isinstance(verdict, Mapping):
        return "-"
    try:
        flips = f"flips {verdict['flips']:.1f} % ({verdict['flips_low']:.1f} to {verdict['flips_high']:.1f})"
        if verdict["drop"] is None:
            return flips
        drop = f"drop {verdict['drop']:+.1f} ({verdict['drop_low']:+.1f} to {verdict['drop_high']:+.1f})"
        return f"{drop}, flips {verdict['flips']:.1f} %"
    except (KeyError, TypeError, ValueError):
        return "-"


def divergence_text(verdict: object) -> str:
    """Return the mean KL of the outputs."""
    value = verdict.get("divergence") if isinstance(verdict, Mapping) else None
    return f"{value:.4f}" if isinstance(value, (int, float)) else "-"


def _percent(share: object, name: str) -> str:
    value = share.get(name) if isinstance(share, Mapping) else None
    return f"{100.0 * value:.0f} %" if isinstance(value, (int, float)) else "-"


def _ranges(steps: object) -> str:
    """Return the steps that were kept."""
    rows = [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    kept = [f"{row.get('name')} {row.get('detail')}".strip() for row in rows if row.get("kept") is True]
    return "; ".join(kept) or "-"
