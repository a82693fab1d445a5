"""PyTorch nets, brought by a function that builds them.

The factory is Python code, and boardfit runs it: name only code that you trust.

The net is exported to ONNX once per input size, and the exports become one Keras graph. That is how a
padding that the net computes for each size is told from one that is a number.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.ingest.check import check_import
from boardfit.converters.ingest.interface import inputs_note
from boardfit.converters.ingest.onnx import batch_first, fold
from boardfit.converters.ingest.onnx_convert import Converted, convert_graphs
from boardfit.converters.ingest.onnx_file import OnnxSource, describe_onnx, require_onnx
from boardfit.converters.ingest.onnx_inputs import filled_batch, further_feeds
from boardfit.converters.ingest.onnx_records import BOUND, EXPORTS, SizeBound
from boardfit.converters.ingest.torch_inputs import (
    EXPECTED,
    FactoryNet,
    factory_net,
    free_of_size,
    require_equal_inputs,
    require_read,
)
from boardfit.converters.model import Reference, SourceRequest, TrainedModel
from boardfit.errors import InputError, ToolMissing, UnsupportedModel

SUFFIXES: tuple[str, ...] = ()

SIZE_NAMES = ("size", "image_size", "img_size", "input_size", "resolution")
"""Parameters of a factory that take the input side in pixels."""

_OPSET = 17


def ingest(request: SourceRequest) -> TrainedModel:
    """Build a PyTorch net with its author's factory and read it. This runs the author's code.

    Args:
        request: ``source`` is ``package.module:factory`` or ``path/to/file.py:factory``. The factory
            returns a ``torch.nn.Module`` that takes one image, or a pair of a module and a dict of example
            tensors by the names of its ``forward``'s parameters. It may take the input side in pixels, as
            its one positional parameter or as ``size``, ``image_size``, ``img_size``, ``input_size`` or
            ``resolution``.

    Returns:
        The model; its reference is the PyTorch net of each size.

    Raises:
        InputError: There is no such module, file or function.
        UnsupportedModel: The factory fails or gives no net, the nets of the sizes are not one net, an
            input cannot be given, or a part has no Keras layer.
        ToolMissing: torch or onnx is not installed.
    """
    torch = _require_torch()
    factory, name = load_factory(request.source)
    nets = _build_nets(torch, factory, request)
    _require_equal_weights(nets, name)
    sources = {size: _export(torch, nets[size], size, name) for size in request.sizes}
    require_equal_inputs(sources, name)
    converted, fixed_by = _convert(sources, name, request.task)
    reference = _reference(torch, nets, sources, converted.batch_axes)
    source = sources[request.sizes[0]]
    further = tuple(item.spec for item in source.further)
    further = further if fixed_by else free_of_size(further)
    check_import(
        converted.net, reference, sizes=request.sizes, image=request.image, name=name, further=further
    )
    return TrainedModel(
        name=name,
        net=converted.net,
        outputs=converted.outputs,
        task=request.task,
        image=request.image,
        reference=reference,
        labels=request.labels,
        fixed_size=request.sizes[0] if fixed_by else None,
        fixed_by=fixed_by,
        notes=inputs_note(source.image, further),
        further=further,
    )


def own_side(source: str) -> int | None:
    """Return the default of the factory's size parameter, or None where there is none.

    Args:
        source: ``package.module:factory`` or ``path/to/file.py:factory``. This runs its module.
    """
    _require_torch()
    factory, _ = load_factory(source)
    parameter = size_parameter(factory)
    default = inspect.signature(factory).parameters[parameter].default if parameter else None
    return default if type(default) is int and default > 0 else None


def load_factory(source: str) -> tuple[Callable[..., Any], str]:
    """Import the function that a source names. This runs its module.

    Args:
        source: ``package.module:factory`` or ``path/to/file.py:factory``.

    Returns:
        The function, and a short name for the model.

    Raises:
        InputError: There is no such module, file or function.
    """
    where, _, attribute = source.rpartition(":")
    if not where or not attribute:
        raise InputError(
            f"{source!r} names no factory: expected package.module:factory or path/to/file.py:factory."
        )
    try:
        with _stdout_to_stderr():
            module = _import_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:  # the author's module may raise anything
        raise InputError(
            f"{where} cannot be imported ({type(error).__name__}: {error}). Expected a Python module or "
            "file: install its package, or start from the folder that it is in."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(
            f"{where} has no function {attribute!r}: it has {', '.join(sorted(names)[:20]) or 'none'}."
        )
    return factory, attribute


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(f"boardfit_factory_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def _build_nets(torch: Any, factory: Callable[..., Any], request: SourceRequest) -> dict[int, FactoryNet]:
    parameter = size_parameter(factory)
    if parameter is None:
        net = _build_net(torch, factory, {}, request.source)
        return dict.fromkeys(request.sizes, net)
    return {size: _build_net(torch, factory, {parameter: size}, request.source) for size in request.sizes}


def size_parameter(factory: Callable[..., Any]) -> str | None:
    """Return the name of the parameter that takes the input side in pixels, or None.

    Args:
        factory: Any function. A parameter with a known name wins; a single positional one is taken for
            the size unless its default says that it is no number of pixels.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return None
    for name in SIZE_NAMES:
        if name in parameters:
            return name
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [item for item in parameters.values() if item.kind in kinds]
    if len(positional) != 1:
        return None
    default = positional[0].default
    number = type(default) is int or default is inspect.Parameter.empty
    return positional[0].name if number else None


