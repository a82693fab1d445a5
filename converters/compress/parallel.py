"""Training on several devices of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from boardfit.errors import CompressError


@contextmanager
def data_parallel(devices: int, *, batch: int) -> Iterator[None]:
    """Spread every batch over devices while models are made and trained; weights are the same on each.

    Args:
        devices: How many; 1 for what Keras does by itself.
        batch: Images in a step.

    Raises:
        CompressError: The backend cannot, there are fewer devices, or they cannot share a batch equally.
    """
    if devices == 1:
        yield
        return
    backend = keras.backend.backend()
    if backend != "jax":
        raise CompressError(
            f"Keras spreads batches over devices on JAX, not on {backend}: set KERAS_BACKEND=jax, or train "
            "on one device"
        )
    found = keras.distribution.list_devices()
    if len(found) < devices or batch % devices:
        raise CompressError(
            f"a batch of {batch} cannot be shared equally by {devices} devices of {len(found)}: expected as "
            "many devices, and a batch that they divide"
        )
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:devices]))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
