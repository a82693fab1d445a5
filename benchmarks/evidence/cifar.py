"""CIFAR-10 and the nets that the training scripts use; decoded once into a work folder."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from photos import data_folder

from boardfit.converters.compress.images import ImageSet
from boardfit.specs import ImageSpec

IMAGE = ImageSpec(crop=1.0, mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7))
"""Mean and deviation of the training images."""
HELD_OUT = 500
"""The last training images of each class, on which no net is trained: policies are fitted on them."""


def cifar(work: Path) -> dict[str, ImageSet]:
    """Return the images as RGB: ``train`` (45,000), ``held`` (5,000), ``test`` (5,000), labelled."""
    path = work / "cifar10.npz"
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{f"{name}_{k}": v for name in ("train", "test") for k, v in _read(name).items()})
    with np.load(path) as arrays:
        pixels, labels = arrays["train_pixels"], arrays["train_labels"]
        test = ImageSet(pixels=arrays["test_pixels"], labels=arrays["test_labels"])
    held = np.zeros(len(labels), bool)
    for label in range(10):
        held[np.flatnonzero(labels == label)[-HELD_OUT:]] = True
    return {
        "train": ImageSet(pixels=pixels[~held], labels=labels[~held]),
        "held": ImageSet(pixels=pixels[held], labels=labels[held]),
        "test": test,
    }


def resnet20(width: int = 16, blocks: int = 3) -> Any:
    """Return He et al.'s CIFAR ResNet (https://arxiv.org/abs/1512.03385), 1x1 convolutions as shortcuts.

    With the defaults 0.27 million parameters and 41 million multiply-accumulates at 32 pixels.
    """
    import keras
    from keras import layers

    def normed(x: Any, filters: int, *, side: int = 3, stride: int = 1) -> Any:
        x = layers.Conv2D(
            filters, side, stride, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        return layers.BatchNormalization(momentum=0.95)(x)

    image = keras.Input((None, None, 3), name="image")
    x = layers.ReLU()(normed(image, width))
    for stage in range(3):
        filters = width << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(normed(x, filters, stride=stride))
            y = normed(y, filters)
            short = normed(x, filters, side=1, stride=2) if stride == 2 else x
            x = layers.ReLU()(layers.Add()([y, short]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="scores")(x), name=f"resnet{6 * blocks + 2}")


def recorded(path: Path, name: str) -> dict[str, Any] | None:
    """Return the last record of that name in a file of JSON lines, or None."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return next((row for row in reversed(rows) if row["name"] == name), None)


def record(path: Path, row: dict[str, Any]) -> None:
    """Append a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _read(name: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(data_folder() / "cifar10" / f"{name}.zip") as archive:
        names = sorted(item for item in archive.namelist() if item.endswith(".jpg"))
        classes = sorted({item.split("/")[-2] for item in names})
        decoded = [
            cv2.imdecode(np.frombuffer(archive.read(item), np.uint8), cv2.IMREAD_COLOR) for item in names
        ]
    labels = np.array([classes.index(item.split("/")[-2]) for item in names], np.int32)
    return {"pixels": np.stack(decoded)[..., ::-1], "labels": labels}
