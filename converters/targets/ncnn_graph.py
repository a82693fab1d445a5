"""The two files of an ncnn net, .param and .bin, read into records and written back byte for byte.

A line of a .param is: type, name, number of inputs, number of outputs, inputs, outputs, parameters
(https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure). The .bin holds each layer's numbers
in the order of the lines, and says of none where it begins: ``runtime/engines/ncnn_stores.py`` knows what
every type of layer stores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boardfit.errors import ExportError
from boardfit.runtime.engines.ncnn_stores import FLOAT16, FLOAT32, INT8, Sizes, stored

MAGIC = "7767517"

_DTYPES: Mapping[int, np.dtype[Any]] = {
    FLOAT32: np.dtype("<f4"),
    FLOAT16: np.dtype("<f2"),
    INT8: np.dtype("i1"),
}
_ARRAY = -23300
_PARAMETER = re.compile(r'(-?\d+)=("[^"]*"|\S+)')


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """One array of the .bin.

    Attributes:
        values: (N,) float32, float16 or int8.
        tagged: Whether four bytes before it say which; without them it is float32.
    """

    values: np.ndarray
    tagged: bool

    def to_bytes(self) -> bytes:
        """Return the array as it stands in the file, filled up to a multiple of four bytes."""
        data = self.values.tobytes()
        if not self.tagged:
            return data
        tag = next(tag for tag, dtype in _DTYPES.items() if dtype == self.values.dtype)
        return tag.to_bytes(4, "little") + data + bytes(-len(data) % 4)


@dataclass(frozen=True, slots=True, eq=False)
class NcnnLayer:
    """One line of the .param and what it stores in the .bin.

    Attributes:
        kind: ncnn's type, ``Convolution`` and the like.
        name: Its name.
        inputs: Blobs that it reads.
        outputs: Blobs that it writes.
        params: The text of each parameter by its number, as written: an array ``i`` may stand under
            ``-23300 - i``.
        numbers: Its arrays in the .bin, in order.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, str]
    numbers: tuple[Numbers, ...] = ()

    def integer(self, number: int, default: int = 0) -> int:
        """Return a parameter that is an integer."""
        text = self.params.get(number)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError as error:
            raise ExportError(
                f"parameter {number} of the ncnn layer {self.name} is {text!r}: expected an integer"
            ) from error

    def floats(self, number: int) -> tuple[float, ...]:
        """Return a parameter that is a number or an array; empty where it is not given."""
        if number in self.params:
            words = self.params[number].split(",")
        else:
            words = self.params.get(_ARRAY - number, "0").split(",")[1:]
        return tuple(float(word) for word in words)

    def with_params(self, **changes: str | None) -> NcnnLayer:
        """Return the layer with parameters set or, with None, taken out; by ``p<number>``."""
        params = dict(self.params)
        for key, text in changes.items():
            number = int(key.removeprefix("p"))
            params.pop(_ARRAY - number, None)
            params.pop(number, None)
            if text is not None:
                params[number] = text
        return replace(self, params=params)

    @property
    def line(self) -> str:
        """The layer's line in the .param."""
        words = [self.kind, self.name, str(len(self.inputs)), str(len(self.outputs))]
        words += [*self.inputs, *self.outputs, *(f"{key}={text}" for key, text in self.params.items())]
        return " ".join(words)


@dataclass(frozen=True, slots=True, eq=False)
class NcnnGraph:
    """An ncnn net. The layers stand in the order in which they run."""

    layers: tuple[NcnnLayer, ...]

    @property
    def param(self) -> bytes:
        """The .param file."""
        blobs = sum(len(layer.outputs) for layer in self.layers)
        lines = [MAGIC, f"{len(self.layers)} {blobs}", *(layer.line for layer in self.layers)]
        return ("\n".join(lines) + "\n").encode("ascii")

    @property
    def weights(self) -> bytes:
        """The .bin file."""
        return b"".join(numbers.to_bytes() for layer in self.layers for numbers in layer.numbers)

    def copied_from(self) -> dict[str, str]:
        """Return for each blob the one that it is a copy of: Split, which ncnn needs, only shares."""
        origin: dict[str, str] = {}
        for layer in self.layers:
            for blob in layer.outputs:
                source = origin[layer.inputs[0]] if layer.kind == "Split" else blob
                origin[blob] = source
        return origin

    def readers(self) -> dict[str, list[NcnnLayer]]:
        """Return for each blob that is no copy the layers that read it or a copy; an output has none."""
        origin = self.copied_from()
        found: dict[str, list[NcnnLayer]] = {blob: [] for blob in origin.values()}
        for layer in self.layers:
            if layer.kind != "Split":
                for blob in layer.inputs:
                    found[origin[blob]].append(layer)
        return found


