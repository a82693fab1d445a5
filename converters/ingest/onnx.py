"""ONNX files, and ONNX models in memory, to Keras layers.

A file that is fixed to one input size says nothing of others. It is taken as free of size only where
every node agrees at all requested sizes whichever way its padding is read; otherwise its own size is the
only one, and ``fixed_by`` names the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.ingest.check import check_import
from boardfit.converters.ingest.interface import inputs_note
from boardfit.converters.ingest.onnx_convert import Converted, convert_graphs
from boardfit.converters.ingest.onnx_file import OnnxSource, read_onnx, with_size
from boardfit.converters.ingest.onnx_fold import SizeImpossible, fold_graph
from boardfit.converters.ingest.onnx_fuse import fuse_graph
from boardfit.converters.ingest.onnx_inputs import filled_batch, further_feeds
from boardfit.converters.ingest.onnx_records import ASSUMED, BOUND, FIXED, HIDDEN, SYMBOLIC, Graph, SizeBound
from boardfit.converters.ingest.reference import kept_reference
from boardfit.converters.model import Reference, SourceRequest, TrainedModel
from boardfit.errors import ToolMissing, UnsupportedModel

SUFFIXES: tuple[str, ...] = (".onnx",)

ASSUMED_NOTE = (
    "padding that is 'same' at the source's own size was taken for 'same' at every size; at other sizes the "
    "imported net is its own reference"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Import:
    converted: Converted
    fixed_size: int | None = None
    fixed_by: str = ""
    assumed: bool = False


def ingest(request: SourceRequest) -> TrainedModel:
    """Read an ONNX model, opset 11 to 22.

    Args:
        request: ``source`` is the path of the file.

    Returns:
        The model; its reference is ONNX Runtime on the file, at other sizes than the file's own on the
        file with its input's declaration rewritten.

    Raises:
        UnsupportedModel: Damaged, not what ``task`` says, or with a part that has no Keras layer.
        ToolMissing: onnx or onnxruntime is not installed.
    """
    source = read_onnx(Path(request.source))
    done = _import(source, request)
    net, name = done.converted.net, source.name
    reference = _reference(source, done, net)
    sizes = [done.fixed_size] if done.fixed_size is not None else list(request.sizes)
    own = [source.size] if source.size is not None else []
    further = tuple(item.spec for item in source.further)
    check_import(
        net, reference, sizes=sorted({*sizes, *own}), image=request.image, name=name, further=further
    )
    return TrainedModel(
        name=name,
        net=net,
        outputs=done.converted.outputs,
        task=request.task,
        image=request.image,
        reference=reference,
        labels=request.labels,
        fixed_size=done.fixed_size,
        fixed_by=done.fixed_by,
        notes=((ASSUMED_NOTE,) if done.assumed else ()) + inputs_note(source.image, further),
        further=further,
    )


def own_side(source: str) -> int | None:
    """Return the side that the file fixes its input to, or None.

    Args:
        source: Path of the file.
    """
    return read_onnx(Path(source)).size


def fold(source: OnnxSource, size: int) -> Graph:
    """Return a source's graph at one size, folded and fused.

    Args:
        source: The model.
        size: Input side in pixels; for a fixed source also another than its own.
    """
    return fuse_graph(fold_graph(source, size))


def _import(source: OnnxSource, request: SourceRequest) -> _Import:
    if source.size is None:
        return _import_symbolic(source, request)
    if request.assume_same_padding:
        return _import_assumed(source, source.size, request)
    return _import_fixed(source, source.size, request)


def _import_fixed(source: OnnxSource, own: int, request: SourceRequest) -> _Import:
    sizes = sorted({own, *request.sizes})
    try:
        graphs = [fold(source, size) for size in sizes if size != own]
        graphs.insert(sizes.index(own), fold(source, own))
        return _Import(_convert(source, graphs, FIXED, request.task, own=sizes.index(own)))
    except SizeBound as bound:
        node = bound.node
    except SizeImpossible as impossible:
        node = impossible.node
    return _import_bound(source, own, node, request)


def _import_assumed(source: OnnxSource, own: int, request: SourceRequest) -> _Import:
    try:
        converted = _convert(source, [fold(source, own)], ASSUMED, request.task)
    except SizeBound as bound:
        return _import_bound(source, own, bound.node, request)
    return _Import(converted, assumed=True)


def _import_symbolic(source: OnnxSource, request: SourceRequest) -> _Import:
    try:
        graphs = [fold(source, size) for size in request.sizes]
        return _Import(_convert(source, graphs, SYMBOLIC, request.task))
    except SizeBound as bound:
        node = bound.node
    except SizeImpossible as impossible:
        node = impossible.node
    failures: list[UnsupportedModel] = []
    for size in sorted(request.sizes, reverse=True):
        try:
            return _import_bound(source, size, node, request)
        except UnsupportedModel as error:
            failures.append(error)
    raise failures[0]


def _import_bound(source: OnnxSource, size: int, node: str, request: SourceRequest) -> _Import:
    converted = _convert(source, [fold(source, size)], BOUND, request.task)
    return _Import(converted, fixed_size=size, fixed_by=node)


def _convert(
    source: OnnxSource, graphs: Sequence[Graph], reading: str, task: str, *, own: int = 0
) -> Converted:
    return convert_graphs(graphs, reading=reading, own=own, layout=source.layout, name=source.name, task=task)


def _reference(source: OnnxSource, done: _Import, net: Any) -> Reference:
    places = done.converted.batch_axes
    original = onnx_reference(source, source.model, batch_axes=places)
    if source.size is None or done.fixed_size is not None:
        return original
    if done.assumed:
        others = kept_reference(net)
    else:
        others = onnx_reference(source, with_size(source, None), batch_axes=places)

    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        return (original if images.shape[1] == source.size else others)(images, further)

    return reference


def onnx_reference(source: OnnxSource, model: Any, *, batch_axes: Sequence[int]) -> Reference:
    """Return ONNX Runtime on a model as a function of NHWC images.

    Args:
        source: Names and layouts of the model's interface.
        model: onnx.ModelProto.
        batch_axes: Where each output has its batch; the answers have it first.

    Raises:
        UnsupportedModel: ONNX Runtime refuses the model.
        ToolMissing: onnxruntime is not installed.
    """
    session = _open(source, model)

    def answers(feeds: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        try:
            return list(session.run(source.outputs, feeds))
        except Exception as error:  # onnxruntime's errors have no public base class
            shapes = ", ".join(str(list(feed.shape)) for feed in feeds.values())
            raise UnsupportedModel(
                f"ONNX Runtime cannot run {source.name} on an input of {shapes} ({error}). "
                "Export the model again."
            ) from error

    moved = any(axis != 0 for axis in batch_axes) or not all(item.batched for item in source.further)

    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        batch = 1 if moved else source.batch or max(len(images), 1)
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            feed = filled_batch(part, batch, layout=source.layout)
            feeds = {source.image: np.ascontiguousarray(feed, np.float32)}
            feeds |= further_feeds(source.further, further, slice(start, start + batch), batch=batch)
            outputs = answers(feeds)
            parts.append(
                [
                    batch_first(array, axis)[: len(part)]
                    for array, axis in zip(outputs, batch_axes, strict=True)
                ]
            )
        return [np.concatenate(rows).astype(np.float32, copy=False) for rows in zip(*parts, strict=True)]

    return reference


def _open(source: OnnxSource, model: Any) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolMissing(
            "onnxruntime is not installed. Install it: pip install 'boardfit[convert]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no public base class
        raise UnsupportedModel(
            f"ONNX Runtime refuses {source.name} ({error}). Export the model again."
        ) from error


def batch_first(array: np.ndarray, axis: int) -> np.ndarray:
    """Return an output with its batch as the first axis.

    Args:
        array: Of one image, unless ``axis`` is 0.
        axis: Where the batch is; ``HIDDEN`` where the source has dropped it.
    """
    return array[None] if axis == HIDDEN else np.moveaxis(array, axis, 0)
