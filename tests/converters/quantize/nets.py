"""Tiny Keras nets for surgery."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

SIZE = 12


def images(count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, (count, SIZE, SIZE, 3)).astype(np.float32)


def small_net(activation: str = "relu", *, gate: bool = False) -> keras.Model:
    """Convolutions, a depthwise one and a residual sum, with batch norms that have been somewhere."""
    keras.utils.set_random_seed(1)

    def normed(x):
        return layers.BatchNormalization()(x)

    image = keras.Input((None, None, 3), name="image")
    x = layers.Activation(activation)(normed(layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(image)))
    y = layers.Activation(activation)(normed(layers.Conv2D(16, 1, use_bias=False)(x)))
    y = layers.Activation(activation)(normed(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    if gate:
        g = layers.GlobalAveragePooling2D(keepdims=True)(y)
        y = layers.Multiply()([y, layers.Conv2D(16, 1, activation="sigmoid")(g)])
    stream = normed(layers.Conv2D(8, 1, use_bias=False)(y))
    y = layers.Activation(activation)(normed(layers.Conv2D(16, 1, use_bias=False)(stream)))
    stream = layers.Add()([stream, normed(layers.Conv2D(8, 1, use_bias=False)(y))])
    x = layers.Conv2D(12, 1, activation=activation)(stream)
    x = layers.GlobalAveragePooling2D()(x)
    net = keras.Model(image, layers.Dense(6, name="scores")(x))
    settle(net)
    return net


def settle(net: keras.Model) -> None:
    """Give every batch norm statistics and scales of its own."""
    rng = np.random.default_rng(2)
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            values = (
                rng.uniform(0.5, 1.5, size),
                rng.normal(0.0, 0.3, size),
                rng.normal(0.0, 0.3, size),
                rng.uniform(0.3, 1.0, size),
            )
            layer.set_weights([np.asarray(value, np.float32) for value in values])


def badly_scaled(net: keras.Model, spread: float = 2.0) -> None:
    """Spread the channels' scales of a folded net by factors that leave its answers alone."""
    from boardfit.converters.quantize.channels import groups_of
    from boardfit.converters.quantize.equalize import apply_scale
    from boardfit.converters.quantize.graph import graph_of

    rng = np.random.default_rng(3)
    for group in groups_of(graph_of(net)):
        apply_scale(group, np.exp(rng.normal(0.0, spread, group.channels)))


def answers(net: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(net(inputs, training=False))
