"""Nets of many shapes, for following channels: each a function that returns the net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from boardfit.converters.model import TrainedModel

SIDE = 16


def scramble(net, seed: int = 0):
    """Give every weight a random value, so that no channel is idle and no normalisation is the identity."""
    rng = np.random.default_rng(seed)
    for weight in net.weights:
        if not str(weight.dtype).startswith("float"):
            continue
        if len(weight.shape) > 1:
            value = rng.normal(0.0, np.prod(weight.shape[:-1]) ** -0.5, weight.shape)
        elif "gamma" in weight.name or "variance" in weight.name:
            value = rng.uniform(0.5, 1.5, weight.shape)
        else:
            value = rng.normal(0.0, 0.3, weight.shape)
        weight.assign(value.astype(np.float32))
    return net


def conv(x, filters, kernel=3, stride=1, **options):
    from keras import layers

    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, **options)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def scores(image, x):
    import keras
    from keras import layers

    x = x if len(x.shape) == 2 else layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5, name="scores")(x))


def free_image():
    import keras

    return keras.Input((None, None, 3), name="image")


def fixed_image(side=16):
    import keras

    return keras.Input((side, side, 3), name="image")


def plain():
    image = free_image()
    return scores(image, conv(conv(conv(image, 8), 16, stride=2), 24))


def grown():
    image = free_image()
    return scores(image, conv(conv(conv(image, 32), 48, stride=2), 48, 1))


def flattened():
    from keras import layers

    image = fixed_image()
    x = layers.Flatten()(layers.MaxPooling2D()(conv(image, 8)))
    return scores(image, layers.Dense(16, activation="relu")(x))


def flattened_channels_first():
    """As PyTorch's nets flatten: all pixels of a channel behind each other."""
    from keras import layers

    image = fixed_image()
    x = layers.Flatten()(layers.Permute((3, 1, 2))(conv(image, 8, stride=4)))
    return scores(image, layers.Dense(16, activation="relu")(x))


def residual():
    from keras import layers

    image = free_image()
    x = conv(image, 16)
    for stride in (1, 2):
        y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(conv(x, 16, stride=stride)))
        short = x if stride == 1 else layers.Conv2D(16, 1, stride)(x)
        x = layers.ReLU()(layers.Add()([y, short]))
    return scores(image, x)


def concatenated():
    from keras import layers

    image = free_image()
    x = conv(image, 8)
    for _ in range(3):
        x = layers.Concatenate()([x, conv(conv(x, 16, 1), 8)])
    return scores(image, conv(layers.Concatenate()([x, image]), 8))


def squeeze_excite():
    """All forms: kept axes, Reshape, Dense behind Dense that is broadcast, a map of one channel."""
    from keras import layers

    image = free_image()
    x = conv(image, 16)
    gate = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(8, 1, activation="relu")(gate)
    x = layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid")(gate)])
    x = conv(x, 24)
    gate = layers.Dense(8, activation="relu")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Dense(24, activation="hard_sigmoid")(gate)])
    x = conv(x, 8)
    gate = layers.Conv2D(8, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = x * (layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0))
    return scores(image, layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)]))


def mobile():
    from keras import layers

    image = free_image()
    x = conv(image, 8)
    for stride in (1, 2):
        y = conv(x, 32, 1)
        y = layers.DepthwiseConv2D(3, stride, padding="same", depth_multiplier=2)(y)
        y = layers.BatchNormalization()(layers.Conv2D(8, 1)(layers.ReLU(6.0)(y)))
        x = layers.Add()([x, y]) if stride == 1 else y
    return scores(image, conv(x, 32, 1))


def grouped():
    from keras import layers

    image = free_image()
    x = conv(image, 16)
    y = layers.Conv2D(32, 3, padding="same", groups=4)(conv(x, 32, 1))
    y = layers.GroupNormalization(8)(y)
    return scores(image, layers.Add()([x, conv(y, 16, 1)]))


def group_normed():
    from keras import layers

    image = free_image()
    x = layers.GroupNormalization(4)(layers.Conv2D(16, 3, padding="same")(image))
    x = layers.GroupNormalization(-1)(layers.Conv2D(8, 3, padding="same", activation="gelu")(x))
    return scores(image, x)


