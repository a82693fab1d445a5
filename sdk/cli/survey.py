"""How ``boardfit inspect`` shows a source that is not built yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boardfit.converters.ingest.survey import Survey

SOURCE_SUFFIXES = (".onnx", ".keras", ".h5", ".hdf5", ".tflite")


def is_source(path: str) -> bool:
    """Return whether a path names a model, or a PyTorch factory, and not a bundle."""
    from boardfit.converters.ingest import looks_like_factory

    known = Path(path).suffix.lower() in SOURCE_SUFFIXES or (Path(path) / "saved_model.pb").is_file()
    return known or looks_like_factory(path)


def survey_text(source: str, *, as_json: bool) -> tuple[str, bool]:
    """Survey a source.

    Args:
        source: Path of a model.
        as_json: For programs.

    Returns:
        The text, and whether all of the source can be imported.
    """
    from boardfit.converters.ingest.survey import survey

    found = survey(source)
    text = json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else _people_text(found)
    return text, not found.unsupported


def _people_text(found: Survey) -> str:
    from boardfit.cli.text import table

    outputs = [f"{spec.name} {_shape(spec.shape)} {spec.activation}" for spec in found.outputs]
    lines = [
        f"source      {found.source}",
        f"input       image {_shape(found.inputs[0].shape)}",
        *(f"besides     {spec.name} {_shape(spec.shape)}" for spec in found.inputs[1:]),
        *(f"output      {text}" for text in outputs),
        f"sizes       {_sizes(found)}",
        f"weights     {sum(row.parameters for row in found.layers):,} parameters, "
        f"{sum(row.macs for row in found.layers) / 1e6:,.1f} million multiplications at {found.side} pixels",
        *(f"note        {note}" for note in found.notes),
        *(f"unsupported {text}" for text in found.unsupported),
    ]
    if not found.layers:
        if Path(found.source).suffix.lower() in (".onnx", ".tflite"):
            formats = "TFLite" if found.source.lower().endswith(".tflite") else "ONNX and ncnn"
            lines.append(f"way out     build only {formats} from the file, untouched: --pass-through")
        return "\n".join(lines)
    rows = [
        [row.name, row.kind, _shape(row.shape), f"{row.parameters:,}", f"{row.macs / 1e6:,.2f}"]
        for row in found.layers
        if row.parameters or row.macs
    ]
    others = len(found.layers) - len(rows)
    header = ["layer", "kind", "output", "parameters", "million macs"]
    return "\n".join(
        [*lines, "", table(header, rows, left=(0, 1, 2)), f"and {others} layers without weights"]
    )


def _sizes(found: Survey) -> str:
    if not found.layers:
        return f"made for {found.own_side}" if found.own_side else "any, as it says"
    if found.free:
        return "any"
    return f"{found.side} only: {found.fixed_by} binds it"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in shape)
