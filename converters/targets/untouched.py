"""The artifacts of a source that is passed through."""

from __future__ import annotations

from dataclasses import replace

from boardfit.converters.model import TrainedModel
from boardfit.converters.targets import Exported, file_stem
from boardfit.converters.targets.ncnn import convert_onnx, rename_blobs
from boardfit.errors import ExportError
from boardfit.specs import Artifact, TensorSpec


def export_untouched(model: TrainedModel, *, format_name: str, sizes: tuple[int, ...]) -> Exported:
    """Pack a source as it is, or turn it into ncnn.

    Args:
        model: With ``untouched``.
        format_name: The source's own, or ``ncnn`` for an ONNX source.
        sizes: Sides in pixels that the artifact serves.

    Raises:
        ExportError: pnnx cannot convert the source.
    """
    source = model.untouched
    assert source is not None
    stem = file_stem(format_name, precision="fp32", sizes=sizes)
    if format_name == source.format:
        path = f"{stem}.{format_name}"
        artifact = Artifact(
            format_name, "fp32", sizes, (path,), (source.image, *source.further), source.outputs
        )
        return Exported(artifact=artifact, files={path: source.data})
    if source.image.layout != "NCHW":
        raise ExportError(
            f"{model.name} takes NHWC images, and pnnx wants NCHW: pass it through with --formats onnx"
        )
    if any(spec.layout == "NHWC" for spec in source.further):
        raise ExportError(f"{model.name} takes an NHWC image: pass it through with --formats onnx")
    param, weights = convert_onnx(source.data, sizes, half=False, further=source.further)
    names = {"in0": "image", **{f"in{i}": spec.name for i, spec in enumerate(source.further, start=1)}}
    names.update({f"out{i}": spec.name for i, spec in enumerate(source.outputs)})
    side = sizes[0] if len(sizes) == 1 else None
    files = {f"{stem}.param": rename_blobs(param, names).encode(), f"{stem}.bin": weights}
    image = TensorSpec("image", (None, 3, side, side), layout="NCHW")
    # ncnn computes in float32 alone.
    further = [replace(spec, dtype="float32") for spec in source.further]
    artifact = Artifact("ncnn", "fp32", sizes, tuple(files), (image, *further), source.outputs)
    return Exported(artifact=artifact, files=files)
