"""What each type of ncnn layer stores in the .bin, and whether a .bin is as long as its .param says.

The .bin has no index and no length: ncnn reads on for as long as the layers of the .param ask for numbers, in
memory past the end. The table is what the ``load_model`` functions under ncnn's ``src/layer`` read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from boardfit.errors import EngineError

MAGIC = "7767517"
FLOAT32, FLOAT16, INT8 = 0x0, 0x01306B47, 0x000D4B38
"""What the four bytes before a tagged array say of its numbers."""
_WIDTHS = {FLOAT32: 4, FLOAT16: 2, INT8: 1}
_STORE_OTHERWISE = frozenset({"Dequantize", "Embed", "GRU", "LSTM", "Quantize", "RNN", "Requantize"})
"""Types whose numbers are not counted here: what comes after one in the .bin is left to ncnn."""
_PARAMETER = re.compile(r"(-?[0-9]{1,9})=(\S+)", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,10}", re.ASCII)

Sizes = list[tuple[int, bool]]


class Layer(Protocol):
    """One line of a .param."""

    @property
    def kind(self) -> str:
        """Ncnn's type, ``Convolution`` and the like."""
        ...

    def integer(self, number: int, default: int = 0) -> int:
        """Return a parameter that is an integer."""
        ...


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str
    name: str
    params: Mapping[int, str]

    def integer(self, number: int, default: int = 0) -> int:
        text = self.params.get(number)
        if text is None:
            return default
        if _INTEGER.fullmatch(text) is None:
            raise ValueError(f"parameter {number} is {text!r:.40}, no integer")
        return int(text)


def check_length(param: str, weights: bytes, name: str) -> None:
    """Check that a .bin holds what the layers of its .param read, before ncnn reads it.

    Args:
        param: Untrusted text of the .param.
        weights: The .bin.
        name: The artifact's name, for the message.

    Raises:
        EngineError: The .param is none, a layer asks for an absurd number of values, or the .bin is shorter
            or longer than that.
    """
    at = 0
    for line in _lines(param, name):
        if line.kind in _STORE_OTHERWISE:
            return
        try:
            for count, tagged in stored(line):
                at = _after(weights, at, count, tagged=tagged)
        except ValueError as error:
            raise EngineError(
                f"the layer {line.name!r:.60} of {name} makes no sense ({error}): build the bundle again"
            ) from error
    if at != len(weights):
        raise EngineError(
            f"the .bin of {name} has {len(weights)} bytes, the layers of its .param read {at}: "
            "build the bundle again"
        )


def stored(layer: Layer) -> Sizes:
    """Return how many numbers a layer stores in each of its arrays, and whether a tag precedes them.

    Raises:
        ValueError: Its parameters make no sense.
    """
    stores = _STORES.get(layer.kind)
    return stores(layer) if stores else []


def _lines(param: str, name: str) -> list[_Line]:
    lines = param.splitlines()
    if len(lines) < 2 or lines[0].strip() != MAGIC:
        raise EngineError(f"the .param of {name} does not begin with {MAGIC}: build the bundle again")
    found = []
    for line in lines[2:]:
        words = line.split()
        if not words:
            continue
        if len(words) < 4 or not all(word.isdecimal() and len(word) < 6 for word in words[2:4]):
            raise EngineError(f"the line {line!r:.80} in the .param of {name} cannot be read: build again")
        rest = words[4 + int(words[2]) + int(words[3]) :]
        matches = [_PARAMETER.fullmatch(word) for word in rest]
        found.append(_Line(words[0], words[1], {int(match[1]): match[2] for match in matches if match}))
    announced = lines[1].split()
    if announced[:1] != [str(len(found))]:
        raise EngineError(
            f"the .param of {name} announces {lines[1]!r:.40} layers and blobs, and has {len(found)} layers: "
            "build the bundle again"
        )
    return found


def _after(weights: bytes, at: int, count: int, *, tagged: bool) -> int:
    """Return where an array ends."""
    tag = int.from_bytes(weights[at : at + 4], "little") if tagged else FLOAT32
    begin = at + 4 * tagged
    if tag not in _WIDTHS:
        raise ValueError(f"its numbers are of the unknown kind {tag:#x}")
    size = count * _WIDTHS[tag]
    end = begin + size + (-size % 4 if tagged else 0)
    if count < 0 or end > len(weights):
        raise ValueError(f"it reads {count} numbers from byte {begin} of {len(weights)}")
    return end