def _build_net(
    torch: Any, factory: Callable[..., Any], arguments: Mapping[str, int], source: str
) -> FactoryNet:
    try:
        with _stdout_to_stderr():
            answer = _call(factory, arguments)
    except Exception as error:  # the author's code may raise anything
        raise UnsupportedModel(
            f"the factory {source} failed with {dict(arguments)} ({type(error).__name__}: {error}). "
            f"Expected a function that needs nothing, or the input size alone, and returns {EXPECTED}."
        ) from error
    return factory_net(torch, answer, source)


def _call(factory: Callable[..., Any], arguments: Mapping[str, int]) -> Any:
    kinds = (
        {name: item.kind for name, item in inspect.signature(factory).parameters.items()} if arguments else {}
    )
    if inspect.Parameter.POSITIONAL_ONLY in kinds.values():
        return factory(*arguments.values())
    return factory(**arguments)


def _require_equal_weights(nets: Mapping[int, FactoryNet], name: str) -> None:
    sizes = list(nets)
    first = nets[sizes[0]].net.state_dict()
    for size in sizes[1:]:
        other = nets[size].net.state_dict()
        for key in [*first, *(key for key in other if key not in first)]:
            if key not in first or key not in other or not _equal(first[key], other[key]):
                raise UnsupportedModel(
                    f"the nets of {name} for {sizes[0]} and {size} pixels differ in {key!r}: expected equal "
                    "weights at every size. Let the factory load one checkpoint, or seed it."
                )


def _equal(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and (a == b).all())


def _export(torch: Any, net: FactoryNet, size: int, name: str) -> OnnxSource:
    onnx = require_onnx()
    buffer = io.BytesIO()
    try:
        with _stdout_to_stderr(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            feeds = net.feeds(torch, size)
            names = [f"{item}_out" if item in feeds else item for item in output_names(net(feeds))]
            torch.onnx.export(
                net.exportable(torch),
                tuple(feeds.values()),
                buffer,
                dynamo=False,
                # PRESERVE with eval() keeps BatchNormalization apart from the convolutions.
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                opset_version=_OPSET,
                input_names=list(feeds),
                output_names=names,
            )
    except Exception as error:  # the author's forward and torch's exporter may raise anything
        reason = str(error).strip().split("\n")[0]
        raise UnsupportedModel(
            f"{name} cannot be exported to ONNX at {size} pixels ({type(error).__name__}: {reason}). "
            "Expected a net that takes (1, 3, size, size) float32 and uses operators that torch.onnx knows; "
            "the factory of one that takes more returns it with a dict of example tensors by the names of "
            "its forward's parameters."
        ) from error
    model = onnx.load_from_string(buffer.getvalue())
    require_read(model, list(feeds), name)
    return describe_onnx(model, name=name)


def flat_outputs(answer: Any) -> list[Any]:
    """Return the tensors of what a net answers, in the order in which ONNX exports them.

    Args:
        answer: A tensor, or tuples, lists and dicts of them.
    """
    if isinstance(answer, Mapping):
        answer = tuple(answer.values())
    if isinstance(answer, (tuple, list)):
        return [tensor for item in answer for tensor in flat_outputs(item)]
    return [answer]


def output_names(answer: Any) -> list[str]:
    """Return a name for each tensor of what a net answers: ``output``, or a dict's keys, or numbered.

    Args:
        answer: A tensor, or tuples, lists and dicts of them.
    """
    if isinstance(answer, Mapping) and all(hasattr(item, "shape") for item in answer.values()):
        return [str(key) for key in answer]
    count = len(flat_outputs(answer))
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _convert(sources: Mapping[int, OnnxSource], name: str, task: str) -> tuple[Converted, str]:
    """Return the one net of all exports, and the node that binds it to the one size that was asked for."""
    layout = next(iter(sources.values())).layout
    try:
        graphs = [fold(source, size) for size, source in sources.items()]
        return convert_graphs(graphs, reading=EXPORTS, layout=layout, name=name, task=task), ""
    except SizeBound as bound:
        return convert_graphs(graphs, reading=BOUND, layout=layout, name=name, task=task), bound.node


def _reference(
    torch: Any,
    nets: Mapping[int, FactoryNet],
    sources: Mapping[int, OnnxSource],
    batch_axes: Sequence[int],
) -> Reference:
    def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Sequence[np.ndarray]:
        size = images.shape[1]
        if size not in nets:
            name = next(iter(sources.values())).name
            raise InputError(f"{name} was built for {sorted(nets)} pixels: expected one of them, not {size}.")
        source = sources[size]
        single = bool(source.further) or any(axis != 0 for axis in batch_axes)
        batch = 1 if single else len(images)
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), batch):
                rows = slice(start, start + batch)
                feed = filled_batch(images[rows], batch, layout=source.layout)
                feeds = {source.image: np.ascontiguousarray(feed, np.float32)}
                feeds |= further_feeds(source.further, further, rows, batch=batch)
                outputs = flat_outputs(
                    nets[size]({key: torch.from_numpy(value) for key, value in feeds.items()})
                )
                parts.append(
                    [batch_first(out.numpy(), axis) for out, axis in zip(outputs, batch_axes, strict=True)]
                )
        return [np.concatenate(rows).astype(np.float32, copy=False) for rows in zip(*parts, strict=True)]

    return reference


def _require_torch() -> Any:
    try:
        import torch
        import torch.onnx
    except ImportError as error:
        raise ToolMissing("torch is not installed. Install it: pip install 'boardfit[torch]'") from error
    return torch


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keep what a factory prints out of our own output, which programs read."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
