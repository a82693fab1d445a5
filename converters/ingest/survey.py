"""What a source is, before anything is built: interface, sizes, weights and multiplications per layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boardfit.converters.auto_sizes import USUAL_SIDE, propose_sizes
from boardfit.converters.frameworks import load_frameworks
from boardfit.converters.ingest import ingest, looks_like_factory, own_side, require_file
from boardfit.converters.ingest.keras_rebuild import symbols, walk
from boardfit.converters.ingest.onnx import fold
from boardfit.converters.ingest.onnx_file import read_onnx
from boardfit.converters.ingest.onnx_fold import ARITHMETIC
from boardfit.converters.ingest.onnx_operators import HANDLERS
from boardfit.converters.ingest.untouched import read_untouched
from boardfit.converters.model import SourceRequest, TrainedModel
from boardfit.errors import UnsupportedModel
from boardfit.specs import ImageSpec, TensorSpec

_GONE_BEFORE = frozenset(("Constant", "Identity", "Dropout", "Cast", "Shape", "Size"))


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of the imported net.

    Attributes:
        name: Of the layer.
        kind: Its class.
        shape: Of its output at the side of the survey, without the batch.
        parameters: Numbers that it holds.
        macs: Multiplications of one image; 0 of what multiplies nothing by weights or tensors.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    Attributes:
        source: As it was named.
        own_side: The input side in pixels that the source is fixed to, or None.
        side: The side that ``layers`` are of.
        free: Whether other sides than ``side`` can be built.
        fixed_by: What binds the side, where it is bound.
        inputs: The image, and what is taken besides it.
        outputs: Names, shapes, activations.
        layers: In order; empty where the source cannot be imported.
        unsupported: What cannot be imported: operators with their number, or the reason in a sentence.
        notes: Of the import.
    """

    source: str
    own_side: int | None
    side: int
    free: bool
    fixed_by: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[LayerRow, ...]
    unsupported: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        totals = {
            "parameters": sum(row.parameters for row in self.layers),
            "macs": sum(row.macs for row in self.layers),
        }
        return {**asdict(self), **totals}


def survey(source: str) -> Survey:
    """Read a source and say what a build would find.

    Args:
        source: As for ``ingest``.

    Raises:
        InputError: It does not exist, or is of no known format.
        UnsupportedModel: It is damaged.
        ToolMissing: What reads it is not installed.
    """
    if not looks_like_factory(source):
        require_file(source)
    if Path(source).suffix.lower() == ".tflite":
        return _of_tflite(source)
    load_frameworks()
    own = own_side(source)
    side = own or USUAL_SIDE
    found = _unknown_operators(source)
    sizes = propose_sizes(side)
    model: TrainedModel | None = None
    try:
        # "raw": whatever it is for, it can be looked at.
        model = ingest(SourceRequest(source, sizes, ImageSpec(), task="raw"))
        side = model.fixed_size or side
    except UnsupportedModel as error:
        found = found or (str(error),)
    return Survey(
        source=source,
        own_side=own,
        side=side,
        free=model is not None and model.fixed_size is None,
        fixed_by=model.fixed_by if model else "",
        inputs=(
            TensorSpec("image", (None, own, own, 3), layout="NHWC"),
            *(model.further if model else ()),
        ),
        outputs=model.outputs if model else (),
        layers=tuple(layer_rows(model.net, side)) if model else (),
        unsupported=found,
        notes=model.notes if model else (),
    )


def _of_tflite(source: str) -> Survey:
    model = read_untouched(SourceRequest(source, (), ImageSpec(), task="raw"))
    side = model.fixed_size
    assert side is not None and model.untouched is not None
    return Survey(
        source=source,
        own_side=side,
        side=side,
        free=False,
        fixed_by=model.fixed_by,
        inputs=(model.untouched.image, *model.untouched.further),
        outputs=model.outputs,
        layers=(),
        unsupported=("its layers: a TFLite file is packed as it is, at its own size",),
    )


def _unknown_operators(source: str) -> tuple[str, ...]:
    """Return the operators of an ONNX file that nothing can be made of, as sentences."""
    if Path(source).suffix.lower() != ".onnx":
        return ()
    found = read_onnx(Path(source))
    try:
        left = fold(found, found.size or USUAL_SIDE).nodes
        counts = Counter(node.op for node in left if node.op not in HANDLERS)
    except UnsupportedModel:  # then what only constants need cannot be told from what images need
        known = {*HANDLERS, *_GONE_BEFORE, *ARITHMETIC}
        nodes = [node for node in found.model.graph.node if node.op_type not in known or node.domain]
        counts = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes)
    return tuple(f"{name}: {count} times (opset {found.opset})" for name, count in sorted(counts.items()))


def layer_rows(net: Any, side: int) -> list[LayerRow]:
    """Return the calls of a net with what they cost at one side.

    Args:
        net: keras.Model, functional.
        side: Of its images in pixels.
    """
    import keras

    rows: list[LayerRow] = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        output = operation.compute_output_spec(*args, **kwargs)
        first = keras.tree.flatten(output)[0]
        rows.append(
            LayerRow(
                name=operation.name,
                kind=type(operation).__name__,
                shape=tuple(first.shape[1:]),
                parameters=int(sum(math.prod(item.shape) for item in getattr(operation, "weights", ()))),
                macs=_macs(operation, keras.tree.flatten(args), first.shape),
            )
        )
        return output

    walk(net, symbols(net, side, batch=1), call)
    return rows


def _macs(operation: Any, inputs: Sequence[Any], output: Sequence[int | None]) -> int:
    """Return the multiplications of one image: by weights, or of two tensors."""
    kind = type(operation).__name__
    kernel = getattr(operation, "kernel", None)
    if kind == "Matmul":
        return _size(output) * int(inputs[0].shape[-1] or 0)
    if kernel is None:
        return 0
    shape = tuple(kernel.shape)
    if kind == "DepthwiseConv2D":
        return _size(output) * _size(shape[:2])
    if kind == "Conv2DTranspose":
        return _size(inputs[0].shape[:-1]) * _size(shape)
    return _size(output[:-1]) * _size(shape)


def _size(shape: Sequence[int | None]) -> int:
    return math.prod(extent or 0 for extent in shape)
