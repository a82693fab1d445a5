"""ONNX through tf2onnx, simplified by onnxslim, and made canonical.

Keras' own ONNX exporter calls tf2onnx as well. It is called directly here because only so can the
input be NCHW, which ncnn needs and which spares ONNX Runtime a transpose.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from boardfit.converters.capture import captured_output
from boardfit.converters.model import TrainedModel
from boardfit.converters.targets import Exported, file_stem, input_specs
from boardfit.converters.targets.onnx_canonical import canonical, half_weights
from boardfit.converters.targets.onnx_repair import plain_net, repair
from boardfit.converters.targets.onnx_tidy import tidy
from boardfit.errors import ExportError, ToolMissing
from boardfit.specs import Artifact

OPSET = 17  # the newest that ONNX Runtime 1.17, the oldest runtime we accept, fully knows


def require_tools() -> None:
    """Raise ToolMissing unless tf2onnx, onnx and onnxslim are installed."""
    missing = [name for name in ("tensorflow", "tf2onnx", "onnx", "onnxslim") if find_spec(name) is None]
    if missing:
        raise ToolMissing(
            f"the onnx format needs {', '.join(missing)}, not installed: pip install 'boardfit[convert]'"
        )


def export(model: TrainedModel, *, sizes: tuple[int, ...], precision: str) -> Exported:
    """Export to one .onnx file. ``fp16`` stores the weights in half; see ``targets.export``."""
    graph = onnx_graph(model, sizes[0] if len(sizes) == 1 else None)
    proto = half_weights(graph) if precision == "fp16" else graph
    path = f"{file_stem('onnx', precision=precision, sizes=sizes)}.onnx"
    side = sizes[0] if len(sizes) == 1 else None
    artifact = Artifact(
        format="onnx",
        precision=precision,
        sizes=sizes,
        files=(path,),
        inputs=input_specs(model, size=side, layout="NCHW"),
        outputs=model.outputs,
    )
    return Exported(artifact=artifact, files={path: proto.SerializeToString(deterministic=True)})


@lru_cache(maxsize=2)
def onnx_graph(model: TrainedModel, size: int | None) -> Any:
    """Return the canonical float32 onnx.ModelProto: inputs ``image`` (N, 3, H, W) and those besides it.

    The last ones are kept: fp32, fp16 and the ncnn target start from the same graph.

    Args:
        model: What to export.
        size: The side in pixels to bind, or None to leave height and width free.

    Raises:
        ExportError: tf2onnx or onnxslim failed.
    """
    import onnxslim

    with captured_output():
        try:
            slim = tidy(onnxslim.slim(repair(_converted(model, size))))
        except Exception as error:  # tf2onnx and onnxslim have no exception family of their own
            raise ExportError(f"tf2onnx could not convert the model to ONNX: {error}") from error
    further = [spec.name for spec in model.further]
    return canonical(slim, output_names=[spec.name for spec in model.outputs], further=further)


def _converted(model: TrainedModel, size: int | None) -> Any:
    """Return what tf2onnx makes of a net: onnx.ModelProto, its images NCHW."""
    import tensorflow as tf
    import tf2onnx

    plain = plain_net(model.net)

    def call(*inputs: Any) -> Any:
        return plain(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    specs = input_specs(model, size=size, layout="NHWC")
    raw, _ = tf2onnx.convert.from_function(
        tf.function(call),
        input_signature=[tf.TensorSpec(spec.shape, tf.float32, name=spec.name) for spec in specs],
        opset=OPSET,
        inputs_as_nchw=[spec.name for spec in specs if spec.layout],
    )
    return raw
