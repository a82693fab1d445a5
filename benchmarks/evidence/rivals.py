"""The int8 tools that boardfit is held against, each at the settings that its documents advise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def onnx_rivals(
    source: bytes, calibration: np.ndarray, work: Path
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield onnxruntime's quantize_static with each calibrator.

    Args:
        source: The fp32 file, input ``image`` (N, 3, S, S).
        calibration: (N, S, S, 3) float32.
        work: Folder for temporary files.
    """
    for method in ("MinMax", "Entropy", "Percentile"):
        yield f"onnxruntime quantize_static {method}", partial(_onnx, source, calibration, work, method)


def _onnx(source: bytes, calibration: np.ndarray, work: Path, method: str) -> bytes:
    """Per channel, QDQ, pre-processed, as its page advises.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._rows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self._rows, None)
            return None if row is None else {"image": np.ascontiguousarray(row.transpose(2, 0, 1)[None])}

    with tempfile.TemporaryDirectory(dir=work) as folder:
        paths = [Path(folder) / name for name in ("source.onnx", "prepared.onnx", "int8.onnx")]
        paths[0].write_bytes(source)
        quant_pre_process(str(paths[0]), str(paths[1]))
        quantize_static(
            str(paths[1]),
            str(paths[2]),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )
        return paths[2].read_bytes()


def _ai_edge(source: bytes, calibration: np.ndarray) -> bytes:
    """The preset; inputs and outputs stay float32, as in all the others."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    key, names = next(iter(Interpreter(model_content=source).get_signature_list().items()))
    tool = quantizer.Quantizer(bytearray(source), recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        tool.update_quantization_recipe(
            regex=".*", operation_name=end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    found = tool.calibrate({key: [{names["inputs"][0]: row[None]} for row in calibration]})
    return bytes(tool.quantize(found).quantized_model)


def _tf_ptq(net: Any, calibration: np.ndarray) -> bytes:
    """https://ai.google.dev/edge/litert/models/post_training_quantization: full integer, float in and out."""
    import keras
    import tensorflow as tf

    image = keras.Input(batch_shape=(1, *calibration.shape[1:]), name="image")
    converter = tf.lite.TFLiteConverter.from_keras_model(
        keras.Model(image, net(image, training=False), name="sized")
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in calibration)
    return bytes(converter.convert())


AI_EDGE = "ai-edge-quantizer static_wi8_ai8"
TFLITE_RIVALS: dict[str, Callable[[Any, np.ndarray], bytes]] = {
    AI_EDGE: _ai_edge,
    "TFLiteConverter PTQ": _tf_ptq,
}
"""The first takes the fp32 file, the second the keras.Model."""
