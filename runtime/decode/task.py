"""What a bundle's task makes of an engine's arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boardfit.runtime.decode.classify import decode_classes
from boardfit.runtime.results import Classes
from boardfit.specs import Artifact


def decode(task: str, output: np.ndarray, artifact: Artifact) -> Classes:
    """Make the scores of one image; of no class where the task is not ``classify``.

    Args:
        task: Of the bundle.
        output: The first output, float32.
        artifact: What made it.
    """
    if task != "classify":
        return Classes(scores=np.empty(0, np.float32), activation="none")
    return decode_classes(output, artifact.outputs[0].activation)


def output_names(artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """Return the model's names of its outputs, which all formats but TFLite keep.

    Args:
        artifacts: Of one bundle.
    """
    best = min(artifacts, key=lambda artifact: artifact.format == "tflite")
    return tuple(spec.name for spec in best.outputs)
