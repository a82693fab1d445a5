"""TrainedModel: what every source becomes, and what every compress stage and target takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from boardfit.converters.ranges import TrainedRanges
from boardfit.errors import UnsupportedSize
from boardfit.specs import ImageSpec, TensorSpec


class Reference(Protocol):
    """The source in its own framework."""

    def __call__(self, images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        """Return the outputs in order, float32, N rows each.

        Args:
            images: (N, S, S, 3) float32.
            further: N rows of each further input, in the order of ``TrainedModel.further``; of an image
                (N, S, S, 3) float32.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What an ingest module is asked for.

    Attributes:
        source: Path of a model file, or ``package.module:factory`` for PyTorch.
        sizes: Input sides in pixels, ascending, that the bundle will serve.
        image: How a frame becomes the input tensor.
        labels: Class names in the order of the output; empty where none are known.
        assume_same_padding: Take padding that equals "same" at the source's own size for "same" at
            every size.
        task: What the net is for, one of ``boardfit.specs.TASKS``.
    """

    source: str
    sizes: tuple[int, ...]
    image: ImageSpec
    labels: tuple[str, ...] = ()
    assume_same_padding: bool = False
    task: str = "classify"


@dataclass(frozen=True, slots=True, eq=False)
class Untouched:
    """A source that is packed as it is.

    Attributes:
        format: ``onnx`` or ``tflite``.
        data: The file, all weights inside.
        image: Its input.
        outputs: Its outputs.
        further: Its inputs besides the image, under its own names.
    """

    format: str
    data: bytes
    image: TensorSpec
    outputs: tuple[TensorSpec, ...]
    further: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A Keras 3 functional model with all that is known of it.

    Attributes:
        name: Short name, from the source.
        net: keras.Model of real layers: one float32 input (N, H, W, 3), H and W None unless
            ``fixed_size`` is set, and behind it those of ``further``; outputs in the order of ``outputs``.
            None with ``untouched``.
        outputs: Name, shape and activation of each output.
        image: How a frame becomes the input tensor.
        labels: Class names; as many as the first output has columns, or empty.
        reference: The source in its own framework.
        fixed_size: The one input side in pixels that the net can take, or None for any.
        fixed_by: The node or layer that binds the size, where there is one.
        nets_by_size: One net per input side in pixels, where they differ; None where ``net`` serves all.
        task: What the net is for, one of ``boardfit.specs.TASKS``.
        notes: Sentences for the report: what was assumed, what was left out.
        untouched: The source's own file, where it is passed through.
        further: What the net takes besides the image: names of letters, digits and underscores, shapes with
            the batch first; ``NHWC`` for a second image of the same side. Where ``dtype`` is no float, the
            source wants whole numbers; the net takes them as float32.
        ranges: Of the activations of ``net``, which was trained in simulated int8; None of any other.
    """

    name: str
    net: Any
    outputs: tuple[TensorSpec, ...]
    image: ImageSpec
    reference: Reference
    labels: tuple[str, ...] = ()
    fixed_size: int | None = None
    fixed_by: str = ""
    nets_by_size: Mapping[int, Any] | None = None
    task: str = "classify"
    notes: tuple[str, ...] = ()
    untouched: Untouched | None = None
    further: tuple[TensorSpec, ...] = ()
    ranges: TrainedRanges | None = None

    def at(self, size: int) -> TrainedModel:
        """Return the model as it serves one size; the same object where all sizes share one net."""
        return self if self.nets_by_size is None else _at(self, size)

    def require_sizes(self, sizes: Sequence[int]) -> None:
        """Raise UnsupportedSize if the net cannot take one of these sides."""
        wrong = [size for size in sizes if self.fixed_size is not None and size != self.fixed_size]
        if wrong:
            raise UnsupportedSize(
                f"{self.name} takes {self.fixed_size} pixels only, not "
                f"{', '.join(map(str, wrong))}: {self.fixed_by} binds the size. "
                f"Build with --sizes {self.fixed_size}, or bring the source in a form that is free of size."
            )


@lru_cache(maxsize=8)
def _at(model: TrainedModel, size: int) -> TrainedModel:
    """Return the model of one size; the same object each time, which exporters cache by."""
    assert model.nets_by_size is not None
    return replace(model, net=model.nets_by_size[size], nets_by_size=None)