def shuffled():
    """ShuffleNet's unit: halves, one of them worked on, and the channels of both mixed."""
    from keras import layers, ops

    image = fixed_image()
    x = conv(image, 16)
    kept, worked = ops.split(x, 2, axis=-1)
    worked = conv(layers.DepthwiseConv2D(3, padding="same")(conv(worked, 16, 1)), 8, 1)
    x = layers.Reshape((16, 16, 2, 8))(layers.Concatenate()([kept, worked]))
    x = layers.Reshape((16, 16, 16))(layers.Permute((1, 2, 4, 3))(x))
    return scores(image, conv(x, 8))


def split():
    """A split whose parts meet again in order, as in CSP blocks."""
    from keras import layers, ops

    image = free_image()
    kept, worked = ops.split(conv(image, 16), [8], axis=-1)
    return scores(image, conv(layers.Concatenate()([worked, conv(worked, 8), kept]), 16))


def sliced():
    from keras import layers, ops

    image = free_image()
    x = conv(image, 16)
    x = layers.Concatenate()([x[..., :8], conv(x[:, :, :, 8:], 8, 1), x])[:, 1:, ::2]
    x = layers.PReLU(shared_axes=[1, 2])(layers.SeparableConv2D(16, 3, depth_multiplier=2)(x))
    x = layers.LeakyReLU()(layers.Conv2DTranspose(8, 2, 2)(x)) * 0.5 + 1.0
    return scores(image, ops.mean(x, axis=(1, 2)))


def sliced_alike():
    """Slices of one size along other axes than the channels, put together again."""
    from keras import layers

    image = fixed_image()
    x = conv(image, 16)
    x = layers.Concatenate(axis=1)([x[:, :8], x[:, 8:, :]])
    return scores(image, layers.Concatenate()([x[..., :8], conv(x[:, :, :, 8:], 8, 1)]))


def attention():
    from keras import layers

    image = fixed_image()
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 4, 4)(image))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return scores(image, layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))


def shared():
    """A layer that is called three times, once on another tensor."""
    from keras import layers

    image = free_image()
    again = layers.Conv2D(16, 3, padding="same", activation="relu")
    x = conv(image, 16)
    return scores(image, again(again(x) + again(conv(x, 16))))


def imported():
    """What an import of ONNX adds: weights that are tensors, and Regroup."""
    from keras import layers

    from boardfit.converters.ingest.own_layers import Constant, CornerResize, Regroup

    image = free_image()
    x = conv(image, 16)
    x = layers.Add()([x, Constant((1, 1, 16))(image)])
    x = CornerResize(scale=(2, 2))(x)
    x = Regroup([{"of": 0, "axes": [1, 2], "over": 1}, 16])(x)
    return scores(image, layers.GlobalAveragePooling1D()(layers.Dense(8)(x)))


def answers_twice():
    import keras
    from keras import layers

    image = free_image()
    x = conv(conv(image, 16), 8)
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, [layers.Dense(4, activation="softmax")(pooled), layers.Conv2D(2, 1)(x)])


NETS = {
    function.__name__: function
    for function in (
        plain, grown, flattened, flattened_channels_first, residual, concatenated, squeeze_excite, mobile,
        grouped, group_normed, shuffled, split, sliced, sliced_alike, attention, shared, imported,
        answers_twice,
    )
}  # fmt: skip


def model_of(name: str, *, activation: str = "logits") -> TrainedModel:
    """Return a source model of one of NETS, its weights scrambled."""
    from boardfit.converters.ingest.reference import keras_reference
    from boardfit.converters.model import TrainedModel
    from boardfit.specs import ImageSpec, TensorSpec

    net = scramble(NETS[name]())
    return TrainedModel(
        name=name,
        net=net,
        outputs=tuple(TensorSpec("scores", tuple(item.shape), activation=activation) for item in net.outputs),
        image=ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3),
        reference=keras_reference(net),
    )


def widths(model: TrainedModel) -> list[int]:
    """Return how many channels each convolution has."""
    return [layer.filters for layer in model.net.layers if hasattr(layer, "filters")]


def macs(model: TrainedModel) -> int:
    """Return the multiplications of one image of SIDE pixels."""
    from boardfit.converters.ingest.survey import layer_rows

    return sum(row.macs for row in layer_rows(model.net, SIDE))
