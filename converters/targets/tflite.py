"""TFLite through TensorFlow's converter.

One file serves all sizes: it is converted at the largest one, and ``resize_tensor_input`` makes it
smaller. A file with a free height and width would lose XNNPACK, which refuses dynamic tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

from boardfit.converters.capture import captured_output
from boardfit.converters.model import TrainedModel
from boardfit.converters.targets import Exported, file_stem, input_specs
from boardfit.errors import ExportError, ToolMissing
from boardfit.specs import Artifact, TensorSpec


def require_tools() -> None:
    """Raise ToolMissing unless TensorFlow is installed."""
    if find_spec("tensorflow") is None:
        raise ToolMissing(
            "the tflite format needs TensorFlow, which is not installed: pip install 'boardfit[convert]'"
        )


def export(model: TrainedModel, *, sizes: tuple[int, ...], precision: str) -> Exported:
    """Export to one .tflite file. ``fp16`` stores the weights in half; see ``targets.export``."""
    data = _convert(model, size=sizes[-1], half_weights=precision == "fp16")
    side = sizes[0] if len(sizes) == 1 else None
    path = f"{file_stem('tflite', precision=precision, sizes=sizes)}.tflite"
    input_names, output_names = _tensor_names(data, [spec.name for spec in model.further])
    inputs = input_specs(model, size=side, layout="NHWC")
    artifact = Artifact(
        format="tflite",
        precision=precision,
        sizes=sizes,
        files=(path,),
        inputs=tuple(replace(spec, name=name) for spec, name in zip(inputs, input_names, strict=True)),
        outputs=tuple(
            TensorSpec(name=name, shape=spec.shape, activation=spec.activation)
            for name, spec in zip(output_names, model.outputs, strict=True)
        ),
    )
    return Exported(artifact=artifact, files={path: data})


def _convert(model: TrainedModel, *, size: int, half_weights: bool) -> bytes:
    import keras
    import tensorflow as tf

    specs = input_specs(model, size=size, layout="NHWC")
    inputs = [keras.Input(batch_shape=(1, *spec.shape[1:]), name=spec.name) for spec in specs]
    given = inputs if len(inputs) > 1 else inputs[0]
    # The name stands in every tensor's name: Keras' own would count the models of this process.
    sized = keras.Model(given, model.net(given, training=False), name="sized")
    with captured_output() as log:
        try:
            converter = tf.lite.TFLiteConverter.from_keras_model(sized)
            if half_weights:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.target_spec.supported_types = [tf.float16]
            data = converter.convert()
        except Exception as error:  # the converter raises whatever MLIR and TensorFlow raise
            raise ExportError(f"TensorFlow could not convert the model to TFLite: {error}") from error
    assert isinstance(data, bytes), log
    return data


def _tensor_names(data: bytes, further: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the file's own names of the inputs and the outputs, both in the net's order.

    The converter may order those of a file differently from the net; its signature has the inputs under the
    net's names, and names the outputs output_0, output_1, ... in the net's order.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    runner = interpreter.get_signature_runner()
    outputs = runner.get_output_details()
    in_order = sorted(outputs, key=lambda name: int(name.rpartition("_")[2]))
    inputs = runner.get_input_details()
    if not further:
        names = [next(iter(inputs.values()))["name"]]
    elif set(inputs) == {"image", *further}:
        names = [inputs[name]["name"] for name in ("image", *further)]
    else:
        raise ExportError(f"the TFLite file has the inputs {sorted(inputs)}: expected {['image', *further]}")
    return names, [outputs[name]["name"] for name in in_order]