def _convolution(layer: Layer, *, dynamic: int = 19) -> Sizes:
    if layer.integer(dynamic):
        return []
    outputs, term = layer.integer(0), layer.integer(8)
    sizes = [(layer.integer(6), True)] + [(outputs, False)] * (layer.integer(5) != 0)
    if term:
        scales = outputs
        if layer.kind == "ConvolutionDepthWise":
            scales = layer.integer(7, 1) if term % 100 == 1 else 1
        sizes += [(scales, False), (1, False)] + [(1, False)] * (term > 100)
    return sizes


def _plain_convolution(layer: Layer) -> Sizes:
    sizes = [(layer.integer(6), True)]
    return sizes + [(layer.integer(0), False)] * (layer.integer(5) != 0)


def _deconvolution(layer: Layer) -> Sizes:
    return [] if layer.integer(28) else _plain_convolution(layer)


def _convolution1d(layer: Layer) -> Sizes:
    return [] if layer.integer(19) else _plain_convolution(layer)


def _inner_product(layer: Layer) -> Sizes:
    outputs = layer.integer(0)
    sizes = [(layer.integer(2), True)] + [(outputs, False)] * (layer.integer(1) != 0)
    return sizes + [(outputs, False), (1, False)] * (layer.integer(8) != 0)


def _gemm(layer: Layer) -> Sizes:
    m, n, k = (layer.integer(number) for number in (7, 8, 9))
    sizes = [(m * k, True)] * (layer.integer(4) != 0) + [(n * k, True)] * (layer.integer(5) != 0)
    if layer.integer(6) and layer.integer(10) != -1:
        constants = {0: 1, 1: m, 2: m, 3: m * n, 4: n}
        if layer.integer(10) not in constants:
            raise ValueError(f"a constant of form {layer.integer(10)}")
        sizes.append((constants[layer.integer(10)], True))
    if layer.integer(18):
        sizes += [(m, False)] * (layer.integer(4) != 0) + [(1, False)] * (layer.integer(5) != 0)
    return sizes


def _attention(layer: Layer) -> Sizes:
    width, size = layer.integer(0), layer.integer(2)
    keys, values = layer.integer(3, width), layer.integer(4, width)
    if width < 1:
        raise ValueError(f"an attention over {width} numbers")
    queries = size // width
    weights = [(width * queries, width), (width * keys, width), (width * values, width), (size, queries)]
    return [entry for weight, bias in weights for entry in ((weight, True), (bias, False))]


def _memory(layer: Layer) -> Sizes:
    sides = [layer.integer(number) for number in (0, 1, 11, 2)]
    count = math.prod(side for side in sides if side)
    return [(count, layer.integer(21, 1) == 0)]


def _affine(size: int, flag: int, arrays: int) -> Callable[[Layer], Sizes]:
    return lambda layer: [(layer.integer(size), False)] * (arrays if layer.integer(flag, 1) else 0)


def _raw(number: int, arrays: int = 1) -> Callable[[Layer], Sizes]:
    return lambda layer: [(layer.integer(number), False)] * (arrays if layer.integer(number) else 0)


def _scale(layer: Layer) -> Sizes:
    size = layer.integer(0)
    return [] if size == -233 else [(size, False)] * (1 + (layer.integer(1) != 0))


_STORES: Mapping[str, Callable[[Layer], Sizes]] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Convolution1D": _convolution1d,
    "ConvolutionDepthWise1D": _convolution1d,
    "Convolution3D": _plain_convolution,
    "ConvolutionDepthWise3D": _plain_convolution,
    "Deconvolution": _deconvolution,
    "DeconvolutionDepthWise": _deconvolution,
    "DeformableConv2D": _plain_convolution,
    "InnerProduct": _inner_product,
    "Gemm": _gemm,
    "MultiHeadAttention": _attention,
    "MemoryData": _memory,
    "BatchNorm": _raw(0, arrays=4),
    "Bias": _raw(0),
    "PReLU": _raw(0),
    "Normalize": _raw(3),
    "Padding": _raw(6),
    "Scale": _scale,
    "LayerNorm": _affine(0, flag=2, arrays=2),
    "RMSNorm": _affine(0, flag=2, arrays=1),
    "GroupNorm": _affine(1, flag=3, arrays=2),
    "InstanceNorm": _affine(0, flag=2, arrays=2),
}
