"""What a quantized artifact may be called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from boardfit.converters.quantize.records import Layer
from boardfit.converters.targets import Exported, file_stem
from boardfit.specs import MIXED

LEAST_MACS = 0.9
LARGEST_FILE = 0.35


@dataclass(frozen=True, slots=True)
class Share:
    """How much of an artifact is in int8.

    Attributes:
        macs: Share of the multiplications that run in integers.
        file: Bytes over those of the fp32 file of the same size.
    """

    macs: float
    file: float

    @property
    def may_be_called_int8(self) -> bool:
        """Whether that is enough for the name."""
        return self.macs >= LEAST_MACS and self.file <= LARGEST_FILE


def share_of(layers: Sequence[Layer], quantized: Exported, twin: Exported) -> Share:
    """Return how much of an artifact is in int8.

    Args:
        layers: Of the quantized artifact.
        quantized: It.
        twin: The fp32 artifact of the same format and size.
    """
    total = sum(layer.macs for layer in layers)
    integer = sum(layer.macs for layer in layers if layer.integer)
    return Share(macs=integer / total if total else 0.0, file=size_bytes(quantized) / size_bytes(twin))


def named(quantized: Exported, share: Share) -> Exported:
    """Return an int8 artifact under the name that it may carry; another scheme keeps its own."""
    if quantized.artifact.precision != "int8" or share.may_be_called_int8:
        return quantized
    return renamed(quantized, MIXED)


def renamed(exported: Exported, precision: str) -> Exported:
    """Return an artifact with another precision in its record and its files' names."""
    old = exported.artifact
    before = file_stem(old.format, precision=old.precision, sizes=old.sizes)
    after = file_stem(old.format, precision=precision, sizes=old.sizes)
    paths = {path: after + path.removeprefix(before) for path in old.files}
    artifact = replace(old, precision=precision, files=tuple(paths[path] for path in old.files))
    return Exported(artifact=artifact, files={paths[path]: data for path, data in exported.files.items()})


def size_bytes(exported: Exported) -> int:
    """Return the bytes of all files of an artifact."""
    return sum(len(data) for data in exported.files.values())
