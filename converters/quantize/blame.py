"""Which layers are to blame: the noise that each tensor carries, read from the artifacts themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boardfit.converters.quantize.bench import Quantizer
from boardfit.converters.quantize.quality import decibels, noise_to_signal, sums_by_tensor
from boardfit.converters.targets import Exported

IMAGES = 8


@dataclass(frozen=True, slots=True)
class Blame:
    """The signal-to-quantisation-noise ratio behind one layer.

    Attributes:
        layer: The format's own name of it.
        kind: ``conv``, ``depthwise``, ``dense`` and the like.
        macs: Multiplications for one image.
        integer: Whether it runs in integers.
        sqnr_db: Of its output against the float artifact's, over some images, in dB.
        added: Noise over signal at its output minus the largest such share among its inputs: what this
            layer adds. Negative where it swallows noise.
    """

    layer: str
    kind: str
    macs: int
    integer: bool
    sqnr_db: float
    added: float

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, rounded."""
        return {**asdict(self), "sqnr_db": round(self.sqnr_db, 2), "added": float(f"{self.added:.3g}")}


def blame(quantizer: Quantizer, quantized: Exported, twin: Exported, images: np.ndarray) -> tuple[Blame, ...]:
    """Compare the tensors of a quantized artifact with those of its float one.

    Args:
        quantizer: Of their format.
        quantized: The artifact to blame.
        twin: The fp32 artifact that it was made from.
        images: (N, S, S, 3) float32.

    Returns:
        One record per layer, in the format's order; a layer whose output has no counterpart is left out.
    """
    probes = quantizer.open_probe(quantized), quantizer.open_probe(twin)
    try:
        runs = ((probes[0].run(image[None]), probes[1].run(image[None])) for image in images)
        sums = sums_by_tensor(runs)
    finally:
        for probe in probes:
            probe.close()
    share = {name: noise_to_signal(*both) for name, both in sums.items()}
    return tuple(
        Blame(
            layer=layer.name,
            kind=layer.kind,
            macs=layer.macs,
            integer=layer.integer,
            sqnr_db=decibels(*sums[layer.output]),
            added=share[layer.output] - max((share.get(name, 0.0) for name in layer.inputs), default=0.0),
        )
        for layer in quantizer.layers(quantized)
        if layer.output in sums
    )


def worst_first(rows: Sequence[Blame]) -> list[Blame]:
    """Return the layers that run in integers, those that add the most noise first."""
    return sorted((row for row in rows if row.integer), key=lambda row: -row.added)
