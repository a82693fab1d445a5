"""What a quantized artifact answers to the bundle's golden frame: its own answer, not the source's."""

from __future__ import annotations

import base64

import numpy as np

from boardfit.converters.quantize.bench import Run
from boardfit.converters.samples import GOLDEN_SEED, synthetic_frame
from boardfit.converters.targets import Exported
from boardfit.runtime.preprocess import Preprocessor
from boardfit.specs import ImageSpec


def golden_text(exported: Exported, image: ImageSpec, run: Run) -> str:
    """Run an artifact of one size on the golden frame and return its outputs as text.

    Integers round, and a made-up frame is none of the photographs that their ranges were taken from: a board
    shows that it computes rightly by giving the same answer as this machine, not the source's.

    Args:
        exported: The artifact.
        image: How a frame becomes the input tensor.
        run: Runs an artifact over images.

    Returns:
        Base64 of all outputs in a row, float32 little-endian.
    """
    tensor = Preprocessor(image, "NHWC").fit(synthetic_frame(GOLDEN_SEED), exported.artifact.sizes[0])[0]
    outputs = run(exported, tensor)
    flat = np.concatenate([output.reshape(-1) for output in outputs]).astype("<f4")
    return base64.b64encode(flat.tobytes()).decode("ascii")
