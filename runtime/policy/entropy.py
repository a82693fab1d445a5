"""The image's entropy chooses the size: little to see, small input."""

from __future__ import annotations

from bisect import bisect_right

from boardfit.runtime.results import Result
from boardfit.specs import PolicySpec

EVERY_FRAMES = 3
"""In a stream the entropy is taken of every third frame: it costs 1 to 3 % of a look on a large frame."""


class EntropyPolicy:
    """Below the first threshold the first size, and so on; at a threshold the larger one.

    In a stream the size changes only when the entropy has passed a threshold by ``hysteresis_bits``, so
    that a scene on a threshold does not flap; and ``needs_entropy`` is true for one frame of EVERY_FRAMES.
    """

    def __init__(self, spec: PolicySpec, stream: bool) -> None:
        self.needs_entropy = spec.needs_entropy
        self._spec = spec
        self._stream = stream
        self._index: int | None = None
        self._unseen = 0

    def first(self, bits: float | None) -> int:
        """Return the size for an image entropy; without one, the last size, or that of one grey."""
        if bits is None and self._index is not None:
            index = self._index
        else:
            index = bisect_right(self._spec.thresholds_bits, bits or 0.0)
        if self._stream:
            index = self._index = index if bits is None else self._damped(index, bits)
            self._unseen = 0 if bits is not None else self._unseen + 1
            self.needs_entropy = self._spec.needs_entropy and self._unseen + 1 >= EVERY_FRAMES
        return self._spec.sizes[index]

    def next(self, size: int, result: Result) -> int | None:  # noqa: ARG002 - every policy's signature
        """Return None: the answer stands."""
        return None

    def _damped(self, index: int, bits: float) -> int:
        if self._index is None or index == self._index:
            return index
        slack = self._spec.hysteresis_bits
        if index > self._index:
            return max(self._index, bisect_right(self._spec.thresholds_bits, bits - slack))
        return min(self._index, bisect_right(self._spec.thresholds_bits, bits + slack))
