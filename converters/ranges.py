"""Activation ranges that a training found: they go with the model into every format's int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boardfit.converters.calibrate import Range
from boardfit.errors import CompressError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TrainedRanges:
    """The range of each tensor that quantisation-aware training rounded.

    Attributes:
        by_call: By the label of the call that writes the tensor, see ``quantize.graph.Graph``; the image's is
            ``image``.
    """

    by_call: Mapping[str, Range]

    def __post_init__(self) -> None:
        if not self.by_call:
            raise CompressError("a training that rounded no tensor has no ranges: expected at least one")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "schema": SCHEMA,
            "ranges": {label: [each.low, each.high] for label, each in self.by_call.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainedRanges:
        """Read what ``to_dict`` wrote.

        Raises:
            CompressError: It is something else, or of another schema.
        """
        try:
            if data["schema"] != SCHEMA:
                raise CompressError(f"trained ranges of schema {data['schema']!r}: expected {SCHEMA}")
            pairs = data["ranges"].items()
            found = {str(label): Range(float(low), float(high)) for label, (low, high) in pairs}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CompressError):
                raise
            raise CompressError(
                f"these are no trained ranges ({error}): expected what TrainedRanges.to_dict writes"
            ) from error
        return cls(found)
