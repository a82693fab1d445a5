"""Keras nets as references: what the compress stages and the targets are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from boardfit.converters.ingest.check import flat_arrays
from boardfit.converters.model import Reference
from boardfit.errors import UnsupportedModel

_BATCH = 32


def keras_reference(model: Any, *, once: bool = False) -> Reference:
    """Return a Keras model as a function of images, in batches that fit into memory.

    Args:
        model: keras.Model, one image input among its inputs; it must not be trained any more.
        once: Whether it is asked for one image only: making a graph of it then costs more than it saves.

    Returns:
        (N, S, S, 3) float32 -> float32 arrays of N rows, in the order of the outputs. It raises
        UnsupportedModel where Keras fails.
    """
    run = _traced(model, once=once)
    place = frame_place(model)

    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        feeds = [*further[:place], images, *further[place:]]
        try:
            parts = [
                flat_arrays(run([feed[start : start + _BATCH] for feed in feeds]))
                for start in range(0, len(images), _BATCH)
            ]
        except Exception as error:  # Keras raises whatever the layer and its backend raise
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedModel(
                f"Keras cannot run {model.name} at {images.shape[1]} pixels ({reason}). "
                "Run it in Keras itself, mend it, and save it again."
            ) from error
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    return reference


def frame_place(model: Any) -> int:
    """Return which of a Keras model's inputs is the frame: the first (N, H, W, 3); 0 where none is.

    Args:
        model: keras.Model.
    """
    places = (place for place, item in enumerate(model.inputs or []) if is_image(item.shape))
    return next(places, 0)


def is_image(shape: Sequence[int | None]) -> bool:
    """Return whether a tensor's shape is that of a colour image: (N, H, W, 3)."""
    return len(shape) == 4 and shape[3] == 3


def _traced(model: Any, *, once: bool) -> Callable[[list[np.ndarray]], Any]:
    """Return a model's call as a graph where TensorFlow runs it: layer by layer took five times as long."""
    import keras

    def call(feeds: list[Any]) -> Any:
        if len(feeds) == 1:
            return model(feeds[0], training=False)
        # Some models take their inputs as a dict.
        return model(keras.tree.pack_sequence_as(model._inputs_struct, feeds), training=False)

    if once or keras.backend.backend() != "tensorflow":
        return call
    import tensorflow as tf

    traced: Callable[[list[np.ndarray]], Any] = tf.function(call, autograph=False)
    return traced


def kept_reference(net: Any) -> Reference:
    """Return a net as it is now as a reference: a copy that is made when it is first asked for.

    Args:
        net: keras.Model, functional; it may be trained afterwards.
    """
    config, weights = net.get_config(), net.get_weights()
    made: list[Reference] = []

    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        if not made:
            copy = type(net).from_config(config)
            copy.set_weights(weights)
            made.append(keras_reference(copy))
        return made[0](images, further)

    return reference


def frozen_copy(net: Any) -> Any:
    """Return a copy of a net with weights of its own, which training the net does not touch.

    Args:
        net: keras.Model, functional.
    """
    import keras

    copy = keras.models.clone_model(net)
    copy.set_weights(net.get_weights())
    return copy
