"""Statistics of batch normalisation taken anew: after channels went, or a training too short for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import batch_norms
from boardfit.converters.compress.resize import input_tensor
from boardfit.specs import ImageSpec

BATCH = 64
ENOUGH = 512
"""So many images give a channel's mean and variance; more cost time."""
STALE = 0.01
"""Of statistics, the share from before a training with which they are taken anew."""


def share_before(net: Any, steps: int) -> float:
    """Return how much of a net's statistics is from before so many steps of training, from 0 to 1.

    Moving averages forget as slowly as their momentum says: at 0.99, Keras' own, half is left after 70 steps.

    Args:
        net: keras.Model, functional.
        steps: In which they followed the batches.
    """
    return max((float(norm.momentum) ** steps for norm in batch_norms(net)), default=0.0)


def recalibrate(net: Any, images: ImageSet, image: ImageSpec, *, side: int | None = None) -> None:
    """Replace the statistics of a net's batch normalisation by those of images; labels are not needed.

    Args:
        net: keras.Model, functional, one input; its own copy.
        images: In batches of 64; a rest of less than half a batch is left out unless it is all.
        image: How pixels become the input.
        side: At which the net sees them, in pixels; None for their own.
    """
    norms = batch_norms(net)
    if not norms:
        return
    starts = [s for s in range(0, images.count, BATCH) if not s or images.count - s >= BATCH // 2]
    with _only_norms_train(net, norms):
        for number, start in enumerate(starts):
            for norm in norms:
                # The mean of all batches so far: of the first nothing that was known before remains.
                norm.momentum = number / (number + 1)
            tensor = input_tensor(images.pixels[start : start + BATCH], image, side or images.side)
            net(tensor, training=True)


@contextmanager
def _only_norms_train(net: Any, norms: list[Any]) -> Iterator[None]:
    """Switch off what draws at random in training, and let normalisation follow the batches."""
    drawing = [(layer, name) for layer in net.layers for name in ("rate", "stddev") if _draws(layer, name)]
    before = [getattr(layer, name) for layer, name in drawing]
    kept = [(norm, norm.momentum, norm.trainable) for norm in norms]
    try:
        for layer, name in drawing:
            setattr(layer, name, 0.0)
        for norm in norms:
            norm.trainable = True
        yield
    finally:
        for (layer, name), value in zip(drawing, before, strict=True):
            setattr(layer, name, value)
        for norm, momentum, trainable in kept:
            norm.momentum, norm.trainable = momentum, trainable


def _draws(layer: Any, name: str) -> bool:
    kinds = (
        keras.layers.Dropout,
        keras.layers.GaussianDropout,
        keras.layers.GaussianNoise,
        keras.layers.AlphaDropout,
    )
    return isinstance(layer, kinds) and hasattr(layer, name)
