"""Magnitude sparsity: single weights become 0. No engine here gets faster by it, no file smaller.

What gets smaller is a compressed copy of the file, in a store of models or on the way to a board.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boardfit.converters.compress.nets import trainable_copy
from boardfit.converters.compress.stage import StageResult
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.errors import CompressError


@dataclass(frozen=True, slots=True, eq=False)
class Sparsify:
    """The stage: the kernels' smallest weights become 0.

    Attributes:
        share: Of all kernels' weights, above 0, below 1.
    """

    share: float

    @property
    def name(self) -> str:
        """Name of the stage."""
        return "sparsify"

    def requires(self, model: TrainedModel) -> None:
        """Raise CompressError unless there are kernels, and a share of them is asked for."""
        if not 0.0 < self.share < 1.0:
            raise CompressError(f"prune.sparsity is {self.share:g}: expected above 0, below 1")
        if model.untouched is not None:
            raise CompressError(f"{model.name} is packed as it is: there is no net of it to change")
        if model.nets_by_size is not None:
            raise CompressError(f"{model.name} has a net of its own at each size: make it sparse before")
        if not _kernels(model.net):
            raise CompressError(f"{model.name} has no kernels whose weights could become 0")

    def __call__(self, model: TrainedModel) -> StageResult:
        """Return the model with zeros in its kernels."""
        net = trainable_copy(model.net)
        kernels = _kernels(net)
        arrays = [np.array(kernel) for kernel in kernels]
        scores = np.concatenate([lamp_scores(array) for array in arrays])
        order = np.argsort(scores, kind="stable")
        zeros = np.zeros(len(scores), bool)
        zeros[order[: round(self.share * len(scores))]] = True
        ends = np.cumsum([array.size for array in arrays])[:-1]
        for kernel, array, gone in zip(kernels, arrays, np.split(zeros, ends), strict=True):
            array.reshape(-1)[gone] = 0.0
            kernel.assign(array)
        before, after = (_packed(each) for each in (model.net, net))
        net.trainable = False
        note = (
            f"sparsify: {100.0 * zeros.mean():.0f} % of the kernels' weights are 0; files stay as large and "
            f"engines as slow as before, but the weights compressed by zlib take {after / 1e6:.2f} in place "
            f"of {before / 1e6:.2f} MB"
        )
        return StageResult(model=replace(model, net=net, reference=keras_reference(net)), notes=(note,))

    def ensures(self, before: TrainedModel, after: TrainedModel) -> None:
        """Raise CompressError unless the net is as it was but for its zeros, of which there are enough."""
        shapes = [[tuple(item.shape) for item in model.net.outputs] for model in (before, after)]
        if shapes[0] != shapes[1]:
            raise CompressError(f"the sparse net answers {shapes[1]}, not {shapes[0]}")
        if not all(np.isfinite(weight).all() for weight in after.net.get_weights()):
            raise CompressError("the sparse net has weights that are not finite")
        pairs = zip(before.net.get_weights(), after.net.get_weights(), strict=True)
        if any(not np.all((b == a) | (b == 0.0)) for a, b in pairs):
            raise CompressError("the sparse net has other weights than those of before, or 0")
        kernels = [np.array(kernel) for kernel in _kernels(after.net)]
        zeros = sum(int((kernel == 0.0).sum()) for kernel in kernels)
        if zeros < round(self.share * sum(kernel.size for kernel in kernels)):
            raise CompressError(f"the sparse net has {zeros} zeros only")


def lamp_scores(kernel: np.ndarray) -> np.ndarray:
    """Return the squares of weights over the sum of those of the same kernel that are no smaller.

    By this score layers of all sizes are compared without one of them being emptied: Lee et al. 2021,
    https://arxiv.org/abs/2010.07611. The largest weight of each has 1.

    Args:
        kernel: Of any shape.

    Returns:
        (size,) float64, in the order of the flat kernel.
    """
    squares = kernel.reshape(-1).astype(np.float64) ** 2
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.maximum(rest, 1e-300)
    return scores


def _kernels(net: Any) -> list[Any]:
    """Return the weights of two axes or more: biases and normalisation are few, and needed."""
    return [weight for weight in net.trainable_weights + net.non_trainable_weights if len(weight.shape) > 1]


def _packed(net: Any) -> int:
    return len(
        zlib.compress(b"".join(np.asarray(weight, "<f4").tobytes() for weight in net.get_weights()), 6)
    )
