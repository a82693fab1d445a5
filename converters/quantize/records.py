"""What a format's quantizer and the flow around it say to each other.

The quantizer of a format is a module ``boardfit.converters.targets.<format>_int8`` with::

    SCHEMES: tuple[str, ...]    # the precisions that it makes, among specs.QUANTIZED
    def layers(exported: Exported) -> tuple[Layer, ...]
    def open_probe(exported: Exported, *, threads: int = 1) -> Probe
    def quantize(exported: Exported, *, ranges: Mapping[str, Range],
                 keep_float: frozenset[str] = frozenset(), scheme: str = "int8") -> Exported

``quantize`` takes the fp32 artifact of one size and returns the quantized one, whose inputs and outputs
stay float32. Ranges are keyed by tensor name, as the probe of the fp32 artifact names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Probe(Protocol):
    """An artifact whose inner tensors can be read."""

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run once and return every inner tensor.

        Args:
            image: (1, S, S, 3) float32, as the net takes it.

        Returns:
            float32 values by the format's own tensor name, outputs included; dequantized where the
            artifact computes in integers.
        """
        ...

    def close(self) -> None:
        """Free what the probe holds. Twice does no harm."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that holds weights and can run in int8.

    Attributes:
        name: The format's own name, the same in the float and in the int8 artifact.
        kind: ``conv``, ``depthwise``, ``dense`` and the like.
        macs: Multiplications with addition for one image.
        weights: Number of weight values, without the bias.
        inputs: Names of the activation tensors that it reads.
        output: Name of the tensor that it writes, behind a fused activation where the format fuses.
        integer: Whether this artifact runs it in integers.
    """

    name: str
    kind: str
    macs: int
    weights: int
    inputs: tuple[str, ...]
    output: str
    integer: bool
