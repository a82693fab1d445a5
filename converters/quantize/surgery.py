"""What is tried on the net itself when plain quantisation lands outside the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.biases import correct_biases
from boardfit.converters.quantize.equalize import EXACT, equalize
from boardfit.converters.quantize.fold import folded
from boardfit.converters.quantize.graph import largest_difference
from boardfit.converters.quantize.rounding import round_adaptively
from boardfit.converters.quantize.simulate import simulated_error
from boardfit.errors import ExportError

CHECKED = 16


def surgeries(model: TrainedModel, images: np.ndarray) -> Mapping[str, Callable[[], TrainedModel]]:
    """Return what makes a net that quantizes better, by name in the order in which to try them.

    Each operates on the net once, however many formats ask for it.

    Args:
        model: The source; it is not changed.
        images: (N, S, S, 3) float32, to calibrate on.
    """

    @lru_cache(maxsize=1)
    def bare() -> Any:
        return folded_exactly(model.net, images)

    @lru_cache(maxsize=1)
    def level() -> Any:
        return _leveled(bare(), images)

    def better() -> Any:
        return _better((bare(), level()), images)

    def made(
        start: Callable[[], Any], finish: Callable[[Any, np.ndarray], None]
    ) -> Callable[[], TrainedModel]:
        @lru_cache(maxsize=1)
        def make() -> TrainedModel:
            net = _copy(start())
            finish(net, images)
            return replace(model, net=net, nets_by_size=None)

        return make

    return {
        "biases": made(bare, correct_biases),
        "equalize+bias": made(level, correct_biases),
        "adaptive rounding": made(better, round_adaptively),
    }


def equalized_where_better(net: Any, images: np.ndarray) -> Any:
    """Return a folded net with its channels equalised, or the net itself where int8 gains nothing by it.

    Args:
        net: keras.Model from ``fold.folded``; it is not changed.
        images: (N, S, S, 3) float32, to calibrate on.
    """
    return _better((net, _leveled(net, images)), images)


def folded_exactly(net: Any, images: np.ndarray) -> Any:
    """Fold a net and prove that it answers as before.

    Args:
        net: keras.Model.
        images: (N, S, S, 3) float32.

    Raises:
        ExportError: It does not.
    """
    found = folded(net)
    difference = largest_difference(found, net, images[:CHECKED])
    if difference > EXACT:
        raise ExportError(
            f"folding batch normalisation changed the answers of {net.name} by {difference:.1e} of the "
            f"largest, expected at most {EXACT:g}: build with rescue = false in [quantize]"
        )
    return found


def _leveled(net: Any, images: np.ndarray) -> Any:
    copy = _copy(net)
    equalize(copy, images)
    return copy


def _better(nets: Sequence[Any], images: np.ndarray) -> Any:
    """Return the net that simulated int8 harms least, the first of equals."""
    return min(nets, key=lambda net: simulated_error(net, images))


def _copy(net: Any) -> Any:
    import keras

    copy = keras.models.clone_model(net)
    copy.set_weights(net.get_weights())
    return copy
