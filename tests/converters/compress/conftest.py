"""Small nets and image sets for the compress stages."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys

import numpy as np
import pytest

from boardfit.converters.compress.elastic_net import ElasticNet, ElasticOptions
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import view
from boardfit.converters.compress.train import Training
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.specs import ImageSpec, TensorSpec

CLASSES = 4
LONGEST_S = 300
"""Of a call in the process on JAX: it takes seconds, and on a busy machine a minute."""


def build_images(count: int = 96, side: int = 16, *, labelled: bool = True, seed: int = 0) -> ImageSet:
    """Stripes across, stripes down, squares, or noise alone: a small net learns them in a few steps."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    pixels = rng.integers(0, 180, (count, side, side, 3))
    rows, columns = np.indices((side, side))[..., None] // 2 % 2
    patterns = rows, columns, rows ^ columns, np.zeros_like(rows)
    for image, label in zip(pixels, labels, strict=True):
        image += 75 * patterns[label]
    return ImageSet(pixels=pixels.astype(np.uint8), labels=labels if labelled else None)


def build_net(
    *,
    norm: bool = True,
    seed: int = 1,
    softmax: bool = False,
    widths: tuple[int, int] = (8, 16),
    classes: int = CLASSES,
    dropout: float = 0.0,
):
    import keras
    from keras import layers

    image = x = keras.Input((None, None, 3), name="image")
    for filters, stride in zip(widths, (1, 2), strict=True):
        x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=not norm)(x)
        x = layers.BatchNormalization(momentum=0.8)(x) if norm else x
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x) if dropout else x
    scores = layers.Dense(classes, activation="softmax" if softmax else None, name="scores")(x)
    net = keras.Model(image, scores, name="small")
    # Numpy's chance: initial weights are the same on every Keras backend.
    rng = np.random.default_rng(seed)
    for weight in net.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(0.0, np.sqrt(2.0 / np.prod(weight.shape[:-1])), weight.shape))
    return net


def build_source(*, activation: str = "logits", **options) -> TrainedModel:
    net = build_net(softmax=activation == "softmax", **options)
    return TrainedModel(
        name="small",
        net=net,
        outputs=(TensorSpec(name="scores", shape=(None, net.outputs[0].shape[-1]), activation=activation),),
        image=ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3),
        reference=keras_reference(net),
    )


def build_model(**options) -> ElasticNet:
    """One size alone: what the training loop is tried on."""
    return ElasticNet(
        {16: view(build_net(**options))},
        image=ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3),
        activation="logits",
        options=ElasticOptions(),
        labelled=True,
        batch=16,
    )


def build_settings(**options) -> Training:
    return Training(**{"epochs": 3, "batch": 16, "learning_rate": 0.05, "seed": 7, **options})


CHILD = """
import contextlib, json, runpy, sys, traceback
for line in sys.stdin:
    path, name, given = json.loads(line)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = {"found": runpy.run_path(path)[name](**given)}
    except Exception:
        found = {"error": traceback.format_exc()}
    print(json.dumps(found), flush=True)
"""


class OnJax:
    """A process whose Keras runs on JAX, on two virtual devices; it calls functions of test files by name."""

    def __init__(self) -> None:
        flags = "--xla_force_host_platform_device_count=2"
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )

    def begin(self, path: str, name: str, **given) -> None:
        """Begin a call; arguments and result are JSON values."""
        print(json.dumps([path, name, given]), file=self.child.stdin, flush=True)

    def end(self):
        """Return the result of the call that was begun."""
        if not select.select([self.child.stdout], [], [], LONGEST_S)[0]:
            self.child.kill()
            pytest.fail(f"the process on JAX has not answered for {LONGEST_S} s")
        answer = json.loads(self.child.stdout.readline() or '{"error": "the child has ended"}')
        assert "error" not in answer, answer["error"]
        return answer["found"]


@pytest.fixture(scope="session")
def on_jax():
    """One process for all tests that compare with JAX: to start it takes as long as what they ask."""
    pytest.importorskip("jax")
    asked = OnJax()
    yield asked
    asked.child.stdin.close()
    asked.child.wait(timeout=60)


@pytest.fixture
def make_images():
    return build_images


@pytest.fixture
def make_net():
    return build_net


@pytest.fixture
def make_source():
    """Return a function that makes a source model."""
    return build_source


@pytest.fixture
def make_model():
    return build_model


@pytest.fixture
def settings():
    return build_settings


@pytest.fixture
def images() -> ImageSet:
    return build_images()
