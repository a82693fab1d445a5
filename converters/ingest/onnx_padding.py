"""What padding means: read from the evidence of all sizes, never guessed from one.

An ONNX file writes the padding of its own input size. Whether "1 before, 2 after" is a rule ("same",
as TensorFlow computes it) or a number shows only where another input size disagrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from boardfit.converters.ingest.onnx_records import ASSUMED, FIXED, SYMBOLIC

Pads = tuple[int, int, int, int]


class PaddingUnclear(ValueError):
    """The sizes contradict each other: neither "same" nor one explicit padding fits all of them."""


class PaddingAmbiguous(ValueError):
    """One size only, whose padding is "same" there but could be a number as well."""


@dataclass(frozen=True, slots=True)
class Window:
    """One convolution or pooling at one input size.

    Attributes:
        extent: Height and width of its input.
        kernel: Height and width of the kernel.
        strides: Vertical and horizontal.
        dilations: Vertical and horizontal.
        pads: Top, left, bottom, right (the order of ONNX).
        rule: ONNX ``auto_pad`` where it is a rule: ``SAME_UPPER``; else empty.
    """

    extent: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Padding:
    """The decision: Keras' ``padding`` and what to pad before it.

    Attributes:
        mode: ``valid`` or ``same``.
        explicit: Top, left, bottom, right to pad first; zeros where there is nothing to do.
    """

    mode: str
    explicit: Pads = (0, 0, 0, 0)


def same_pads(window: Window, *, lower: bool = False, shift: int = 0) -> Pads:
    """Return the padding that "same" means for a window.

    Args:
        window: The operation and its input.
        lower: Put the odd pixel before (ONNX ``SAME_LOWER``), not after as TensorFlow and Keras do.
        shift: Pixels to add to both sides of the input, to ask about another size.
    """
    befores, afters = [], []
    for axis in (0, 1):
        extent, stride = window.extent[axis] + shift, window.strides[axis]
        reach = (window.kernel[axis] - 1) * window.dilations[axis] + 1
        total = max((math.ceil(extent / stride) - 1) * stride + reach - extent, 0)
        before = total - total // 2 if lower else total // 2
        befores.append(before)
        afters.append(total - before)
    return (befores[0], befores[1], afters[0], afters[1])


def decide_padding(windows: Sequence[Window], *, reading: str, own: int = 0) -> Padding:
    """Decide between "same" and explicit padding.

    Args:
        windows: The operation at each size.
        reading: ``symbolic``: explicit is meant. ``exports``: one export per size, evidence decides.
            ``fixed``: the source was made for one size and the others are hypothetical. ``assumed``:
            what can be "same" is "same". ``bound``: one size and no other will ever come.
        own: Index of the source's own size, for ``fixed``.

    Raises:
        PaddingAmbiguous: ``fixed``, and another size would tell "same" from explicit.
        PaddingUnclear: No one rule gives the padding of every size.
    """
    if all(window.rule == "SAME_UPPER" for window in windows):
        return Padding("same")
    if reading == FIXED and _ambiguous(windows, own):
        raise PaddingAmbiguous
    if reading == ASSUMED and all(_strided(w) and w.pads == same_pads(w) for w in windows):
        return Padding("same")
    first = windows[0].pads
    if all(window.pads == first for window in windows):
        return _explicit(windows, prefer_explicit=reading in (SYMBOLIC, FIXED))
    if all(window.pads == same_pads(window) for window in windows):
        return Padding("same")
    raise PaddingUnclear(f"the padding at the sizes is {sorted({w.pads for w in windows})}")


def _explicit(windows: Sequence[Window], *, prefer_explicit: bool) -> Padding:
    """One number of pixels at every size: write it in the form that needs the fewest layers."""
    pads = windows[0].pads
    if not any(pads):
        return Padding("valid")
    # With stride 1 "same" does not depend on the size, unless the input is smaller than the kernel.
    free = not _strided(windows[0])
    if (free or not prefer_explicit) and all(pads == same_pads(window) for window in windows):
        return Padding("same")
    return Padding("valid", pads)


def _ambiguous(windows: Sequence[Window], own: int) -> bool:
    mine = windows[own]
    if not _strided(mine) or mine.pads != same_pads(mine):
        return False
    others = [window for index, window in enumerate(windows) if index != own]
    if others:
        return any(same_pads(window) != window.pads for window in others)
    return any(same_pads(mine, shift=shift) != mine.pads for shift in range(1, max(mine.strides)))


def _strided(window: Window) -> bool:
    return max(window.strides) > 1
