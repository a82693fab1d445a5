"""Targets: one file per format, each with one function ``export``.

A target is found through the entry-point group ``boardfit.targets``, whose value is a module with::

    def export(model: TrainedModel, *, sizes: tuple[int, ...], precision: str) -> Exported
    def require_tools() -> None

``export`` makes one artifact that serves all the given sizes. Called with one size it may bind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from types import ModuleType

from boardfit.converters.model import TrainedModel
from boardfit.errors import ExportError, RecipeError
from boardfit.specs import Artifact, TensorSpec

GROUP = "boardfit.targets"


@dataclass(frozen=True, slots=True)
class Exported:
    """An artifact and the bytes of its files, by path inside the bundle."""

    artifact: Artifact
    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if set(self.files) != set(self.artifact.files):
            raise ExportError(f"{self.artifact.name}: files {sorted(self.files)} do not match the artifact's")


def find_target(format_name: str) -> ModuleType:
    """Return the module that exports a format.

    Raises:
        RecipeError: No installed package offers that format.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if format_name not in found:
        raise RecipeError(f"no target is called {format_name!r}: installed are {', '.join(sorted(found))}")
    module = found[format_name].load()
    assert isinstance(module, ModuleType)
    return module


def export(model: TrainedModel, *, format_name: str, sizes: tuple[int, ...], precision: str) -> Exported:
    """Export a model into one artifact that serves all of ``sizes``.

    Raises:
        ExportError: The format's converter failed or dropped a part of the graph.
        ToolMissing: The format's converter is not installed.
    """
    if model.nets_by_size is not None:
        if len(sizes) != 1:
            raise ExportError(f"{model.name} has a net of its own at each size: one file holds one of them")
        model = model.at(sizes[0])
    if model.untouched is not None:
        from boardfit.converters.targets.untouched import export_untouched

        return export_untouched(model, format_name=format_name, sizes=sizes)
    exported = find_target(format_name).export(model, sizes=sizes, precision=precision)
    assert isinstance(exported, Exported)
    return exported


def input_specs(model: TrainedModel, *, size: int | None, layout: str) -> tuple[TensorSpec, ...]:
    """Return the inputs of an exported net, the image first: all float32.

    Args:
        model: What is exported.
        size: Side in pixels of images, or None for any.
        layout: Of images: ``NHWC`` or ``NCHW``.
    """
    shape = (None, 3, size, size) if layout == "NCHW" else (None, size, size, 3)
    image = TensorSpec("image", shape, layout=layout)
    further = (
        replace(image, name=spec.name) if spec.layout else replace(spec, dtype="float32")
        for spec in model.further
    )
    return (image, *further)


def file_stem(format_name: str, *, precision: str, sizes: tuple[int, ...]) -> str:
    """Return the path inside the bundle, without a suffix, of an artifact's files."""
    stem = f"models/{format_name}-{precision}"
    return f"{stem}-{sizes[0]}" if len(sizes) == 1 else stem
