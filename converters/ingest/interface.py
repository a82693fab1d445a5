"""What a source takes besides the frame, and under which names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from boardfit.specs import TensorSpec

FRAME = "image"
"""What the frame is called in every net that is made here."""

KINDS = ("float32", "int32", "int64", "bool")
"""Of an input besides the frame. Whole numbers are taken as float32, which holds them up to 2^24."""


@dataclass(frozen=True, slots=True)
class Further:
    """An input besides the frame, in the source and in the net.

    Attributes:
        source: Its name in the source.
        spec: As ``TrainedModel.further`` has it.
        layout: Of an image in the source: ``NHWC`` or ``NCHW``; else empty.
        shape: In the source, with a batch of one; empty for an image.
        batched: Whether the source's first axis is the batch; else it takes one image at a time.
    """

    source: str
    spec: TensorSpec
    layout: str = ""
    shape: tuple[int, ...] = ()
    batched: bool = True


def plain_names(names: Sequence[str]) -> list[str]:
    """Return names of letters, digits and underscores, none of them twice or the frame's.

    Args:
        names: In the source.
    """
    found = [FRAME]
    for name in names:
        stem = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "input"
        stem = stem if stem[0].isalpha() else f"input_{stem}"
        number, fresh = 0, stem[:200]
        while fresh in found:
            number += 1
            fresh = f"{stem[:200]}_{number}"
        found.append(fresh)
    return found[1:]


def inputs_note(frame: str, further: Sequence[TensorSpec]) -> tuple[str, ...]:
    """Return the sentence that says how a net of several inputs is asked; none for one of one.

    Args:
        frame: The source's name of the image.
        further: Inputs besides it.
    """
    if not further:
        return ()
    each = ", ".join(
        f"{spec.name} (an image)" if spec.layout else f"{spec.name} {tuple(spec.shape[1:])}"
        for spec in further
    )
    return (f"the frame is the source's input {frame!r}; given by name besides it: {each}",)