def read_graph(param: bytes, weights: bytes) -> NcnnGraph:
    """Read the two files of a net.

    Raises:
        ExportError: The .param is none, or the .bin does not hold what its layers store.
    """
    layers = _read_param(param)
    at, complete = 0, []
    for layer in layers:
        numbers = []
        for count, tagged in _stored(layer):
            array, at = _read_numbers(weights, at, count=count, tagged=tagged, layer=layer)
            numbers.append(array)
        complete.append(replace(layer, numbers=tuple(numbers)))
    if at != len(weights):
        kinds = ", ".join(sorted({layer.kind for layer in layers}))
        raise ExportError(
            f"the ncnn .bin has {len(weights)} bytes, of which {at} are explained by the .param: either the "
            f"files do not belong together, or one of these layers stores numbers unknown here: {kinds}"
        )
    return NcnnGraph(tuple(complete))


def _read_param(param: bytes) -> list[NcnnLayer]:
    try:
        lines = param.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise ExportError("the ncnn .param is no text: export the net again") from error
    if len(lines) < 2 or lines[0].strip() != MAGIC:
        raise ExportError(f"the ncnn .param does not begin with {MAGIC}: export the net again")
    layers = [_read_line(line) for line in lines[2:] if line.strip()]
    if lines[1].split()[:1] != [str(len(layers))]:
        raise ExportError(f"the ncnn .param announces {lines[1]!r} layers and blobs, but has {len(layers)}")
    known: set[str] = set()
    for layer in layers:
        unknown = set(layer.inputs) - known
        if unknown:
            raise ExportError(
                f"the ncnn layer {layer.name} reads {sorted(unknown)}, which none before writes"
            )
        known |= set(layer.outputs)
    return layers


def _read_line(line: str) -> NcnnLayer:
    words = line.split()
    try:
        inputs, outputs = int(words[2]), int(words[3])
        end = 4 + inputs + outputs
        blobs = words[4:end]
        if len(blobs) != inputs + outputs:
            raise ValueError
    except (IndexError, ValueError) as error:
        raise ExportError(f"the line {line!r} of the ncnn .param cannot be read") from error
    tail = line.split(maxsplit=end)[end:]
    params = {int(key): text for key, text in _PARAMETER.findall(tail[0] if tail else "")}
    return NcnnLayer(words[0], words[1], tuple(blobs[:inputs]), tuple(blobs[inputs:]), params)


def _read_numbers(data: bytes, at: int, *, count: int, tagged: bool, layer: NcnnLayer) -> tuple[Numbers, int]:
    tag = FLOAT32
    if tagged:
        tag, at = int.from_bytes(data[at : at + 4], "little"), at + 4
    if tag not in _DTYPES:
        raise ExportError(
            f"the ncnn .bin has the tag {tag:#x} at byte {at - 4} for {layer.name}: expected float32, "
            "float16 or int8; the files do not belong together, or hold weights in another form"
        )
    size = count * _DTYPES[tag].itemsize
    if at + size > len(data):
        raise ExportError(
            f"the ncnn .bin ends at byte {len(data)} inside the layer {layer.name}, which stores {count} "
            "numbers: the files do not belong together, or one is cut short"
        )
    values = np.frombuffer(data, _DTYPES[tag], count, at)
    return Numbers(values, tagged), at + size + (-size % 4 if tagged else 0)


def _stored(layer: NcnnLayer) -> Sizes:
    try:
        return stored(layer)
    except ValueError as error:
        raise ExportError(f"the ncnn layer {layer.name} makes no sense ({error})") from error


def float_text(value: float) -> str:
    """Return a float as a .param takes it: with a point, and at most the 15 characters that ncnn reads."""
    return f"{value:.7e}"
