"""The few layers that an import needs and Keras does not have. They run on every Keras backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Extent = int | Mapping[str, Any]
"""Of an axis: a number, or ``{"of": tensor, "axes": [axis, ...], "over": divisor}``: a product, divided."""


@keras.saving.register_keras_serializable(package="boardfit")
class Regroup(keras.layers.Layer):  # type: ignore[misc]
    """Reshape where more than one axis follows the input size, which ``keras.layers.Reshape`` cannot say.

    Called with a tensor, or with a list of the tensor and another one that knows the wanted extents.
    """

    def __init__(self, target: Sequence[Extent], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target = [item if isinstance(item, int) else dict(item) for item in target]

    def call(self, inputs: Any) -> Any:
        """Compute the output; see keras.layers.Layer."""
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        extents = [_extent(item, tensors) for item in self.target]
        return ops.reshape(tensors[0], (ops.shape(tensors[0])[0], *extents))

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the output's shape and dtype."""
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        extents = [_known_extent(item, tensors) for item in self.target]
        return keras.KerasTensor((tensors[0].shape[0], *extents), dtype=tensors[0].dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "target": self.target}


@keras.saving.register_keras_serializable(package="boardfit")
class Constant(keras.layers.Layer):  # type: ignore[misc]
    """A weight that is no kernel: a position embedding, a class token, a scale per element.

    Called with any tensor of the net, from which it takes the batch where ``tiled`` is set.

    Args:
        extents: Shape without the batch.
        tiled: Whether the weight is repeated for every image; else its batch axis has one row.
    """

    def __init__(self, extents: Sequence[int], tiled: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extents = tuple(int(extent) for extent in extents)
        self.tiled = tiled
        self.value = self.add_weight(name="value", shape=(1, *self.extents), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Compute the output; see keras.layers.Layer."""
        if not self.tiled:
            return ops.convert_to_tensor(self.value)
        return ops.broadcast_to(self.value, (ops.shape(inputs)[0], *self.extents))

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the output's shape and dtype."""
        return keras.KerasTensor((inputs.shape[0] if self.tiled else 1, *self.extents), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "extents": list(self.extents), "tiled": self.tiled}


@keras.saving.register_keras_serializable(package="boardfit")
class CornerResize(keras.layers.Layer):  # type: ignore[misc]
    """Bilinear resize of an NHWC image whose corner pixels stay in the corners (``align_corners``).

    Args:
        scale: Factor of height and of width, or None where ``extents`` are given.
        extents: Height and width of the output.
    """

    def __init__(
        self, scale: Sequence[int] | None = None, extents: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.scale = None if scale is None else tuple(int(item) for item in scale)
        self.extents = None if extents is None else tuple(int(item) for item in extents)

    def call(self, inputs: Any) -> Any:
        """Compute the output; see keras.layers.Layer."""
        if keras.backend.backend() == "tensorflow":
            return self._in_tensorflow(inputs)
        height, width = self._target(inputs.shape)
        assert height is not None and width is not None, "only TensorFlow resizes what has no known size"
        rows = ops.convert_to_tensor(corner_matrix(inputs.shape[1], height))
        columns = ops.convert_to_tensor(corner_matrix(inputs.shape[2], width))
        return ops.einsum("ph,nhwc,qw->npqc", rows, inputs, columns)

    def _in_tensorflow(self, inputs: Any) -> Any:
        # Only this operation becomes TFLite's and ONNX's own resize.
        import tensorflow as tf

        shape = ops.shape(inputs)
        scale = self.scale or (1, 1)
        size = self.extents or (shape[1] * scale[0], shape[2] * scale[1])
        return tf.raw_ops.ResizeBilinear(images=inputs, size=size, align_corners=True)

    def _target(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        if self.extents is not None:
            return self.extents
        return tuple(
            None if extent is None else extent * factor
            for extent, factor in zip(shape[1:3], self.scale or (1, 1), strict=True)
        )

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the output's shape and dtype."""
        shape = inputs.shape
        return keras.KerasTensor((shape[0], *self._target(shape), shape[3]), dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "scale": self.scale, "extents": self.extents}


@keras.saving.register_keras_serializable(package="boardfit")
class ArgExtremum(keras.layers.Layer):  # type: ignore[misc]
    """Places of the largest or smallest numbers along an axis, as whole numbers in float32.

    Args:
        axis: Of the tensor; not the batch.
        smallest: Whether the smallest are meant.
        keepdims: Whether the axis stays, with an extent of one.
    """

    def __init__(self, axis: int, smallest: bool = False, keepdims: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis, self.smallest, self.keepdims = int(axis), bool(smallest), bool(keepdims)

    def call(self, inputs: Any) -> Any:
        """Compute the output; see keras.layers.Layer."""
        if keras.backend.backend() == "tensorflow":
            # Keras' own tells zeros of two signs apart by their bits, which no format can.
            import tensorflow as tf

            function = tf.argmin if self.smallest else tf.argmax
            places = function(inputs, axis=self.axis, output_type="int32")
        else:
            places = (ops.argmin if self.smallest else ops.argmax)(inputs, axis=self.axis)
        places = ops.cast(places, "float32")
        return ops.expand_dims(places, self.axis) if self.keepdims else places

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the output's shape and dtype."""
        shape = list(inputs.shape)
        shape[self.axis : self.axis + 1] = [1] if self.keepdims else []
        return keras.KerasTensor(tuple(shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        own = {"axis": self.axis, "smallest": self.smallest, "keepdims": self.keepdims}
        return {**super().get_config(), **own}


class PlainConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A grouped convolution as one operation of TensorFlow, for exporters; never run, and never saved."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Compute the convolution; see keras.layers.Conv2D."""
        import tensorflow as tf

        return tf.nn.conv2d(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
        )


class PlainUpSampling2D(keras.layers.UpSampling2D):  # type: ignore[misc]
    """A repeat of pixels as one operation of TensorFlow, for exporters; never saved."""

    def call(self, inputs: Any) -> Any:
        """Compute the output; see keras.layers.Layer."""
        import tensorflow as tf

        shape = ops.shape(inputs)
        size = (shape[1] * self.size[0], shape[2] * self.size[1])
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=size)


def corner_matrix(before: int, after: int) -> np.ndarray:
    """Return the (after, before) float32 matrix of a linear resize that keeps the corners."""
    place = np.linspace(0.0, before - 1.0, after) if after > 1 else np.zeros(1)
    low = np.minimum(place.astype(np.int64), max(before - 2, 0))
    matrix = np.zeros((after, before), np.float32)
    matrix[np.arange(after), low] += 1.0 - (place - low)
    matrix[np.arange(after), np.minimum(low + 1, before - 1)] += place - low
    return matrix


def _extent(item: Extent, tensors: Sequence[Any]) -> Any:
    if isinstance(item, int):
        return item
    shape = ops.shape(tensors[item["of"]])
    product = 1
    for axis in item["axes"]:
        product = product * shape[axis]
    return product // item["over"]


def _known_extent(item: Extent, tensors: Sequence[Any]) -> int | None:
    if isinstance(item, int):
        return item
    extents = [tensors[item["of"]].shape[axis] for axis in item["axes"]]
    if any(extent is None for extent in extents):
        return None
    return int(np.prod(extents)) // int(item["over"])
