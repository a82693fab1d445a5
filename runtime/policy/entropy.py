"""The image's entropy chooses the size: little to see, small input."""

from __future__ import annotations

from bisect import bisect_right

from boardfit.runtime.results import Result
from boardfit.specs import PolicySpec


class EntropyPolicy:
    """Below the first threshold the first size, and so on; at a threshold the larger one.

    In a stream the size changes only when the entropy has passed a threshold by ``hysteresis_bits``, so
    that a scene on a threshold does not flap.
    """

    def __init__(self, spec: PolicySpec, stream: bool) -> None:
        self.needs_entropy = spec.needs_entropy
        self._spec = spec
        self._stream = stream
        self._index: int | None = None

    def first(self, bits: float | None) -> int:
        """Return the size for an image entropy; without one, the size of an image of one grey."""
        bits = 0.0 if bits is None else bits
        index = bisect_right(self._spec.thresholds_bits, bits)
        if self._stream:
            index = self._index = self._damped(index, bits)
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
