"""ONNX in int8: QuantizeLinear and DequantizeLinear around what ONNX Runtime then runs in integers.

``dynamic`` is not made: ONNX Runtime's kernel for a convolution whose input's range is found while it runs,
ConvInteger, is many times slower than fp32 on depthwise layers. Nor is ``int16x8``: its QDQ passes leave
16-bit convolutions in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from boardfit.converters.calibrate import Range
from boardfit.converters.quantize.records import Layer, Probe
from boardfit.converters.targets import Exported, file_stem, onnx_probe
from boardfit.converters.targets.onnx_qdq import find_sites, insert
from boardfit.converters.targets.onnx_view import read, view_of
from boardfit.errors import ExportError

SCHEMES = ("int8",)


def layers(exported: Exported) -> tuple[Layer, ...]:
    """Return the layers of an artifact that hold weights; see ``quantize.records``."""
    return onnx_probe.layers(exported)


def open_probe(exported: Exported, *, threads: int = 1) -> Probe:
    """Open an artifact so that its inner tensors can be read; see ``quantize.records``."""
    return onnx_probe.OnnxProbe(exported, threads=threads)


def quantize(
    exported: Exported,
    *,
    ranges: Mapping[str, Range],
    keep_float: frozenset[str] = frozenset(),
    scheme: str = "int8",
) -> Exported:
    """Quantize an fp32 artifact of one size; see ``quantize.records``.

    Raises:
        ExportError: The scheme is none of ``SCHEMES``, a layer to leave in float does not exist, or a tensor
            has no range.
    """
    view = view_of(read(exported))
    unknown = sorted(keep_float - {node.name for node in view.layers()})
    if scheme not in SCHEMES or unknown:
        raise ExportError(
            f"{exported.artifact.name} has no layer {unknown[0]!r}: see layers() for the names"
            if unknown
            else f"onnx cannot be {scheme}: expected {', '.join(SCHEMES)}"
        )
    model = insert(view, find_sites(view, keep_float), ranges)
    path = f"{file_stem('onnx', precision=scheme, sizes=exported.artifact.sizes)}.onnx"
    artifact = replace(exported.artifact, precision=scheme, files=(path,))
    return Exported(artifact=artifact, files={path: model.SerializeToString(deterministic=True)})
