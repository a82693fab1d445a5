"""One tiny net, conv 3x3 -> relu -> global mean -> dense, in every format that an engine may read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from boardfit.runtime.engines.fake import fake_artifact, fake_files
from boardfit.specs import Artifact, TensorSpec

SIZES = (16, 24, 31)
CHANNELS, CLASSES = 8, 5


@dataclass(frozen=True)
class Tiny:
    """An artifact, its files, and what it must answer to an NHWC batch."""

    artifact: Artifact
    files: dict[str, bytes]
    reference: Callable[[np.ndarray], np.ndarray]

    def feed(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        spec = self.artifact.inputs[0]
        planar = spec.layout == "NCHW"
        return {spec.name: np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if planar else batch}


@dataclass(frozen=True)
class Weights:
    conv: np.ndarray  # (3, 3, 3, C): rows, columns, in, out
    conv_bias: np.ndarray
    dense: np.ndarray  # (C, K)
    dense_bias: np.ndarray

    def reference(self, batch: np.ndarray) -> np.ndarray:
        size = batch.shape[1]
        padded = np.pad(batch.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        hidden = np.zeros((*batch.shape[:3], CHANNELS)) + self.conv_bias
        for row in range(3):
            for column in range(3):
                hidden += padded[:, row : row + size, column : column + size] @ self.conv[row, column]
        return np.maximum(hidden, 0.0).mean(axis=(1, 2)) @ self.dense + self.dense_bias


def make_weights() -> Weights:
    random = np.random.RandomState(11)

    def draw(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.5).astype(np.float32)

    return Weights(draw(3, 3, 3, CHANNELS), draw(CHANNELS), draw(CHANNELS, CLASSES), draw(CLASSES))


def artifact_of(format: str, files: tuple[str, ...], layout: str) -> Artifact:
    shape = (None, None, None, 3) if layout == "NHWC" else (None, 3, None, None)
    return Artifact(
        format=format,
        precision="fp32",
        sizes=SIZES,
        files=files,
        inputs=(TensorSpec("image", shape, layout=layout),),
        outputs=(TensorSpec("scores", (None, CLASSES), activation="logits"),),
    )


def make_ncnn(weights: Weights) -> Tiny:
    param = "\n".join(
        [
            "7767517",
            "4 4",
            "Input image 0 1 image",
            f"Convolution conv 1 1 image hidden 0={CHANNELS} 1=3 4=1 5=1 6={27 * CHANNELS} 9=1",
            "Pooling mean 1 1 hidden pooled 0=1 4=1",
            f"InnerProduct dense 1 1 pooled scores 0={CLASSES} 1=1 2={CHANNELS * CLASSES}",
        ]
    )
    plain = bytes(4)  # the tag of float32 weights
    parts = [
        plain + np.ascontiguousarray(weights.conv.transpose(3, 2, 0, 1)).tobytes(),
        weights.conv_bias.tobytes(),
        plain + np.ascontiguousarray(weights.dense.T).tobytes(),
        weights.dense_bias.tobytes(),
    ]
    artifact = artifact_of("ncnn", ("net.param", "net.bin"), "NCHW")
    files = {"net.param": (param + "\n").encode(), "net.bin": b"".join(parts)}
    return Tiny(artifact, files, weights.reference)


def stored(name: str) -> dict[str, bytes]:
    """Return the same net as it was once written, for environments that cannot write it."""
    return {name: (Path(__file__).parents[2] / "fuzz" / "corpus" / name).read_bytes()}


def make_onnx(weights: Weights) -> Tiny:
    artifact = artifact_of("onnx", ("net.onnx",), "NCHW")
    if find_spec("onnx") is None:
        return Tiny(artifact, stored("net.onnx"), weights.reference)
    import onnx

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    values = {
        "w": weights.conv.transpose(3, 2, 0, 1),
        "b": weights.conv_bias,
        "d": weights.dense,
        "e": weights.dense_bias,
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["hidden"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d", "e"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Tiny(artifact, {"net.onnx": model.SerializeToString()}, weights.reference)


def make_tflite(weights: Weights) -> Tiny:
    artifact = artifact_of("tflite", ("net.tflite",), "NHWC")
    if find_spec("tensorflow") is None:
        return Tiny(artifact, stored("net.tflite"), weights.reference)
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="image")])
    def net(image):
        hidden = tf.nn.relu(tf.nn.conv2d(image, weights.conv, 1, "SAME") + weights.conv_bias)
        return {"scores": tf.reduce_mean(hidden, (1, 2)) @ weights.dense + weights.dense_bias}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()])
    return Tiny(artifact, {"net.tflite": converter.convert()}, weights.reference)


def make_fake(weights: Weights) -> Tiny:
    def reference(batch: np.ndarray) -> np.ndarray:
        wide = batch.astype(np.float64)
        seen = np.concatenate([wide.mean((1, 2)), wide.std((1, 2))], axis=1)
        return 4.0 * seen @ np.random.RandomState(3).standard_normal((6, CLASSES))

    return Tiny(fake_artifact(SIZES, classes=CLASSES), fake_files(CLASSES, 3), reference)


MAKERS = {"tflite": make_tflite, "onnx": make_onnx, "ncnn": make_ncnn, "fake": make_fake}


@pytest.fixture(scope="session")
def tiny_of() -> Callable[[str], Tiny]:
    """Make the tiny net in a format, once."""
    made: dict[str, Tiny] = {}

    def make(format: str) -> Tiny:
        if format not in made:
            made[format] = MAKERS[format](make_weights())
        return made[format]

    return make
