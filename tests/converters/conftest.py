"""Small nets and pictures made by code, for the converters' tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from boardfit.converters.model import TrainedModel
from boardfit.specs import ImageSpec, TensorSpec

CLASSES = 7


def make_net(seed: int = 3, *, flatten_size: int | None = None):
    """A net with every trap of the family: strided same padding, depthwise 5x5, residual, batch norm."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(seed)
    image = keras.Input((flatten_size, flatten_size, 3), name="image")

    def norm(x):
        layer = layers.BatchNormalization()
        y = layer(x)
        rng = np.random.default_rng(seed)
        gamma, beta, mean, variance = layer.get_weights()
        layer.set_weights(
            [
                rng.uniform(0.5, 1.5, gamma.shape),
                rng.normal(0, 0.1, beta.shape),
                rng.normal(0, 0.1, mean.shape),
                rng.uniform(0.5, 1.5, variance.shape),
            ]
        )
        return y

    x = layers.ReLU(6.0)(norm(layers.Conv2D(16, 3, 2, "same", use_bias=False)(image)))
    y = layers.ReLU(6.0)(norm(layers.DepthwiseConv2D(5, 1, "same", use_bias=False)(x)))
    x = layers.Add()([x, norm(layers.Conv2D(16, 1, use_bias=False)(y))])
    x = layers.ReLU(6.0)(norm(layers.DepthwiseConv2D(5, 2, "same", use_bias=False)(x)))
    x = layers.ReLU()(norm(layers.Conv2D(32, 1, use_bias=False)(x)))
    x = layers.Flatten()(x) if flatten_size else layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES, name="logits")(x), name="tiny")


@pytest.fixture(scope="session")
def tiny_net():
    return make_net()


@pytest.fixture(scope="session")
def tiny_model(tiny_net) -> TrainedModel:
    return TrainedModel(
        name="tiny",
        net=tiny_net,
        outputs=(TensorSpec(name="logits", shape=(None, CLASSES), activation="logits"),),
        image=ImageSpec(),
        reference=lambda x: [np.asarray(tiny_net(x, training=False))],
    )


@pytest.fixture(scope="session")
def tiny_file(tiny_net, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    tiny_net.save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    from boardfit.converters.samples import synthetic_frame

    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        cv2.imwrite(str(folder / f"{seed}.png"), synthetic_frame(100 + seed, height=90, width=120))
    return folder


@pytest.fixture(scope="session")
def flatten_file(tmp_path_factory) -> Path:
    """A net that a Flatten binds to 28 pixels."""
    path = tmp_path_factory.mktemp("flatten") / "fixed.keras"
    make_net(flatten_size=28).save(path)
    return path
